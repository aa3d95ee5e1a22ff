"""Bytes that a forward pass keeps for its backward pass, measured in two independent ways."""

import os
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from bench.candidates import BASELINE, OURS, hand_written
from bench.cases import DTYPES
from bench.extension import dropout_ext


def _address(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()


def saved_tensors(forward: Callable[[Tensor], Tensor], x: Tensor) -> tuple[Tensor, list[Tensor]]:
    """The result and the tensors that autograd packed meanwhile, each storage once."""
    packed: dict[int, Tensor] = {}

    def pack(tensor: Tensor) -> Tensor:
        packed.setdefault(_address(tensor), tensor.detach())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        result = forward(x)
    return result, list(packed.values())


def nbytes(tensors: Sequence[Tensor], besides: Iterable[Tensor] = ()) -> int:
    """Bytes of their storages, without those that `besides` lie in."""
    others = set(map(_address, besides))
    return sum(t.untyped_storage().nbytes() for t in tensors if _address(t) not in others)


def _retained(forward: Callable[[Tensor], Tensor], x: Tensor) -> int:
    """Bytes allocated and not freed by `forward`, less those of its result."""
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # or the profiler writes to stderr
    before = torch.cuda.memory_allocated() if x.is_cuda else 0
    with torch.autograd.profiler.profile(profile_memory=True, use_kineto=False) as trace:
        result = forward(x)
    grown = sum(event.self_cpu_memory_usage for event in trace.function_events or ())
    if x.is_cuda:
        grown = torch.cuda.memory_allocated() - before
    return int(grown) - result.untyped_storage().nbytes()


def _record(forward: Callable[[Tensor], Tensor], x: Tensor) -> dict[str, Any]:
    """Runs `forward` on a leaf, warm, and counts what stays behind.

    `saved_bytes`: the storages of the tensors that autograd was handed, each once and whole (a
    view keeps all of it alive), without the input's own and the output's (both are alive anyway;
    `keeps_input` tells whether the graph would keep the input alive if the model did not).
    `retained_bytes`: what the allocator still holds after the forward pass, less the output. It
    sees what the hooks cannot (anything kept outside saved tensors), and small constants.
    """
    forward(x)
    result, tensors = saved_tensors(forward, x)
    own = nbytes(tensors, (x, result))
    keeps_input = any(_address(t) == _address(x) for t in tensors)
    del result, tensors
    return {"saved_bytes": own, "keeps_input": keeps_input, "retained_bytes": _retained(forward, x)}


def saved_records(dtypes: Sequence[str], numel: int, p: float, device: str) -> list[dict[str, Any]]:
    """The candidates whose graph is eager, in each dtype."""
    candidates: dict[str, Callable[[Tensor], Tensor]] = {
        OURS: dropout_ext.Dropout(p),
        BASELINE: nn.Dropout(p),
        "hand-written": lambda x: hand_written(x, p),
    }
    found = []
    for dtype in dtypes:
        x = torch.rand(numel, device=device).to(DTYPES[dtype]).requires_grad_()
        for name, forward in candidates.items():
            place = {"candidate": name, "dtype": dtype, "numel": numel, "p": p, "device": device}
            found.append({**place, **_record(forward, x)})
    return found
