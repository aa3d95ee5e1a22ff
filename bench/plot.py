"""Throughput against size, one panel per dtype and mode, with the ceiling drawn."""

from collections.abc import Sequence
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

from matplotlib import pyplot
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.ticker import EngFormatter, FixedLocator, FuncFormatter, NullLocator

from bench.cases import MODES, format_size
from bench.record import Record

STYLES: dict[str, tuple[str, str, str]] = {
    "dropout_ext": ("#d55e00", "-", "o"),
    "nn.Dropout": ("#0072b2", "-", "s"),
    "compiled nn.Dropout": ("#56b4e9", "-", "^"),
    "hand-written": ("#cc79a7", "-", "D"),
    "compiled hand-written": ("#e69f00", "-", "P"),
    "triton seeded": ("#009e73", "-", "v"),
    "torch.mul": ("#444444", "--", ""),
    "copy_": ("#444444", ":", ""),
}
"""Colour (told apart by colour-blind readers too), line and marker of each candidate."""


MODE_TITLES = {
    "forward": "forward",
    "forward_grad": "forward, gradient wanted",
    "forward_backward": "forward + backward",
    "backward": "backward",
    "inplace": "forward, in place",
}


def _draw(axes: Axes, records: Sequence[Record]) -> None:
    for name, (colour, line, marker) in STYLES.items():
        own = sorted((r for r in records if r.candidate == name), key=lambda r: r.numel)
        if not own:
            continue
        sizes = [r.numel for r in own]
        low = [r.numel / r.seconds_q3 for r in own]
        high = [r.numel / r.seconds_q1 for r in own]
        label = f"{name} (ceiling)" if own[0].role == "ceiling" else name
        axes.plot(
            sizes, [r.elements_per_s for r in own], line,
            color=colour, marker=marker, markersize=4, linewidth=1.6, label=label,
        )  # fmt: skip
        axes.fill_between(sizes, low, high, color=colour, alpha=0.15, linewidth=0)


def _dress(axes: Axes, sizes: Sequence[int]) -> None:
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    axes.xaxis.set_major_locator(FixedLocator(list(sizes)))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda size, _: format_size(round(size))))
    axes.yaxis.set_major_formatter(EngFormatter())
    axes.tick_params(axis="x", labelrotation=45)
    axes.grid(True, which="major", color="#dddddd", linewidth=0.6)
    axes.set_axisbelow(True)


def plot(records: Sequence[Record], subtitle: str, file: Path) -> None:
    """Writes the figure as PNG: eager times, the first p and the first CPU path of the records."""
    shown = [r for r in records if r.section == "speed" and r.timer != "graph"]
    if not shown:
        raise SystemExit("nothing to plot: no record of the speed section")
    shown = [r for r in shown if (r.p, r.cpu_path) == (shown[0].p, shown[0].cpu_path)]
    modes = [m for m in MODES if any(r.mode == m for r in shown)]
    dtypes = list(dict.fromkeys(r.dtype for r in shown))
    figure, grid = pyplot.subplots(
        len(dtypes), len(modes), squeeze=False, sharex=False, sharey=True,
        figsize=(4.1 * len(modes) + 0.4, 3.1 * len(dtypes) + 1.3), layout="constrained",
    )  # fmt: skip
    labels: dict[str, Artist] = {}
    for row, dtype in zip(grid, dtypes, strict=True):
        for axes, mode in zip(row, modes, strict=True):
            panel = [r for r in shown if r.dtype == dtype and r.mode == mode]
            _draw(axes, panel)
            _dress(axes, sorted({r.numel for r in panel}))
            axes.set_title(f"{MODE_TITLES[mode]}, {dtype}", fontsize=10)
            labels.update(zip(*reversed(axes.get_legend_handles_labels()), strict=True))
        row[0].set_ylabel("elements / s")
    for axes in grid[-1]:
        axes.set_xlabel("elements")
    figure.suptitle(f"Dropout, p = {shown[0].p:g}\n{subtitle}", fontsize=11)
    figure.legend(
        list(labels.values()),
        list(labels),
        loc="outside lower center",
        ncols=min(6, len(labels)),
        fontsize=9,
    )
    figure.savefig(file, dpi=130)
    pyplot.close(figure)
