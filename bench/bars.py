"""What a bar is: a rule on records of this library, judged at each place it was measured."""

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from bench.candidates import SUBJECT
from bench.cases import MODES, format_size
from bench.record import Record
from bench.saved import Saved
from bench.table import align

ANY = range(1, sys.maxsize)
"""Of numbers of elements."""


@dataclass(frozen=True)
class Verdict:
    """One bar at one place; `met` is None where it could not be measured."""

    bar: str
    where: str
    measured: str
    wanted: str
    met: bool | None


def _where(record: Record) -> str:
    timer = {"wall": "", "events": ", eager", "graph": ", graph replay"}[record.timer]
    layout = "" if record.layout == "contiguous" else f", {record.layout}"
    return f"{record.dtype} {format_size(record.numel)}{layout}{timer}"


def own(records: Iterable[Record], section: str, mode: str, sizes: range) -> list[Record]:
    """This library's records in a section and mode, with a number of elements in `sizes`."""
    wanted = (SUBJECT, section, mode)
    return [r for r in records if (r.candidate, r.section, r.mode) == wanted and r.numel in sizes]


def judge(
    bar: str, wanted: str, records: Sequence[Record], rule: Callable[[Record], tuple[str, bool]]
) -> Iterator[Verdict]:
    """A verdict for each record; one that says so where there is none."""
    if not records:
        yield Verdict(bar, "-", "not measured here", wanted, None)
    for record in records:
        measured, met = rule(record)
        yield Verdict(bar, _where(record), measured, wanted, met)


def times_rival(least: float) -> Callable[[Record], tuple[str, bool]]:
    """A rule: at least this many times as fast as nn.Dropout."""

    def rule(record: Record) -> tuple[str, bool]:
        times = record.times_rival or 0.0
        return f"{times:.2f} x", times >= least

    return rule


def at_most(
    ratio: Callable[[Record], float | None], most: float
) -> Callable[[Record], tuple[str, bool]]:
    """A rule: a ratio of times may not exceed `most`."""

    def rule(record: Record) -> tuple[str, bool]:
        value = ratio(record)
        return ("-", False) if value is None else (f"{value:.2f} x", value <= most)

    return rule


def time_over_rival(record: Record) -> float | None:
    """Time over that of nn.Dropout."""
    return 1 / record.times_rival if record.times_rival else None


def time_over_ceiling(record: Record) -> float | None:
    """Time over that of the ceiling."""
    return 1 / record.share_of_ceiling if record.share_of_ceiling else None


def layout_verdicts(records: Sequence[Record]) -> Iterator[Verdict]:
    """No layout may take more than twice the contiguous time; of each size the worst is shown."""
    rule = at_most(lambda r: r.time_over_contiguous, 2.0)
    for mode in MODES:
        worst: dict[tuple[str, int, str], Record] = {}
        for record in own(records, "layouts", mode, ANY):
            key = (record.dtype, record.numel, record.timer)
            if _ratio(record) >= _ratio(worst.get(key)):
                worst[key] = record
        if worst:
            rows = list(worst.values())
            yield from judge(f"{mode}, worst layout", "<= 2 x contiguous time", rows, rule)


def _ratio(record: Record | None) -> float:
    return (record.time_over_contiguous or 0.0) if record else 0.0


def saved_verdicts(saved: Iterable[Saved]) -> Iterator[Verdict]:
    """Nothing but the 16 bytes of the generator's state is kept for backward."""
    for line in saved:
        if line.candidate == SUBJECT:
            met = line.saved_bytes <= 16 and not line.keeps_input
            measured = f"{line.saved_bytes} B" + " + input" * line.keeps_input
            yield Verdict("saved for backward", line.dtype, measured, "16 B", met)


def verdict_table(verdicts: Sequence[Verdict]) -> list[str]:
    """One line per verdict, and how many were met."""
    words = {True: "met", False: "MISSED", None: "unknown"}
    rows = [["bar", "where", "measured", "wanted", ""]]
    rows += [[v.bar, v.where, v.measured, v.wanted, words[v.met]] for v in verdicts]
    count = {met: sum(v.met is met for v in verdicts) for met in words}
    total = f"bars: {count[True]} met, {count[False]} missed, {count[None]} not measured"
    return ["", "the project's bars", *align(rows), total]
