"""Throughput against size, one panel per dtype and mode, with the ceilings drawn."""

from collections.abc import Callable
from itertools import product
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
from bench.cases import format_size

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
    mode, dtype = panel[["mode", "dtype"]].iloc[0]
    axes.set_title(f"{_TITLES.get(mode, mode)}, {dtype}", fontsize=10)


def panels(
    frame: pd.DataFrame, keys: tuple[str, str], draw: Callable[[Axes, pd.DataFrame], None],
    size: tuple[float, float], labels: tuple[str, str], title: str, file: Path, **shared: Any,
) -> None:  # fmt: skip
    """Writes a figure as PNG: a row for each value of the first key, a column for the second's."""
    rows, columns = (list(dict.fromkeys(frame[key])) for key in keys)
    figure, grid = pyplot.subplots(
        len(rows), len(columns), squeeze=False, layout="constrained", **shared,
        figsize=(size[0] * len(columns) + 0.5, size[1] * len(rows) + 1.1),
    )  # fmt: skip
    legend: dict[str, Artist] = {}
    for axes, (row, column) in zip(grid.flat, product(rows, columns), strict=True):
        draw(axes, frame[(frame[keys[0]] == row) & (frame[keys[1]] == column)])
        axes.grid(True, which="major", color="#dddddd", linewidth=0.6)
        axes.set_axisbelow(True)
        legend.update(zip(*reversed(axes.get_legend_handles_labels()), strict=True))
    for axes in grid[-1]:
        axes.set_xlabel(labels[0])
    for axes in grid[:, 0]:
        axes.set_ylabel(labels[1])
    figure.suptitle(title, fontsize=11)
    figure.legend(
        list(legend.values()), list(legend),
        loc="outside lower center", ncols=min(6, len(legend)), fontsize=9,
    )  # fmt: skip
    figure.savefig(file, dpi=110)
    pyplot.close(figure)


def plot(frame: pd.DataFrame, facts: dict[str, Any], file: Path) -> None:
    """Of the eager times, the first p and the first CPU path of the records."""
    shown = frame[(frame["section"] == "speed") & (frame["timer"] == "eager")]
    if shown.empty:
        raise SystemExit("nothing to plot: no record of the speed section")
    path, p = shown["cpu_path"].fillna(""), shown["p"].iloc[0]
    shown = shown[(shown["p"] == p) & (path == path.iloc[0])]
    gpu = facts["gpu"]
    machine = gpu["name"] if gpu else f"{facts['cpu']}, {facts['threads']} threads"
    title = f"Dropout, p = {p:g}\n{machine}, torch {facts['torch']}"
    labels = ("elements", "elements / s")
    panels(shown, ("dtype", "mode"), _draw, (4.1, 3.1), labels, title, file, sharey=True)
