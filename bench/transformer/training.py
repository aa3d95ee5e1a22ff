"""Times the training step with every dropout, interleaved, and counts its memory."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from bench.candidates import RIVAL, allow_recompilation
from bench.output import brief
from bench.saved import saved_tensors
from bench.timing import Budget, Clock, EventClock, Trial, WallClock, interleave
from bench.transformer.encoder import WITHOUT, Peer, Shape, Step, encoder, peers


@dataclass
class Line:
    """The training step with one dropout. Seconds are per step."""

    dropout: str
    compiled: bool
    seconds_median: float
    seconds_min: float
    seconds_max: float
    samples: int
    tokens_per_s: float
    saved_bytes: int
    """Storages kept for backward, parameters not counted."""
    peak_bytes: int | None
    """CUDA: the most memory in a step beyond what lies there between steps; null on the CPU."""
    times_rival: float | None = None
    dropout_share: float | None = None
    """Part of the step that disappears when the three dropouts do, attention's staying."""


def _saved_bytes(step: Step) -> int:
    own = {p.untyped_storage().data_ptr() for p in step.model.parameters()}
    _, tensors = saved_tensors(step.forward)
    storages = (tensor.untyped_storage() for tensor in tensors)
    return sum(storage.nbytes() for storage in storages if storage.data_ptr() not in own)


def _peak_bytes(step: Step) -> int | None:
    if not step.x.is_cuda:
        return None
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    step(1)
    torch.cuda.synchronize()
    return torch.cuda.max_memory_allocated() - before


def _line(name: str, compiled: bool, step: Step, seconds: Sequence[float], shape: Shape) -> Line:
    median = statistics.median(seconds)
    return Line(
        dropout=name,
        compiled=compiled,
        seconds_median=median,
        seconds_min=min(seconds),
        seconds_max=max(seconds),
        samples=len(seconds),
        tokens_per_s=shape.batch * shape.sequence / median,
        saved_bytes=_saved_bytes(step),
        peak_bytes=_peak_bytes(step),
    )


def _compare(lines: Sequence[Line]) -> None:
    seconds = {(line.dropout, line.compiled): line.seconds_median for line in lines}
    for line in lines:
        rival = seconds.get((RIVAL, line.compiled))
        without = seconds.get((WITHOUT, line.compiled))
        line.times_rival = rival / line.seconds_median if rival else None
        line.dropout_share = 1 - without / line.seconds_median if without else None


@dataclass(frozen=True)
class Task:
    """What is trained, and for how long each dropout is timed."""

    shape: Shape
    device: str
    dtype: str
    p: float
    attention_p: float
    compiled: bool
    seconds: float


def _warm_step(task: Task, peer: Peer, name: str, compiled: bool) -> Step | None:
    """A step that has run, and so is compiled; None, and a line that says why, if it cannot."""
    model = encoder(task.shape, peer, task.p, task.attention_p, task.dtype, task.device)
    step = Step(model, task.shape, compiled)
    try:
        step(2)
    except Exception as error:  # a peer that does not compile is reported and left out
        print(f"failed: {name}{', compiled' * compiled}: {brief(error)}")
        return None
    return step


def measure(task: Task) -> list[Line]:
    """Trains with every dropout in turn, interleaved, eager and, where asked for, compiled."""
    if task.compiled:
        allow_recompilation()
    clock: Clock = EventClock() if task.device == "cuda" else WallClock()
    steps: dict[tuple[str, bool], tuple[Step, Trial]] = {}
    for compiled in (False, True) if task.compiled else (False,):
        for name, peer in peers(task.device).items():
            step = _warm_step(task, peer, name, compiled)
            if step:
                steps[name, compiled] = step, Trial(step, clock)
    trials = [trial for _, trial in steps.values()]
    interleave(trials, Budget(task.seconds, sample_seconds=1e-3, min_samples=5))
    lines = [
        _line(name, compiled, step, trial.seconds, task.shape)
        for (name, compiled), (step, trial) in steps.items()
    ]
    _compare(lines)
    return lines
