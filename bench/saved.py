"""Bytes that a forward pass keeps for its backward pass, measured in two independent ways."""

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

from bench.candidates import RIVAL, SUBJECT, hand_written
from bench.dtypes import DTYPES
from bench.extension import dropout_ext


@dataclass(frozen=True)
class Saved:
    """What one candidate keeps for backward.

    `saved_bytes`: the storages of the tensors that autograd was handed, each once and whole (a
    view keeps all of it alive), without the input's own and the output's (both are alive anyway;
    `keeps_input` tells whether the graph would keep the input alive if the model did not).
    `retained_bytes`: what the allocator still holds after the forward pass, less the output. It
    sees what the hooks cannot (anything kept outside saved tensors), and small constants.
    """

    candidate: str
    dtype: str
    numel: int
    p: float
    device: str
    saved_bytes: int
    saved_bytes_per_element: float
    keeps_input: bool
    retained_bytes: int


def _address(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()


def saved_tensors(forward: Callable[[], Tensor]) -> tuple[Tensor, list[Tensor]]:
    """The result of `forward` and the tensors that autograd packed while it ran, storages once."""
    packed: dict[int, Tensor] = {}

    def pack(tensor: Tensor) -> Tensor:
        packed.setdefault(_address(tensor), tensor.detach())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        result = forward()
    return result, list(packed.values())


@contextmanager
def _silent_stderr() -> Iterator[None]:
    """The profiler writes a line to the process's stderr, past Python, at start and stop."""
    sys.stderr.flush()
    kept = os.dup(2)
    with open(os.devnull, "w") as nowhere:
        os.dup2(nowhere.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


def _retained(forward: Callable[[], Tensor], device: str) -> int:
    """Bytes allocated and not freed by `forward`, less those of its result."""
    if device == "cuda":
        before = torch.cuda.memory_allocated()
        result = forward()
        grown = torch.cuda.memory_allocated() - before
    else:
        trace = profile(activities=[ProfilerActivity.CPU], profile_memory=True)
        with _silent_stderr(), trace:
            result = forward()
        events: Any = trace.events()  # type: ignore[no-untyped-call, unused-ignore]
        grown = sum(event.self_cpu_memory_usage for event in events)
    return int(grown) - result.untyped_storage().nbytes()


def measure_saved(
    candidate: str,
    module: Callable[[Tensor], Tensor],
    dtype: str,
    numel: int,
    p: float,
    device: str,
) -> Saved:
    """Runs `module` forward twice on a leaf of `numel` elements and counts what stays behind."""
    x = torch.rand(numel, device=device, dtype=torch.float32).to(DTYPES[dtype]).requires_grad_()
    module(x)
    result, tensors = saved_tensors(lambda: module(x))
    alive = {_address(x), _address(result)}
    own = sum(t.untyped_storage().nbytes() for t in tensors if _address(t) not in alive)
    keeps_input = any(_address(t) == _address(x) for t in tensors)
    del result, tensors
    retained = _retained(lambda: module(x), device)
    return Saved(candidate, dtype, numel, p, device, own, own / numel, keeps_input, retained)


def saved_table(dtypes: list[str], numel: int, p: float, device: str) -> list[Saved]:
    """The candidates whose graph is eager, in each dtype."""
    modules: dict[str, Callable[[Tensor], Tensor]] = {
        SUBJECT: dropout_ext.Dropout(p),
        RIVAL: nn.Dropout(p),
        "hand-written": lambda x: hand_written(x, p),
    }
    return [
        measure_saved(name, module, dtype, numel, p, device)
        for dtype in dtypes
        for name, module in modules.items()
    ]
