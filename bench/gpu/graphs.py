"""CUDA graph capture of a timed loop: what a small call costs once launching is out of the way."""

import math

import torch

from bench.timing import Run

LARGEST = 1 << 20
"""Elements up to which replay is measured; above, the kernel is longer than its launch."""

_SHORTEST_GRAPH = 32


def unit(rotation: int) -> int:
    """Calls in one replay: whole turns of the rotated buffers."""
    return rotation * math.ceil(_SHORTEST_GRAPH / rotation)


def capture(run: Run | None, calls: int) -> Run | None:
    """The loop that replays so many calls at a time.

    The current stream must not be the default one, which cannot be captured, nor may the inputs
    have been used on it: autograd sends a gradient to the stream of its forward pass.
    """
    if run is None:
        return None
    run(1)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, stream=torch.cuda.current_stream()):
        run(calls)

    def replay(count: int) -> None:
        for _ in range(count // calls):
            graph.replay()

    return replay
