"""The general form of the op: kept x * scale + shift, dropped fill.

Catches: a sum that is contracted with the product, so that CPU and CUDA differ; coefficients that
are rounded twice; a shift that reaches the gradient.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch

from dropout_ext import functional as F
from tests.helpers import cases, reference
from tests.helpers.compare import assert_bits, dtype_name, random_bits, state, to_bits
from tests.helpers.operators import dropout_

ops = torch.ops.dropout_ext

RNG_STATE = (3, 2**33)
# scale, shift, fill; the second line is what alpha dropout uses at p = 0.3, about.
COEFFICIENTS = [
    (3.0, 0.0, 0.0),
    (0.8621, 0.4547, -1.0610),
    (1.0, 0.0, -7.3),
    (1 / 3, 1e-3, 0.0),
    (-2.5, 1e30, 1e-30),
    (0.0, 0.1, 0.2),
    (1.0, 0.0, 0.0),
]


@pytest.mark.parametrize("coefficients", COEFFICIENTS)
def test_output(
    backend: torch.device, dtype: torch.dtype, coefficients: tuple[float, float, float]
) -> None:
    scale, shift, fill = coefficients
    for size in (7, 65, 33_000):
        for p in (0.3, 1e-12, 1.0):
            x = random_bits((size,), dtype).to(backend)
            keep = reference.mask((size,), p, *RNG_STATE)
            expected = reference.affine(to_bits(x), keep, dtype_name(dtype), *coefficients)
            arguments = (p, state(RNG_STATE, backend))
            kwargs = {"scale": scale, "shift": shift, "fill": fill}
            what = f"size {size}, p {p}"
            assert_bits(ops.dropout(x, *arguments, **kwargs), expected, what)
            assert_bits(dropout_(x, *arguments, **kwargs), expected, f"{what}, in place")


@pytest.mark.parametrize("coefficients", COEFFICIENTS[:3])
def test_layouts(backend: torch.device, coefficients: tuple[float, float, float]) -> None:
    scale, shift, fill = coefficients
    for name in cases.DTYPES:
        memory = random_bits((70, 300), getattr(torch, name)).to(backend)
        for x in (memory.t(), memory[:, 1:], memory[::2, ::3], memory[:1].expand(70, 300)):
            keep = reference.mask(tuple(x.shape), 0.3, *RNG_STATE)
            expected = reference.affine(to_bits(x), keep, name, *coefficients)
            found = ops.dropout(
                x, 0.3, state(RNG_STATE, backend), scale=scale, shift=shift, fill=fill
            )
            assert_bits(found, expected, name)


def test_derivatives_see_the_scale_only(device: torch.device) -> None:
    rng_tensor = state(RNG_STATE, device)
    x = torch.ones(500, device=device, dtype=torch.float64, requires_grad=True)
    y = ops.dropout(x, 0.3, rng_tensor, scale=0.75, shift=5.0, fill=-4.0)
    assert set(y.tolist()) == {5.75, -4.0}
    (gradient,) = torch.autograd.grad(y, x, torch.ones_like(y), create_graph=True)
    expected = np.where(y.detach().cpu().numpy() == 5.75, 0.75, 0.0)
    assert np.array_equal(gradient.detach().cpu().numpy(), expected)
    assert torch.autograd.gradcheck(
        lambda t: ops.dropout(t, 0.3, rng_tensor, scale=0.75, shift=5.0, fill=-4.0),
        x[:20],
        check_forward_ad=True,
    )


def test_alpha_dropout_that_drops_nothing(backend: torch.device, dtype: torch.dtype) -> None:
    """At a p that rounds to 0 the bits of x are unchanged, those of -0 too."""
    x = random_bits((300,), dtype).to(backend)
    x[:10] = -0.0
    y = F.alpha_dropout(x, 1e-12, training=True)
    assert y is not x
    assert_bits(y, to_bits(x), "x itself")
