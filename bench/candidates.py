"""Who is compared: this library, its peers, and what only moves the memory, for reference."""

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


def _operation(name: str, case: Case) -> Operation | None:
    """What a candidate does to one tensor; None where it does not do what the case asks for."""
    p, in_place = case.p, case.mode == "inplace"
    if name.startswith("compiled"):
        # On CUDA compiled for the very size, which decides the vector width; on the CPU for any.
        # Every size is a compilation there, so only the two dtypes that matter most are compiled.
        if case.device == "cuda" and case.dtype not in ("float32", "bfloat16"):
            return None
        allow_recompilation()
        operation = _operation(name.removeprefix("compiled "), case)
        if operation is None:
            return None
        return torch.compile(operation, dynamic=case.device == "cpu")
    if name == OURS:
        return dropout_ext.Dropout(p, in_place)
    if name == BASELINE:
        return nn.Dropout(p, in_place)
    if name == "hand-written":
        overwrite: Operation = lambda x: x.mul_(torch.rand_like(x) > p).div_(1 - p)  # noqa: E731
        return overwrite if in_place else lambda x: hand_written(x, p)
    return None if in_place else lambda x: torch.mul(x, 2.0)


_PEERS = ("compiled nn.Dropout", "hand-written", "compiled hand-written")
CANDIDATES = (OURS, BASELINE, *_PEERS, MUL, COPY)


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
    operation = _operation(name, case)
    if operation is None:  # a compiled module has no truth value
        return None
    return loop(operation, case.mode, buffers.inputs, buffers.gradients)
