"""Every memory layout gets the mask of its logical, row-major indices, and no other byte changes.

Catches: a mask counted in memory order; a stride or storage offset ignored; a tail of a row that
takes the next row's decisions; writes outside of the view; an output with other strides than those
of torch's own elementwise operations.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch

from dropout_ext import functional as F
from tests.helpers import cases, layouts, reference
from tests.helpers.compare import assert_bits, expected_dropout, random_bits, state, to_bits

P, RNG_STATE = 0.3, (31, 32)


def build(
    layout: layouts.Layout, dtype: torch.dtype, device: torch.device, seed: int = 0
) -> torch.Tensor:
    def make(shape: Sequence[int]) -> torch.Tensor:
        return random_bits(shape, dtype, seed).to(device)

    return layout(make)


def whole_storage(x: torch.Tensor) -> torch.Tensor:
    """All elements of the storage that `x` looks at, as one row."""
    return torch.empty(0, dtype=x.dtype, device=x.device).set_(x.untyped_storage())


def check_output(layout: layouts.Layout, dtype: torch.dtype, device: torch.device) -> None:
    x = build(layout, dtype, device)
    before = to_bits(whole_storage(x)).copy()
    y = F.dropout(x, P, rng_state=state(RNG_STATE, device))
    assert_bits(y, expected_dropout(x, P, RNG_STATE), str(dtype))
    assert np.array_equal(to_bits(whole_storage(x)), before), "the input was changed"
    assert y.stride() == torch.empty_like(x).stride()


def check_inplace(layout: layouts.Layout, dtype: torch.dtype, device: torch.device) -> None:
    x = build(layout, dtype, device)
    places = reference.index_map(x.shape, x.stride(), int(x.storage_offset()))
    expected = to_bits(whole_storage(x)).copy()
    expected[places.astype(np.int64)] = expected_dropout(x, P, RNG_STATE)
    version = x._version
    assert F.dropout(x, P, inplace=True, rng_state=state(RNG_STATE, device)) is x
    assert_bits(whole_storage(x), expected, str(dtype))
    assert x._version == version + 1


@pytest.mark.parametrize("name", [*layouts.DENSE, *layouts.OVERLAPPING])
def test_output(backend: torch.device, name: str) -> None:
    layout = {**layouts.DENSE, **layouts.OVERLAPPING}[name]
    for dtype in cases.DTYPES:
        check_output(layout, getattr(torch, dtype), backend)


@pytest.mark.parametrize("name", layouts.DENSE)
def test_inplace(backend: torch.device, name: str) -> None:
    for dtype in cases.DTYPES:
        check_inplace(layouts.DENSE[name], getattr(torch, dtype), backend)


@pytest.mark.thorough
@pytest.mark.parametrize("name", layouts.LARGE)
def test_large(backend: torch.device, name: str) -> None:
    for dtype in ("float32", "bfloat16"):
        check_output(layouts.LARGE[name], getattr(torch, dtype), backend)


@pytest.mark.thorough
@pytest.mark.parametrize("name", [name for name in layouts.LARGE if name != "expanded"])
def test_large_inplace(backend: torch.device, name: str) -> None:
    for dtype in ("float64", "float16"):
        check_inplace(layouts.LARGE[name], getattr(torch, dtype), backend)


@pytest.mark.parametrize("name", layouts.OVERLAPPING)
def test_inplace_on_shared_memory_is_an_error(device: torch.device, name: str) -> None:
    x = build(layouts.OVERLAPPING[name], torch.float32, device)
    before, version = to_bits(whole_storage(x)).copy(), x._version
    generator = torch.Generator(device)
    generator_before = generator.get_state()
    with pytest.raises(RuntimeError, match=r"overlap|single memory location"):
        F.dropout(x, 0.5, inplace=True, rng_state=state((1, 2), device))
    with pytest.raises(RuntimeError, match=r"overlap|single memory location"):
        F.dropout(x, 0.5, inplace=True, generator=generator)
    assert np.array_equal(to_bits(whole_storage(x)), before)
    assert x._version == version
    assert torch.equal(generator.get_state(), generator_before)


def test_contiguous_copy_gets_the_same_mask(device: torch.device) -> None:
    x = torch.ones(4, 3, 20, 20, device=device).to(memory_format=torch.channels_last)
    rng_state = state((1, 2), device)
    y = F.dropout(x, 0.5, rng_state=rng_state)
    assert y.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(y, F.dropout(x.contiguous(), 0.5, rng_state=rng_state))


def test_negated_view(device: torch.device) -> None:
    """The imaginary part of a conjugate: memory holds the negative of what the tensor says."""
    z = torch.ones(30, 40, dtype=torch.complex64, device=device) * (1 + 2j)
    x = z.conj().imag
    assert x.is_neg()
    expected = F.dropout(torch.full_like(x, -2.0), 0.5, rng_state=state((1, 2), device))
    assert torch.equal(F.dropout(x, 0.5, rng_state=state((1, 2), device)), expected)
    F.dropout(x, 0.5, inplace=True, rng_state=state((1, 2), device))
    assert torch.equal(x, expected)
    assert torch.equal(z.imag, -expected)


def test_negated_view_with_a_draw(device: torch.device) -> None:
    x = (torch.ones(300, dtype=torch.complex64, device=device) * 1j).conj().imag
    assert set(F.dropout(x, 0.5).tolist()) == {0.0, -2.0}


def test_output_owns_its_memory(device: torch.device) -> None:
    x = torch.ones(1, 50, device=device).expand(20, 50)
    y = F.dropout(x, 0.5, rng_state=state((1, 2), device))
    assert y.untyped_storage().data_ptr() != x.untyped_storage().data_ptr()
    assert y.untyped_storage().nbytes() >= 4 * 1000
