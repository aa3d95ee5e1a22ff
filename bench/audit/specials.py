"""What becomes of Inf, NaN and signs at dropped places, and at p = 1."""

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from bench.audit.subjects import Observation, Setting, Subject

_P = 0.5
_COUNT = 4096


def _kinds(values: Tensor) -> Observation:
    """Shares of +0, -0, NaN and the rest."""
    zero, negative = values == 0, values.signbit()
    shares = {
        "+0": (zero & ~negative).double().mean().item(),
        "-0": (zero & negative).double().mean().item(),
        "NaN": values.isnan().double().mean().item(),
    }
    shares["other"] = 1 - sum(shares.values())
    text = ", ".join(
        f"all {kind}" if share == 1 else f"{share:.1%} {kind}"
        for kind, share in shares.items()
        if share > 0
    )
    return Observation(text, dict(shares))


def _gradient(subject: Subject, x: Tensor, incoming: Tensor, p: float) -> Tensor:
    leaf = x.clone().requires_grad_()
    return torch.autograd.grad(subject.apply(leaf, p), leaf, incoming)[0]


def specials(subject: Subject, setting: Setting) -> Iterator[tuple[str, Observation]]:
    """Dropped places of outputs and gradients that hold something other than finite values."""
    ones = torch.ones(_COUNT, device=setting.device)
    dropped = ~subject.kept(ones, _P)
    for name, value in (("Inf", math.inf), ("NaN", math.nan), ("-1", -1.0)):
        x = torch.full_like(ones, value)
        yield f"dropped {name} becomes", _kinds(subject.apply(x, _P)[dropped])
        yield f"dropped {name}, in place", _kinds(_in_place(subject, x, ones))
        gradient = _gradient(subject, ones, x, _P)
        yield f"gradient {name} at a dropped place becomes", _kinds(gradient[dropped])
    for name, value in (("Inf", math.inf), ("NaN", math.nan), ("1", 1.0)):
        x = torch.full_like(ones, value)
        yield f"p = 1, input {name}", _kinds(subject.apply(x, 1.0))
        yield f"p = 1, gradient {name}", _kinds(_gradient(subject, ones, x, 1.0))


def _in_place(subject: Subject, x: Tensor, ones: Tensor) -> Tensor:
    dropped = ~subject.kept(ones, _P, inplace=True)
    return subject.apply(x.clone(), _P, inplace=True)[dropped]
