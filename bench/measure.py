"""Times a group of cases with all its candidates in one round robin."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch

from bench import graphs
from bench.buffers import Buffers, rotation
from bench.candidates import Candidate
from bench.cases import Case
from bench.extension import dropout_ext
from bench.output import brief
from bench.record import Record, Setting, compare, summarize
from bench.timing import Budget, Clock, EventClock, Run, Trial, WallClock, interleave


@dataclass
class Failure:
    """A candidate that could not do a case, and what it said."""

    candidate: str
    mode: str
    dtype: str
    numel: int
    layout: str
    timer: str
    error: str


@dataclass
class Results:
    """What a run has gathered."""

    records: list[Record] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)


@dataclass(frozen=True)
class _Entry:
    candidate: Candidate
    case: Case
    buffers: int
    trial: Trial


def _entry(
    candidate: Candidate, case: Case, buffers: Buffers, run: Run, clock: Clock, unit: int = 1
) -> _Entry:
    trial = Trial(run, clock, buffers.refresh, unit)
    trial.sample(unit)  # warms up, and fails here rather than among the others
    return _Entry(candidate, case, len(buffers.inputs), trial)


def _failure(candidate: Candidate, case: Case, timer: str, error: Exception) -> Failure:
    where = (case.mode, case.dtype, case.numel, case.layout, timer)
    return Failure(candidate.name, *where, brief(error))


def _entries(case: Case, candidates: Sequence[Candidate], results: Results) -> list[_Entry]:
    """One entry per candidate and timer. Who fails is reported and left out."""
    buffers = Buffers(case, rotation(case))
    clock: Clock = EventClock() if case.device == "cuda" else WallClock()
    entries = []
    for candidate in candidates:
        timer = clock.name
        try:
            run = candidate.make(case, buffers)
            if run is None:
                continue
            entries.append(_entry(candidate, case, buffers, run, clock))
            if case.device == "cuda" and case.numel <= graphs.LARGEST:
                timer = "graph"
                replay, unit = graphs.capture(run, len(buffers.inputs))
                entries.append(_entry(candidate, case, buffers, replay, graphs.CLOCK, unit))
        except Exception as error:  # whatever a peer raises is a finding, not the end of the run
            results.failures.append(_failure(candidate, case, timer, error))
    return entries


def measure(
    section: str,
    group: Sequence[Case],
    candidates: Sequence[Candidate],
    budget: Budget,
    results: Results,
) -> None:
    """Times all candidates on all cases of the group, interleaved, and adds their records.

    The budget is per candidate and case.
    """
    entries = [entry for case in group for entry in _entries(case, candidates, results)]
    interleave([entry.trial for entry in entries], budget)
    path = dropout_ext.build_info()["cpu_path"] if group[0].device == "cpu" else None
    threads = torch.get_num_threads()
    records = []
    for entry in entries:
        trial = entry.trial
        setting = Setting(section, threads, path, trial.clock.name, entry.buffers)
        records.append(
            summarize(entry.candidate, entry.case, setting, trial.calls_per_sample, trial.seconds)
        )
    compare(records)
    results.records += records
    if group[0].device == "cuda":
        del entries
        torch.cuda.empty_cache()
