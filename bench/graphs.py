"""CUDA graph capture of a timed loop: what a small call costs once launching is out of the way."""

import math
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from bench.timing import EventClock, Run

LARGEST = 1 << 20
"""Elements up to which replay is measured; above, the kernel is longer than its launch."""

_SHORTEST_GRAPH = 32


@contextmanager
def capturable(device: str) -> Iterator[None]:
    """Makes a stream that can be captured the current one; does nothing on the CPU.

    Everything runs on it, eager calls too: autograd sends a gradient to the stream of its forward
    pass, and were that the default stream, capturing it would not be permitted.
    """
    if device != "cuda":
        yield
        return
    stream = torch.cuda.Stream()  # type: ignore[no-untyped-call, unused-ignore]
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        yield
    torch.cuda.current_stream().wait_stream(stream)


def capture(run: Run, rotation: int) -> tuple[Run, int]:
    """Captures whole turns of the rotated buffers; returns the replaying loop and its unit.

    The unit is the number of calls in one replay; the loop accepts multiples of it. `run` is warm,
    and the current stream is one of `capturable`.
    """
    unit = rotation * math.ceil(_SHORTEST_GRAPH / rotation)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, stream=torch.cuda.current_stream()):
        run(unit)

    def replay(calls: int) -> None:
        for _ in range(calls // unit):
            graph.replay()

    return replay, unit


class ReplayClock(EventClock):
    """Events around replays; told apart from eager calls by its name."""

    name = "graph"


CLOCK = ReplayClock()
