"""The runner of every comparison: jobs timed in one round robin, a record for each.

A record has the job's labels and, in seconds per call, the median and its spread. `relate` adds
ratios within a group of records timed together; a ratio that has no counterpart is None.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from bench.candidates import BASELINE, COPY, MUL
from bench.report import Report, brief
from bench.timing import Budget, Run, Trial, event_clock, interleave, wall_clock

Record = dict[str, Any]


@dataclass(frozen=True)
class Job:
    """What to time. `make` returns the loop, or None where there is nothing to time."""

    labels: Record
    make: Callable[[], Run | None]
    prepare: Callable[[], None] = lambda: None
    buffers: int = 1
    calls_per_unit: int = 1
    timer: str = "eager"


def summarize(trial: Trial) -> Record:
    """Quantiles of the seconds per call over the samples of a trial."""
    names = ("seconds_min", "seconds_q1", "seconds", "seconds_q3", "seconds_max")
    quantiles = np.quantile(trial.seconds, (0, 0.25, 0.5, 0.75, 1)).tolist()
    counts = {"calls_per_sample": trial.calls_per_sample, "samples": len(trial.seconds)}
    return counts | dict(zip(names, quantiles, strict=True))


def relate(records: Sequence[Record], baseline: str = BASELINE) -> None:
    """Ratios of times within records that were timed together.

    `speed_up`: the baseline's time over this one. `time_over_*`: this time over that of torch.mul,
    of copy_ on the contiguous tensor, or of the same candidate on the contiguous tensor.
    """
    known = {(r["candidate"], r["timer"], r.get("layout")): r["seconds"] for r in records}
    for record in records:
        timer, layout, own = record["timer"], record.get("layout"), record["seconds"]
        dense = "contiguous" if layout else None
        others = {
            "time_over_mul": known.get((MUL, timer, layout)),
            "time_over_copy": known.get((COPY, timer, dense)),
            "time_over_contiguous": layout and known.get((record["candidate"], timer, dense)),
        }
        base = known.get((baseline, timer, layout))
        record["speed_up"] = base / own if base else None
        record |= {name: own / other if other else None for name, other in others.items()}


def measure(
    jobs: Iterable[Job], device: str, budget: Budget, report: Report, baseline: str = BASELINE
) -> None:
    """Times the jobs, interleaved, and adds their records; the budget is for each job.

    A job that raises is a failure in the report, and the others go on.
    """
    clock = event_clock if device == "cuda" else wall_clock
    timed: list[tuple[Record, Trial]] = []
    for job in jobs:
        labels = {**job.labels, "timer": job.timer, "buffers": job.buffers}
        try:
            run = job.make()
            if run is not None:
                trial = Trial(run, clock, job.prepare, job.calls_per_unit)
                trial.sample(job.calls_per_unit)  # warms up, and fails here if it fails
                timed.append((labels | job.labels, trial))
        except Exception as error:
            report.failures.append({**labels, "error": brief(error)})
    interleave([trial for _, trial in timed], budget)
    records = [labels | summarize(trial) for labels, trial in timed]
    relate(records, baseline)
    report.records += records
