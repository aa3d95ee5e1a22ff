"""The result of one candidate in one case, and the comparisons within a case.

`Record` is the schema of ``records`` in the JSON output: every field is always there, and a field
that does not apply is null. Seconds are per call; a call is what the mode names (for
``forward_backward`` both passes). A new meaning of a field raises `SCHEMA`.
"""

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass

from bench import traffic
from bench.candidates import COPY, RIVAL, Candidate, ceiling_of
from bench.cases import Case

SCHEMA = "dropout_ext.bench/1"


@dataclass
class Record:
    """One line of the comparison."""

    section: str
    """``speed`` (over sizes) or ``layouts``."""
    candidate: str
    role: str
    mode: str
    dtype: str
    numel: int
    p: float
    layout: str
    device: str
    threads: int
    cpu_path: str | None
    timer: str
    """``wall`` (CPU), ``events`` (CUDA, eager) or ``graph`` (CUDA, replayed)."""
    buffers: int
    """Inputs used in rotation; 1 means warm caches where the tensor fits."""
    calls_per_sample: int
    samples: int
    seconds_median: float
    seconds_min: float
    seconds_max: float
    seconds_q1: float
    seconds_q3: float
    elements_per_s: float
    needed_bytes_per_element: int
    moved_bytes_per_element: int | None
    """By count of the candidate's passes over memory; null where a compiler decides."""
    bytes_per_s: float
    """Needed bytes over the median: useful traffic, whatever else the candidate moves."""
    times_rival: float | None = None
    """Time of nn.Dropout over this time: above 1 is faster than nn.Dropout."""
    ceiling: str | None = None
    share_of_ceiling: float | None = None
    """Throughput over that of the ceiling in the same case."""
    share_of_copy: float | None = None
    """Useful bytes per second over those of copy_ in the same case."""
    time_over_contiguous: float | None = None
    """Time over that of the same candidate on the contiguous tensor, taken in the same round."""


@dataclass(frozen=True)
class Setting:
    """Under what a case was timed."""

    section: str
    threads: int
    cpu_path: str | None
    timer: str
    buffers: int


def summarize(
    candidate: Candidate,
    case: Case,
    setting: Setting,
    calls_per_sample: int,
    seconds: Sequence[float],
) -> Record:
    """A record without comparisons, from the seconds per call of each sample."""
    median = statistics.median(seconds)
    quartiles = statistics.quantiles(seconds, n=4, method="inclusive")
    bytes_needed = traffic.needed(candidate.name, case)
    return Record(
        candidate=candidate.name,
        role=candidate.role,
        **asdict(case),
        **asdict(setting),
        calls_per_sample=calls_per_sample,
        samples=len(seconds),
        seconds_median=median,
        seconds_min=min(seconds),
        seconds_max=max(seconds),
        seconds_q1=quartiles[0],
        seconds_q3=quartiles[2],
        elements_per_s=case.numel / median,
        needed_bytes_per_element=bytes_needed,
        moved_bytes_per_element=traffic.moved(candidate.name, case),
        bytes_per_s=case.numel * bytes_needed / median,
    )


def compare(records: Iterable[Record]) -> None:
    """Fills in the comparisons within one group of records taken together."""
    records = list(records)
    known = {(r.candidate, r.timer, r.layout): r for r in records}
    for record in records:
        record.ceiling = ceiling_of(record.mode)
        rival = known.get((RIVAL, record.timer, record.layout))
        ceiling = known.get((record.ceiling, record.timer, record.layout))
        copy = known.get((COPY, record.timer, record.layout))
        contiguous = known.get((record.candidate, record.timer, "contiguous"))
        if rival:
            record.times_rival = rival.seconds_median / record.seconds_median
        if ceiling:
            record.share_of_ceiling = ceiling.seconds_median / record.seconds_median
        if copy:
            record.share_of_copy = record.bytes_per_s / copy.bytes_per_s
        if contiguous and record.layout != "contiguous":
            record.time_over_contiguous = record.seconds_median / contiguous.seconds_median
