"""Readable tables of the records: `text` for the terminal, `markdown` for published pages."""

from collections.abc import Iterable, Sequence
from typing import Any

import pandas as pd

from bench.candidates import OURS
from bench.cases import DTYPES, LAYOUTS, MODES, format_size

_TIMES_BELOW = 1 << 14  # elements; there a cell shows the time of a call


def as_frame(rows: Iterable[dict[str, Any]]) -> pd.DataFrame:
    """Records or cells as a table."""
    found: pd.DataFrame = pd.DataFrame(list(rows))
    return found


def text(frame: pd.DataFrame) -> list[str]:
    """Lines of equal columns."""
    return [] if frame.empty else frame.to_string(index=False).splitlines()


def markdown(frame: pd.DataFrame) -> list[str]:
    """A table of Markdown, all but the first column flush right."""
    rule = ["---", *["---:"] * (frame.shape[1] - 1)]
    lines = [list(frame.columns), rule, *frame.fillna("-").astype(str).to_numpy().tolist()]
    return [f"| {' | '.join(line)} |" for line in lines]


def seconds(value: float) -> str:
    """Three significant digits with the unit that suits."""
    for unit, factor in (("s", 1.0), ("ms", 1e3), ("us", 1e6)):
        if value * factor >= 1:
            return f"{value * factor:.3g} {unit}"
    return f"{value * 1e9:.3g} ns"


def ratio(value: float | None) -> str:
    """A multiple, or a dash where there is none."""
    return "-" if value is None or pd.isna(value) else f"{value:.2f} \N{MULTIPLICATION SIGN}"


def speed(record: Any) -> str:
    """Throughput, or the time of a call where that says more; half the interquartile range."""
    spread = f"±{(record['seconds_q3'] - record['seconds_q1']) / 2 / record['seconds']:.0%}"
    if record.get("numel", 0) < _TIMES_BELOW:
        return f"{seconds(record['seconds'])} {spread}"
    return f"{record['numel'] / record['seconds'] * 1e-9:.3g} G/s {spread}"


def _section(records: Sequence[dict[str, Any]], name: str, keys: list[str]) -> Any:
    """Its records by these keys, modes and dtypes in the order of their lists."""
    frame = as_frame(record for record in records if record.get("section") == name)
    for key, order in (("mode", MODES), ("dtype", DTYPES)):
        frame[key] = pd.Categorical(frame.get(key, ()), list(order), ordered=True)
    return frame.groupby(keys, observed=True, dropna=False) if len(frame) else ()


def speed_tables(records: Sequence[dict[str, Any]]) -> list[str]:
    """One block per mode, dtype, p and timer, one line per size."""
    lines: list[str] = []
    for key, block in _section(records, "speed", ["mode", "dtype", "p", "timer", "cpu_path"]):
        mode, dtype, p, timer, path = key
        names = list(dict.fromkeys(block["candidate"]))
        cells = block.assign(cell=block.apply(speed, axis=1))
        table = cells.pivot(index="numel", columns="candidate", values="cell")[names].fillna("-")
        own = block[block["candidate"] == OURS].set_index("numel").reindex(table.index)
        headings = {"speed_up": "speed-up", "time_over_mul": "time over mul"}
        for key, heading in (headings | {"time_over_copy": "time over copy"}).items():
            if own[key].notna().any():
                table[heading] = own[key].map(ratio)
        table.insert(0, "elements", [format_size(numel) for numel in table.index])
        how = timer if pd.isna(path) else f"{path} path"
        lines += ["", f"{mode}, {dtype}, p = {p:g}, {how} ({MODES[mode]})", *text(table)]
    return lines


def layout_table(records: Sequence[dict[str, Any]]) -> pd.DataFrame:
    """Time of each layout over that of the same candidate on the contiguous tensor."""
    rows = []
    for key, block in _section(
        records, "layouts", ["mode", "dtype", "numel", "candidate", "timer"]
    ):
        mode, dtype, numel, candidate, timer = key
        if timer == "graph replay":
            candidate += " (replayed)"
        found = block.set_index("layout")["time_over_contiguous"]
        place = {"mode": mode, "dtype": dtype, "elements": format_size(numel)}
        ratios = {layout: ratio(found[layout]) for layout in LAYOUTS[1:] if layout in found}
        rows.append(place | {"candidate": candidate} | ratios)
    return as_frame(rows)


def saved_table(saved: Sequence[dict[str, Any]]) -> pd.DataFrame:
    """What each candidate keeps for backward."""
    return as_frame(
        {
            "candidate": line["candidate"],
            "dtype": line["dtype"],
            "elements": format_size(line["numel"]),
            "saved for backward": f"{line['saved_bytes']:,} B" + " + input" * line["keeps_input"],
            "per element": f"{line['saved_bytes'] / line['numel']:.3g} B",
            "left in the allocator": f"{line['retained_bytes']:,} B",
        }
        for line in saved
    )
