"""Outcomes over the seeds: a table, and whether ours and nn.Dropout agree."""

import statistics
from collections.abc import Sequence

from scipy.stats import ttest_rel

from bench.candidates import RIVAL
from bench.table import align, format_seconds
from bench.training.experiment import Outcome
from bench.training.models import ELEMENTWISE


def by_form(outcomes: Sequence[Outcome]) -> dict[str, list[Outcome]]:
    """In the order of first appearance."""
    found: dict[str, list[Outcome]] = {}
    for outcome in outcomes:
        found.setdefault(outcome.form, []).append(outcome)
    return found


def _percent(values: Sequence[float]) -> str:
    spread = statistics.stdev(values) if len(values) > 1 else 0.0
    return f"{100 * statistics.mean(values):.2f} ± {100 * spread:.2f}"


def _time(values: Sequence[float]) -> str:
    spread = statistics.stdev(values) if len(values) > 1 else 0.0
    return f"{format_seconds(statistics.mean(values))} ± {format_seconds(spread)}"


def score_table(outcomes: Sequence[Outcome]) -> list[str]:
    """Mean and standard deviation over the seeds."""
    rows = [["form", "macro F1 %", "accuracy %", "train - test %", "step"]]
    for form, group in by_form(outcomes).items():
        rows.append(
            [
                form,
                _percent([o.macro_f1 for o in group]),
                _percent([o.accuracy for o in group]),
                _percent([o.gap for o in group]),
                _time([o.step_seconds for o in group]),
            ]
        )
    return align(rows)


def paired_test(outcomes: Sequence[Outcome]) -> list[str]:
    """Elementwise against nn.Dropout, seed by seed: same weights, same order of samples."""
    groups = by_form(outcomes)
    if not {ELEMENTWISE, RIVAL} <= groups.keys() or len(groups[RIVAL]) < 2:
        return []
    lines = [""]
    for what in ("accuracy", "macro_f1"):
        ours, theirs = ([getattr(o, what) for o in groups[f]] for f in (ELEMENTWISE, RIVAL))
        differences = [a - b for a, b in zip(ours, theirs, strict=True)]
        mean = statistics.mean(differences)
        error = statistics.stdev(differences) / len(differences) ** 0.5
        p_value = ttest_rel(ours, theirs).pvalue if error else 1.0
        within = "within" if abs(mean) <= error else "not within"
        verdict = "no difference at the 5 % level" if p_value >= 0.05 else "they differ"
        lines.append(
            f"{what}, elementwise - nn.Dropout, paired by seed: {100 * mean:+.2f} ± "
            f"{100 * error:.2f} % (standard error, n = {len(differences)}): {within} one standard "
            f"error; paired t-test p = {p_value:.2f}: {verdict}"
        )
    return lines
