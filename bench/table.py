"""Readable tables of the records: one block per mode, dtype, p and timer, one line per size."""

from collections.abc import Iterable, Sequence
from itertools import groupby

from bench.candidates import SUBJECT
from bench.cases import LAYOUTS, MODES, format_size
from bench.dtypes import DTYPES
from bench.measure import Failure
from bench.record import Record
from bench.saved import Saved

TIMES_BELOW = 1 << 14
"""Elements below which a cell shows the time of a call instead of elements per second."""


def align(rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines of equal columns: the first flush left, the others flush right."""
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            cell.ljust(width) if index == 0 else cell.rjust(width)
            for index, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


def format_seconds(seconds: float) -> str:
    """Three significant digits with the unit that suits."""
    for unit, factor in (("s", 1.0), ("ms", 1e3), ("us", 1e6)):
        if seconds * factor >= 1:
            return f"{seconds * factor:.3g} {unit}"
    return f"{seconds * 1e9:.3g} ns"


def _speed(record: Record | None) -> str:
    """Throughput, or the time of a call where that says more; half the interquartile range."""
    if record is None:
        return "-"
    spread = (record.seconds_q3 - record.seconds_q1) / 2 / record.seconds_median
    if record.numel < TIMES_BELOW:
        return f"{format_seconds(record.seconds_median)} ±{spread:.0%}"
    return f"{record.elements_per_s * 1e-9:.3g} G/s ±{spread:.0%}"


def _ratio(value: float | None, suffix: str = "") -> str:
    return "-" if value is None else f"{value:.2f}{suffix}"


def _against_others(own: Record | None) -> list[str]:
    if own is None:
        return ["-"] * 3
    return [_ratio(r) for r in (own.times_rival, own.share_of_ceiling, own.share_of_copy)]


def _block(records: Sequence[Record]) -> list[str]:
    names = list(dict.fromkeys(record.candidate for record in records))
    on_cuda = records[0].device == "cuda"
    head = ["elements", *names, "| x nn.Dropout", "of ceiling"]
    rows = [head + ["of copy"] * on_cuda]
    for numel in dict.fromkeys(record.numel for record in records):
        cells = {record.candidate: record for record in records if record.numel == numel}
        ratios = _against_others(cells.get(SUBJECT))[: len(rows[0]) - len(names) - 1]
        rows.append([format_size(numel), *(_speed(cells.get(name)) for name in names), *ratios])
    return align(rows)


def _rank(record: Record) -> tuple[int, int]:
    return list(MODES).index(record.mode), list(DTYPES).index(record.dtype)


def speed_table(records: Iterable[Record]) -> list[str]:
    """Every candidate's speed; right of the bar, what dropout_ext reaches against the others."""
    lines = []

    def key(record: Record) -> tuple[tuple[int, int], float, str, str]:
        return _rank(record), record.p, record.timer, record.cpu_path or ""

    for _, group in groupby(sorted((r for r in records if r.section == "speed"), key=key), key):
        block = list(group)
        one = block[0]
        how = {"events": "eager", "graph": "graph replay"}.get(one.timer, f"{one.cpu_path} path")
        lines += ["", f"{one.mode}, {one.dtype}, p = {one.p:g}, {how} ({MODES[one.mode]})"]
        lines += _block(block)
    return lines


def layout_table(records: Sequence[Record]) -> list[str]:
    """Time of each layout over that of the contiguous tensor, for every candidate."""
    strided = [record for record in records if record.time_over_contiguous is not None]
    if not strided:
        return []
    layouts = [name for name in LAYOUTS if name != "contiguous"]
    rows = [["mode, dtype, elements, candidate", *layouts]]

    def key(record: Record) -> tuple[tuple[int, int], int, str, str]:
        return _rank(record), record.numel, record.candidate, record.timer

    for _, group in groupby(sorted(strided, key=key), key):
        block = list(group)
        one = block[0]
        ratios = {record.layout: record.time_over_contiguous for record in block}
        replayed = " (graph)" if one.timer == "graph" else ""
        label = f"{one.mode}, {one.dtype}, {format_size(one.numel)}, {one.candidate}{replayed}"
        rows.append([label, *(_ratio(ratios.get(layout), " x") for layout in layouts)])
    return ["", "layouts: time over that of the contiguous tensor", *align(rows)]


def saved_bytes_table(saved: Sequence[Saved]) -> list[str]:
    """What each candidate keeps for backward."""
    if not saved:
        return []
    rows = [["candidate", "dtype", "saved for backward", "per element", "left in the allocator"]]
    for line in saved:
        own = f"{line.saved_bytes:,} B" + (" + input" if line.keeps_input else "")
        per_element = f"{line.saved_bytes_per_element:.3g} B"
        rows.append([line.candidate, line.dtype, own, per_element, f"{line.retained_bytes:,} B"])
    head = f"bytes saved for backward, {format_size(saved[0].numel)} elements, p = {saved[0].p:g}"
    return ["", head, *align(rows)]


def failure_lines(failures: Sequence[Failure]) -> list[str]:
    """Who could not do what."""
    return [
        f"failed: {f.candidate}, {f.mode}, {f.dtype}, {format_size(f.numel)}, {f.layout}, "
        f"{f.timer}: {f.error}"
        for f in failures
    ]
