"""Who is compared: this library, its peers, and what only moves the memory, for reference."""

import importlib.util
from collections.abc import Callable
from itertools import cycle

import torch
from torch import Tensor, nn

from bench.cases import Case
from bench.extension import dropout_ext
from bench.loops import Buffers, Operation, loop
from bench.timing import Run

OURS = "dropout_ext"
BASELINE = "nn.Dropout"
COPY = "copy_"
MUL = "torch.mul"


def allow_recompilation() -> None:
    """Every size and dtype is a variant of one function here: no reason to stop compiling."""
    torch._dynamo.config.recompile_limit = 1 << 16
    torch._dynamo.config.accumulated_recompile_limit = 1 << 16


def hand_written(x: Tensor, p: float) -> Tensor:
    """The mask of the tutorials: a random tensor, compared, multiplied, divided."""
    return (torch.rand_like(x) > p) * x / (1 - p)


def triton_dropout(device: str) -> Callable[[Tensor, float], Tensor] | None:
    """The peer written in Triton, where there is Triton and a GPU."""
    if device != "cuda" or importlib.util.find_spec("triton") is None:
        return None
    from bench.gpu.triton_peer import seeded_dropout

    return seeded_dropout


def _ours(case: Case) -> Operation:
    return dropout_ext.Dropout(case.p, case.mode == "inplace")


def _baseline(case: Case) -> Operation:
    return nn.Dropout(case.p, case.mode == "inplace")


def _mask(case: Case) -> Operation:
    p = case.p
    if case.mode == "inplace":
        return lambda x: x.mul_(torch.rand_like(x) > p).div_(1 - p)
    return lambda x: hand_written(x, p)


def _compiled(make: Callable[[Case], Operation]) -> Callable[[Case], Operation | None]:
    """On CUDA compiled for the very size, which decides the vector width; on the CPU for any.

    Every size is a compilation there, so only the two dtypes that matter most are compiled.
    """

    def compiled(case: Case) -> Operation | None:
        if case.device == "cuda" and case.dtype not in ("float32", "bfloat16"):
            return None
        allow_recompilation()
        return torch.compile(make(case), dynamic=case.device == "cpu")

    return compiled


def _triton(case: Case) -> Operation | None:
    dropout = triton_dropout(case.device)
    if dropout is None or case.mode == "inplace" or case.layout != "contiguous":
        return None
    return lambda x: dropout(x, case.p)


def _mul(case: Case) -> Operation | None:
    return None if case.mode == "inplace" else lambda x: torch.mul(x, 2.0)


CANDIDATES: dict[str, Callable[[Case], Operation | None]] = {
    OURS: _ours,
    BASELINE: _baseline,
    "compiled nn.Dropout": _compiled(_baseline),
    "hand-written": _mask,
    "compiled hand-written": _compiled(_mask),
    "triton seeded": _triton,
    MUL: _mul,
    COPY: lambda case: None,
}
"""The operation of each candidate; None where it does not do what the case asks for."""

CEILINGS = (MUL, COPY)


def make_run(name: str, case: Case, buffers: Buffers) -> Run | None:
    """The timed loop of a candidate.

    copy_ works between existing tensors: beside other in-place operations, and in every mode on
    CUDA, where it stands for the bandwidth.
    """
    if name == COPY:
        if case.mode != "inplace" and case.device != "cuda":
            return None
        targets = cycle([torch.empty_like(x, requires_grad=False) for x in buffers.inputs])
        sources = [x.detach() for x in buffers.inputs]
        return loop(lambda x: next(targets).copy_(x), "forward", sources, [])
    operation = CANDIDATES[name](case)
    if operation is None:
        return None
    return loop(operation, case.mode, buffers.inputs, buffers.gradients)
