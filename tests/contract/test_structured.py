"""The family bit for bit: every function against the reference, on every kernel.

Catches: a decision shared along the wrong dimensions; one coefficient for another; a fused
multiply-add or a second rounding in alpha dropout; a structured mask that is right for one dtype,
layout or SIMD path only; a full-size mask or noise kept for backward.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

import dropout_ext
from dropout_ext import functional as F
from tests.helpers import reference
from tests.helpers.allocations import allocations
from tests.helpers.compare import (
    assert_bits,
    dtype_name,
    expected_mask,
    random_bits,
    state,
    to_bits,
)

RNG_STATE = (2**40 + 9, 2**34)
Bits = NDArray[Any]
Expected = Callable[[Bits, Any, float, str], Bits]


def classic(x: Bits, keep: Any, p: float, dtype: str) -> Bits:
    return np.where(keep, x, x.dtype.type(0))


# Function, shape, dimensions that share a decision, what becomes of kept and dropped elements.
FAMILY: dict[str, tuple[Any, Sequence[int], Sequence[int], Expected]] = {
    "dropout1d": (F.dropout1d, (5, 7, 67), (2,), reference.dropout),
    "dropout1d, no batch": (F.dropout1d, (7, 67), (1,), reference.dropout),
    "dropout2d": (F.dropout2d, (5, 7, 8, 9), (2, 3), reference.dropout),
    "dropout2d, wide": (F.dropout2d, (2, 3, 40, 33), (2, 3), reference.dropout),
    "dropout3d": (F.dropout3d, (3, 5, 2, 8, 9), (2, 3, 4), reference.dropout),
    "dropout3d, no batch": (F.dropout3d, (5, 2, 8, 9), (1, 2, 3), reference.dropout),
    "alpha": (F.alpha_dropout, (3, 700), (), reference.alpha_dropout),
    "feature alpha": (F.feature_alpha_dropout, (5, 7, 9, 8), (2, 3), reference.alpha_dropout),
    "feature alpha, 2D": (F.feature_alpha_dropout, (30, 40), (), reference.alpha_dropout),
    "drop path": (F.drop_path, (37, 65), (1,), reference.dropout),
    "drop path, unscaled": (
        lambda x, **kw: F.drop_path(x, scale_by_keep=False, **kw), (37, 65), (1,), classic
    ),
    "depth, row": (
        lambda x, **kw: F.stochastic_depth(x, mode="row", **kw), (9, 5, 31), (1, 2),
        reference.dropout,
    ),
    "depth, batch": (
        lambda x, **kw: F.stochastic_depth(x, mode="batch", **kw), (9, 5, 31), (0, 1, 2),
        reference.dropout,
    ),
    "node-wise": (
        lambda x, **kw: F.dropout(x, broadcast_dims=0, **kw), (40, 130), (0,), reference.dropout
    ),
    "time-locked": (
        lambda x, **kw: F.dropout(x, broadcast_dims=(-2,), **kw), (4, 30, 70), (1,),
        reference.dropout,
    ),
    "outer and inner": (
        lambda x, **kw: F.dropout(x, broadcast_dims=(0, -1), **kw), (4, 30, 70), (0, 2),
        reference.dropout,
    ),
    "classic": (
        lambda x, **kw: F.dropout(x, mode="downscale_in_infer", **kw), (1000,), (), classic
    ),
}  # fmt: skip


@functools.lru_cache(maxsize=256)
def decisions(shape: tuple[int, ...], p: float, dims: tuple[int, ...]) -> NDArray[np.bool_]:
    strides = reference.broadcast_strides(shape, dims) if dims else None
    return expected_mask(shape, p, RNG_STATE, strides=strides).view(np.bool_)


def expected(
    x: torch.Tensor, p: float, dims: Sequence[int], formula: Expected
) -> tuple[Bits, Bits]:
    """Output and mask."""
    keep = decisions(tuple(x.shape), p, tuple(dims))
    return formula(to_bits(x), keep, p, dtype_name(x.dtype)), keep


@pytest.mark.parametrize("name", FAMILY)
def test_output(backend: torch.device, dtype: torch.dtype, name: str) -> None:
    """Contiguous, channels last, with gaps; out of place and in place."""
    function, shape, dims, formula = FAMILY[name]
    x = random_bits(shape, dtype).to(backend)
    wide = random_bits((*shape[:-1], shape[-1] + 1), dtype).to(backend)
    views = [x, x.movedim(-1, 0).contiguous().movedim(0, -1), wide[..., :-1]]
    for p in (0.3, 2.0**-17, 1 - 2.0**-20, 1.0):
        for view in views:
            bits, _ = expected(view, p, dims, formula)
            arguments = {"p": p, "training": True, "rng_state": state(RNG_STATE, backend)}
            assert_bits(function(view, **arguments), bits, f"p {p}")
            copy = view.clone(memory_format=torch.preserve_format)
            assert function(copy, inplace=True, **arguments) is copy
            assert_bits(copy, bits, f"p {p}, in place")


@pytest.mark.parametrize("name", FAMILY)
def test_gradient(backend: torch.device, name: str) -> None:
    """The scale where kept, zero where dropped; 16 bytes are saved for it."""
    function, shape, dims, formula = FAMILY[name]
    saved: list[torch.Tensor] = []
    x = torch.randn(shape, device=backend, requires_grad=True)

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        saved.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        y = function(x, p=0.4, training=True, rng_state=state(RNG_STATE, backend))
    assert sum(tensor.nbytes for tensor in saved) == 16
    upstream = torch.randn(shape, device=backend)
    y.backward(upstream)
    _, keep = expected(x, 0.4, dims, formula)
    factor = reference.scale(0.4)
    if formula is reference.alpha_dropout:
        factor = reference.alpha_coefficients(0.4)[0]
    elif formula is classic:
        factor = 1.0
    assert x.grad is not None
    bits = np.where(keep, reference.scaled(to_bits(upstream), "float32", factor), np.uint32(0))
    assert_bits(x.grad, bits)


@pytest.mark.parametrize("name", FAMILY)
def test_nothing_but_the_output_is_allocated(name: str) -> None:
    """And the 16 bytes of the state: neither a mask, shared or not, nor noise, nor a copy."""
    function, shape, _, _ = FAMILY[name]
    x = torch.ones(shape, requires_grad=True)
    found = allocations(lambda: function(x, p=0.4, training=True))
    assert sorted(found) == [16, x.nbytes]
    with torch.no_grad():
        assert allocations(lambda: function(x, p=0.4, training=True, inplace=True)) == []


@pytest.mark.parametrize("dims", [(), (0,), (-1,)])
def test_start_beyond_2_33_elements(
    backend: torch.device, dtype: torch.dtype, dims: tuple[int, ...]
) -> None:
    """A piece of a tensor of 2^40 elements, which nobody allocates."""
    global_shape, start, shape = (2**10, 2**15, 2**15), (700, 2**14 + 5, 77), (2, 3, 100)
    strides, base = reference.shard_map(global_shape, start, dims)
    if not dims:
        assert base > 2**33 and np.prod(global_shape) == 2**40
    x = random_bits(shape, dtype).to(backend)
    keep = expected_mask(shape, 0.4, RNG_STATE, strides=strides, base=base).view(np.bool_)
    arguments: dict[str, Any] = {
        "p": 0.4,
        "rng_state": state(RNG_STATE, backend),
        "broadcast_dims": dims,
        "shard": (global_shape, start),
    }
    assert_bits(
        F.dropout(x, **arguments), reference.dropout(to_bits(x), keep, 0.4, dtype_name(dtype))
    )
    assert_bits(F.dropout_mask(shape, **arguments), keep.view(np.uint8))


def test_classic_form_in_evaluation() -> None:
    x = torch.randn(50)
    module = dropout_ext.Dropout(0.3, mode="downscale_in_infer").eval()
    assert torch.equal(module(x), x * 0.7)
    module.inplace = True
    expected = x * 0.7
    assert module(x) is x
    assert torch.equal(x, expected)
    assert F.dropout(x, 0.0, False, mode="downscale_in_infer") is x


def test_mode_is_one_of_two() -> None:
    for make in (dropout_ext.Dropout, lambda mode: F.dropout(torch.ones(3), mode=mode)):
        with pytest.raises(ValueError, match=r"'upscale_in_train' or 'downscale_in_infer'.*'half'"):
            make(mode="half")


@pytest.mark.thorough
@pytest.mark.parametrize("function", [F.alpha_dropout, F.feature_alpha_dropout])
@pytest.mark.parametrize("p", [0.05, 0.3, 0.7])
def test_alpha_keeps_mean_and_variance(function: Any, p: float) -> None:
    """On n = 2^22 normal numbers (2^22 channels), to 5 standard deviations of the estimate.

    An estimate of the mean has standard deviation n^-1/2 = 0.0005, of the variance at most
    (kurtosis / n)^1/2 = 0.002; so a shift of the mean by 0.005 or of the variance by 0.02 is found
    with near certainty, and 1 run in 1.7 million would fail by chance (the run is seeded).
    """
    n = 2**22
    x = torch.randn(2, n // 2)
    y = function(x, p, training=True, rng_state=state(RNG_STATE)).double()
    kurtosis = (y - y.mean()).pow(4).mean().item()
    assert abs(y.mean().item()) < 5 * n**-0.5
    assert abs(y.var().item() - 1) < 5 * ((kurtosis - 1) / n) ** 0.5
