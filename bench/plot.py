"""Throughput against size, one panel per dtype and mode, with the ceilings drawn."""

from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")

import pandas as pd
from matplotlib import pyplot
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.ticker import EngFormatter

from bench.candidates import BASELINE, COPY, MUL, OURS
from bench.cases import MODES, format_size

STYLES: dict[str, tuple[str, str, str]] = {
    OURS: ("#d55e00", "-", "o"),
    BASELINE: ("#0072b2", "-", "s"),
    "compiled nn.Dropout": ("#56b4e9", "-", "^"),
    "hand-written": ("#cc79a7", "-", "D"),
    "compiled hand-written": ("#e69f00", "-", "P"),
    MUL: ("#444444", "--", ""),
    COPY: ("#444444", ":", ""),
}
"""Colour (told apart by colour-blind readers too), line and marker of each candidate."""

_TITLES = {"forward_grad": "forward, gradient wanted", "forward_backward": "forward + backward"}
_TITLES["inplace"] = "forward, in place"


def _draw(axes: Axes, panel: pd.DataFrame) -> None:
    for name, (colour, line, marker) in STYLES.items():
        own = panel[panel["candidate"] == name].sort_values("numel")
        if own.empty:
            continue
        n = own["numel"]
        label = f"{name} (ceiling)" if name in (MUL, COPY) else name
        axes.plot(
            n, n / own["seconds"], line,
            color=colour, marker=marker, markersize=4, linewidth=1.6, label=label,
        )  # fmt: skip
        low, high = n / own["seconds_q3"], n / own["seconds_q1"]
        axes.fill_between(n, low, high, color=colour, alpha=0.15, linewidth=0)
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    shown = sorted(set(panel["numel"]))
    axes.set_xticks(shown, map(format_size, shown), rotation=45)
    axes.minorticks_off()
    axes.yaxis.set_major_formatter(EngFormatter())
    axes.grid(True, which="major", color="#dddddd", linewidth=0.6)
    axes.set_axisbelow(True)


def plot(frame: pd.DataFrame, facts: dict[str, Any], file: Path) -> None:
    """Writes the figure as PNG: eager times, the first p and the first CPU path of the records."""
    shown = frame[(frame["section"] == "speed") & (frame["timer"] == "eager")]
    if shown.empty:
        raise SystemExit("nothing to plot: no record of the speed section")
    path = shown["cpu_path"].fillna("")
    shown = shown[(shown["p"] == shown["p"].iloc[0]) & (path == path.iloc[0])]
    modes = [mode for mode in MODES if mode in set(shown["mode"])]
    dtypes = list(dict.fromkeys(shown["dtype"]))
    figure, grid = pyplot.subplots(
        len(dtypes), len(modes), squeeze=False, sharey=True, layout="constrained",
        figsize=(4.1 * len(modes) + 0.4, 3.1 * len(dtypes) + 1.3),
    )  # fmt: skip
    labels: dict[str, Artist] = {}
    for row, dtype in zip(grid, dtypes, strict=True):
        for axes, mode in zip(row, modes, strict=True):
            _draw(axes, shown[(shown["dtype"] == dtype) & (shown["mode"] == mode)])
            axes.set_title(
                f"{_TITLES.get(mode, mode)}, {dtype}",
                fontsize=10,
            )
            labels.update(zip(*reversed(axes.get_legend_handles_labels()), strict=True))
        row[0].set_ylabel("elements / s")
    for axes in grid[-1]:
        axes.set_xlabel("elements")
    gpu = facts["gpu"]
    machine = gpu["name"] if gpu else f"{facts['cpu']}, {facts['threads']} threads"
    figure.suptitle(
        f"Dropout, p = {shown['p'].iloc[0]:g}\n{machine}, torch {facts['torch']}", fontsize=11
    )
    figure.legend(
        list(labels.values()), list(labels),
        loc="outside lower center", ncols=min(6, len(labels)), fontsize=9,
    )  # fmt: skip
    figure.savefig(file, dpi=110)
    pyplot.close(figure)
