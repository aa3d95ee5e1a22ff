"""Results over the seeds: a table, whether ours and nn.Dropout agree, and a figure."""

from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from scipy.stats import ttest_rel

from bench.candidates import BASELINE, OURS
from bench.plot import panels

_COLOURS = {"train": "#d55e00", "test": "#0072b2"}


def score_table(frame: pd.DataFrame) -> pd.DataFrame:
    """Mean and standard deviation over the seeds, in percent; the gap in percentage points."""

    def cell(values: pd.Series) -> str:
        return f"{100 * values.mean():.1f} ± {100 * (values.std() if len(values) > 1 else 0):.1f}"

    parts = {"train": "train accuracy %", "test": "test accuracy %", "gap": "gap, points"}
    scores: pd.DataFrame = frame.groupby(["data", "form"], sort=False)[list(parts)].agg(cell)
    scores = scores.reset_index().rename(columns={"form": "dropout", **parts})
    return scores


def paired_test(frame: pd.DataFrame) -> list[str]:
    """Ours against nn.Dropout, seed by seed: same weights, same order of samples."""
    lines = []
    for name, group in frame.groupby("data", sort=False):
        test = group.pivot(index="seed", columns="form", values="test")
        if not {OURS, BASELINE} <= set(test) or len(test) < 2:
            continue
        difference = test[OURS] - test[BASELINE]
        error = difference.std() / len(test) ** 0.5
        p_value = ttest_rel(test[OURS], test[BASELINE]).pvalue if error else 1.0
        verdict = "no difference at the 5 % level" if p_value >= 0.05 else "they differ"
        points = f"{100 * difference.mean():+.2f} ± {100 * error:.2f} points (standard error)"
        lines.append(
            f"{name}: test accuracy of {OURS} - {BASELINE}, paired by seed: {points}; "
            f"paired t-test p = {p_value:.2f}: {verdict}"
        )
    return lines


def _draw(axes: Axes, group: pd.DataFrame) -> None:
    """From the second epoch on: the first, near guessing, would stretch the scale."""
    ends = []
    for part, colour in _COLOURS.items():
        curves = 100 * np.array(group[f"{part}_curve"].tolist())
        mean, deviation = curves.mean(0), curves.std(0)
        epochs = np.arange(1, len(mean) + 1)
        axes.plot(epochs[1:], mean[1:], color=colour, linewidth=1.6, label=f"{part} accuracy")
        low, high = (mean - deviation)[1:], (mean + deviation)[1:]
        axes.fill_between(epochs[1:], low, high, color=colour, alpha=0.2, linewidth=0)
        ends.append(mean[-1])
    name, form = group[["data", "form"]].iloc[0]
    axes.set_title(f"{name}, {form}\ngap {ends[0] - ends[1]:.1f} points", fontsize=10)


def plot(frame: pd.DataFrame, title: str, file: Path) -> None:
    """Of the curves: a row for each data set, a panel for each form of dropout."""
    shared = {"sharex": True, "sharey": "row"}
    labels = ("epoch", "accuracy, %")
    panels(frame, ("data", "form"), _draw, (2.8, 2.7), labels, title, file, **shared)
