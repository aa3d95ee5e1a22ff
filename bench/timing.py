"""The only timing loop: clocks, and a round robin that is fair to all on a drifting machine."""

import gc
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch

Run = Callable[[int], None]  # calls the measured operation the given number of times
Clock = Callable[[Run, int], float]  # seconds for so many calls together


def wall_clock(run: Run, calls: int) -> float:
    """The host's monotonic clock: operations on the CPU are finished when they return."""
    start = time.perf_counter_ns()
    run(calls)
    return (time.perf_counter_ns() - start) * 1e-9


def event_clock(run: Run, calls: int) -> float:
    """CUDA events around the calls, on the current stream.

    The device starts idle, so the time of the first launch is inside; a sample holds enough calls
    for that not to matter, and where launching is slower than the kernels it *is* the result.
    """
    start = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call, unused-ignore]
    stop = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call, unused-ignore]
    torch.cuda.synchronize()
    start.record()
    run(calls)
    stop.record()
    stop.synchronize()
    return float(start.elapsed_time(stop)) * 1e-3


@dataclass(frozen=True)
class Budget:
    """How long to measure: seconds in all for each trial, seconds for one sample, how many."""

    trial_seconds: float
    sample_seconds: float = 1e-3
    min_samples: int = 5
    max_samples: int = 41


@dataclass
class Trial:
    """Something to time, and the seconds per call found so far.

    `prepare` runs untimed before each sample. `calls_per_unit` is the granularity of `run`: a
    captured graph, for one, replays a fixed number of calls.
    """

    run: Run
    clock: Clock
    prepare: Callable[[], None] = lambda: None
    calls_per_unit: int = 1
    calls_per_sample: int = 0
    seconds: list[float] = field(default_factory=list)

    def sample(self, calls: int) -> float:
        """Seconds per call over one sample of `calls` calls."""
        self.prepare()
        return self.clock(self.run, calls) / calls

    def calibrate(self, sample_seconds: float) -> float:
        """Sets `calls_per_sample` and returns the estimated seconds per call; `run` is warm."""
        calls = self.calls_per_unit
        per_call = self.sample(calls)
        while per_call * calls < sample_seconds / 4:
            calls *= 4
            per_call = self.sample(calls)
        units = math.ceil(sample_seconds / (per_call * self.calls_per_unit))
        self.calls_per_sample = units * self.calls_per_unit
        return per_call


def interleave(trials: Sequence[Trial], budget: Budget) -> None:
    """Samples the trials in turn until each has used its budget; fills in their `seconds`.

    A slow trial gets fewer samples than a quick one. They are spread evenly over the rounds, and
    each round starts with another trial, so that none is always first after a disturbance. The
    garbage collector rests meanwhile.
    """
    gc.collect()
    collecting = gc.isenabled()
    gc.disable()
    try:
        counts = []
        for trial in trials:
            sample = trial.calibrate(budget.sample_seconds) * trial.calls_per_sample
            affordable = int(budget.trial_seconds / sample)
            counts.append(max(budget.min_samples, min(budget.max_samples, affordable)))
        rounds = max(counts, default=0)
        for turn in range(rounds):
            for position in range(len(trials)):
                index = (position + turn) % len(trials)
                trial, count = trials[index], counts[index]
                if (turn + 1) * count // rounds > turn * count // rounds:
                    trial.seconds.append(trial.sample(trial.calls_per_sample))
    finally:
        if collecting:
            gc.enable()
