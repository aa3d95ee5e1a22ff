"""The arithmetic of dropout, on numbers small enough to check by hand."""

import itertools

import torch
from torch import nn

from bench.extension import dropout_ext
from bench.table import align

INPUTS = (1.0, 2.0)
WEIGHTS = (0.5, -1.5)
SAMPLES = 1_000_000


def neuron(p: float) -> list[str]:
    """z = w1 x + w2 y under its four masks, beside the mean of sampled masks."""
    (x, y), (w1, w2) = INPUTS, WEIGHTS
    z = w1 * x + w2 * y
    rows = [["mask", "probability", "z, classic", "z, inverted"]]
    classic = inverted = 0.0
    for m1, m2 in itertools.product((1, 0), repeat=2):
        probability = (1 - p if m1 else p) * (1 - p if m2 else p)
        value = m1 * w1 * x + m2 * w2 * y
        scaled = value / (1 - p)
        classic += probability * value
        inverted += probability * scaled
        rows.append([f"({m1}, {m2})", f"{probability:g}", f"{value:g}", f"{scaled:g}"])
    rows.append(["E[z], enumerated", "1", f"{classic:.6g}", f"{inverted:.6g}"])
    rows.append(["E[z], formula", "", f"{(1 - p) * z:.6g}", f"{z:.6g}"])
    sampled = [_sampled(p, mode) for mode in ("downscale_in_infer", "upscale_in_train")]
    rows.append(["sampled mean ± error", "", *sampled])
    head = (
        f"a neuron z = w1 x + w2 y with w = {WEIGHTS}, (x, y) = {INPUTS}, inputs dropped with "
        f"p = {p:g}: z = {z:g}, E[z] = (1 - p) z classic, z inverted"
    )
    return [head, *align(rows)]


def _sampled(p: float, mode: str) -> str:
    dropped = dropout_ext.functional.dropout(torch.tensor(INPUTS).repeat(SAMPLES, 1), p, mode=mode)
    z = dropped.double() @ torch.tensor(WEIGHTS, dtype=torch.float64)
    return f"{z.mean():.4f} ± {z.std() / SAMPLES**0.5:.4f}"


def moments(p: float) -> list[str]:
    """Mean and standard deviation of the output on ones(1000, 100)."""
    x = torch.ones(1000, 100)
    rows = [["dropout(ones(1000, 100))", "mean", "standard deviation"]]
    for name, module in [("dropout_ext", dropout_ext.Dropout(p)), ("nn.Dropout", nn.Dropout(p))]:
        y = module(x)
        rows.append([name, f"{y.mean():.4f}", f"{y.std():.4f}"])
    rows.append(["exact", "1", f"{(p / (1 - p)) ** 0.5:.4f}"])
    return align(rows)


def explain(p: float = 0.5) -> list[str]:
    """Both, as lines to print."""
    return [*neuron(p), "", *moments(p)]
