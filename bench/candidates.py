"""Who is compared: this library, its peers, and what only moves the memory, for reference."""

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from itertools import cycle

import torch
from torch import Tensor, nn

from bench.buffers import Buffers
from bench.cases import Case
from bench.extension import dropout_ext
from bench.steps import LOOPS, Operation, forward_loop
from bench.timing import Run

SUBJECT = "dropout_ext"
RIVAL = "nn.Dropout"
COPY = "copy_"
MUL = "torch.mul"


@dataclass(frozen=True)
class Candidate:
    """A named way to do what a mode asks for; `make` returns None where it has none."""

    name: str
    role: str
    make: Callable[[Case, Buffers], Run | None]


def _loop(case: Case, buffers: Buffers, operation: Operation) -> Run:
    return LOOPS[case.mode](operation, buffers.inputs, buffers.gradients)


def _subject(case: Case, buffers: Buffers) -> Run:
    return _loop(case, buffers, dropout_ext.Dropout(case.p, case.mode == "inplace"))


def _rival(case: Case, buffers: Buffers) -> Run:
    return _loop(case, buffers, nn.Dropout(case.p, case.mode == "inplace"))


def allow_recompilation() -> None:
    """Every size and dtype is a variant of one function here: no reason to stop compiling."""
    torch._dynamo.config.recompile_limit = 1 << 16
    torch._dynamo.config.accumulated_recompile_limit = 1 << 16


def _compile(case: Case, buffers: Buffers, operation: Operation) -> Run | None:
    """On CUDA compiled for the very size, which decides the vector width; on the CPU for any.

    Every size is a compilation there, so only the two dtypes that matter most are compiled.
    """
    if case.device == "cuda" and case.dtype not in ("float32", "bfloat16"):
        return None
    allow_recompilation()
    return _loop(case, buffers, torch.compile(operation, dynamic=case.device == "cpu"))


def _compiled(case: Case, buffers: Buffers) -> Run | None:
    return _compile(case, buffers, nn.Dropout(case.p, case.mode == "inplace"))


def hand_written(x: Tensor, p: float) -> Tensor:
    """The mask of the tutorials: a random tensor, compared, multiplied, divided."""
    return (torch.rand_like(x) > p) * x / (1 - p)


def _mask(case: Case) -> Operation:
    p = case.p

    def overwrite(x: Tensor) -> Tensor:
        return x.mul_(torch.rand_like(x) > p).div_(1 - p)

    return overwrite if case.mode == "inplace" else lambda x: hand_written(x, p)


def _hand_written(case: Case, buffers: Buffers) -> Run:
    return _loop(case, buffers, _mask(case))


def _compiled_hand_written(case: Case, buffers: Buffers) -> Run | None:
    return _compile(case, buffers, _mask(case))


def _triton(case: Case, buffers: Buffers) -> Run | None:
    missing = case.device != "cuda" or importlib.util.find_spec("triton") is None
    if missing or case.mode == "inplace" or case.layout != "contiguous":
        return None
    from bench.triton_peer import seeded_dropout

    return _loop(case, buffers, lambda x: seeded_dropout(x, case.p))


def _mul(case: Case, buffers: Buffers) -> Run | None:
    if case.mode == "inplace":
        return None
    return _loop(case, buffers, lambda x: torch.mul(x, 2.0))


def _copy(case: Case, buffers: Buffers) -> Run | None:
    """Between existing tensors; in every mode on CUDA, where it stands for the bandwidth."""
    if case.mode != "inplace" and case.device != "cuda":
        return None
    targets = cycle([torch.empty_like(x, requires_grad=False) for x in buffers.inputs])
    sources = [x.detach() for x in buffers.inputs]
    return forward_loop(lambda x: next(targets).copy_(x), sources)


CANDIDATES: dict[str, Candidate] = {
    candidate.name: candidate
    for candidate in (
        Candidate(SUBJECT, "subject", _subject),
        Candidate(RIVAL, "peer", _rival),
        Candidate("compiled nn.Dropout", "peer", _compiled),
        Candidate("hand-written", "peer", _hand_written),
        Candidate("compiled hand-written", "peer", _compiled_hand_written),
        Candidate("triton seeded", "peer", _triton),
        Candidate(MUL, "ceiling", _mul),
        Candidate(COPY, "ceiling", _copy),
    )
}


def ceiling_of(mode: str) -> str:
    """The memory-bound operation that does the least a mode requires."""
    return COPY if mode == "inplace" else MUL
