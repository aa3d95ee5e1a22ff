"""Does dropout preserve the mean? In few bits, a rounded scale does not."""

from collections.abc import Iterator

import torch
from torch import Tensor

from bench.audit.subjects import Observation, Setting, Subject
from bench.dtypes import DTYPES

PROBABILITIES = (0.1, 0.3, 0.5, 0.9, 0.001)
"""0.5 is the one whose scale every dtype holds exactly; 0.1 and 0.3 are no multiples of 1/256."""

_DTYPES = ("bfloat16", "float16", "float32")


def _inputs(setting: Setting, dtype: str) -> Tensor:
    """Values spread over [1, 2), so that the rounding of products averages out over them."""
    generator = torch.Generator(setting.device).manual_seed(1)
    values = torch.rand(setting.numel, generator=generator, device=setting.device)
    return (values + 1).to(DTYPES[dtype]).clamp_(max=1.99)


def _exact(x: Tensor, p: float) -> Tensor:
    """x / (1 - p) correctly rounded to the dtype of x: nothing can be nearer."""
    return (x.double() / (1 - p)).to(x.dtype)


def _scale(x: Tensor, y: Tensor, p: float) -> Observation:
    """Kept output over kept input, against 1 / (1 - p): whatever was kept, so free of sampling.

    Given beside it is the same for exactly rounded products, which in few bits is not always zero.
    """
    kept = y != 0
    total = x[kept].double().sum()
    error, best = (
        (values[kept].double().sum() / total * (1 - p) - 1).item() for values in (y, _exact(x, p))
    )
    text = f"off by {error:+.1e} (exact rounding: {best:+.1e})"
    return Observation(text, {"error": error, "error_of_exact_rounding": best})


def _mean(x: Tensor, y: Tensor, p: float) -> Observation:
    """The mean against that of the input, in standard errors of which elements are kept."""
    wide = x.double()
    deviation = (y.double().sum() / wide.sum() - 1).item()
    error = ((p / (1 - p) * wide.square().sum()).sqrt() / wide.sum()).item()
    z = deviation / error
    values = {"deviation": deviation, "standard_error": error, "z": z}
    return Observation(f"off by {deviation:+.1e} (z = {z:+.1f})", values)


def _rounding(x: Tensor, y: Tensor, p: float) -> Observation:
    kept = y != 0
    share = (_exact(x, p) == y)[kept].double().mean().item()
    return Observation(f"{share:.2%} of kept values", {"share": share})


def _keeping(y: Tensor, p: float) -> Observation:
    fraction = (y != 0).double().mean().item()
    z = (fraction - (1 - p)) / (p * (1 - p) / y.numel()) ** 0.5
    return Observation(f"{fraction:.5f} (z = {z:+.1f})", {"fraction": fraction, "z": z})


def _ones(subject: Subject, setting: Setting, p: float) -> Observation:
    """On a constant the rounding does not average out: 1 / (1 - p) has one value in bfloat16."""
    ones = torch.ones(setting.numel, dtype=torch.bfloat16, device=setting.device)
    return _scale(ones, subject.apply(ones, p, seed=2), p)


def scale(subject: Subject, setting: Setting) -> Iterator[tuple[str, Observation]]:
    """Scale and mean in each dtype, rounding of single values, and the fraction that is kept."""
    for dtype in _DTYPES:
        x = _inputs(setting, dtype)
        outputs = {p: subject.apply(x, p, seed=1) for p in PROBABILITIES}
        for p, y in outputs.items():
            yield f"scale, {dtype}, p = {p:g}", _scale(x, y, p)
        for p, y in outputs.items():
            yield f"mean, {dtype}, p = {p:g}", _mean(x, y, p)
        for p, y in outputs.items():
            yield f"exactly rounded, {dtype}, p = {p:g}", _rounding(x, y, p)
        for p, y in outputs.items():
            yield f"fraction kept, {dtype}, p = {p:g}", _keeping(y, p)
    for p in PROBABILITIES:
        yield f"scale on ones, bfloat16, p = {p:g}", _ones(subject, setting, p)
