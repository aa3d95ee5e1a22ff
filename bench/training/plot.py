"""Training against test accuracy, one panel per form: the gap is what is learned by heart."""

from collections.abc import Sequence
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import numpy as np
from matplotlib import pyplot
from matplotlib.axes import Axes

from bench.training.experiment import Outcome
from bench.training.report import by_form

COLOURS = {"train": "#d55e00", "test": "#0072b2"}


def _draw(axes: Axes, group: Sequence[Outcome]) -> None:
    epochs = np.arange(1, len(group[0].train_curve) + 1)
    ends = []
    for part, colour in COLOURS.items():
        curves = 100 * np.array([getattr(o, f"{part}_curve") for o in group])
        mean, spread = curves.mean(0), curves.std(0)
        axes.plot(epochs, mean, color=colour, linewidth=1.6, label=f"{part} accuracy")
        axes.fill_between(
            epochs, mean - spread, mean + spread, color=colour, alpha=0.2, linewidth=0
        )
        ends.append(mean[-1])
    axes.set_title(f"{group[0].form}\ngap {ends[0] - ends[1]:.2f} %", fontsize=10)
    axes.set_xlabel("epoch")
    axes.grid(True, color="#dddddd", linewidth=0.6)


def plot(outcomes: Sequence[Outcome], title: str, file: Path) -> None:
    """Writes the figure as PNG: means over the seeds, shaded by their standard deviation."""
    groups = [group for group in by_form(outcomes).values() if group[0].train_curve]
    figure, panels = pyplot.subplots(
        1, len(groups), squeeze=False, sharey=True, layout="constrained",
        figsize=(2.4 * len(groups) + 0.6, 3.6),
    )  # fmt: skip
    for axes, group in zip(panels[0], groups, strict=True):
        _draw(axes, group)
    late = [value for o in outcomes for value in o.test_curve[len(o.test_curve) // 5 :]]
    low = 100 * min(late) if late else 0
    panels[0][0].set_ylim(low - 0.1 * (100 - low), 100 + 0.05 * (100 - low))
    panels[0][0].set_ylabel("accuracy, %")
    figure.suptitle(title, fontsize=11)
    handles, labels = panels[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=2, fontsize=9)
    figure.savefig(file, dpi=130)
    pyplot.close(figure)
