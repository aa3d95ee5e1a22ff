"""The index map: base + sum of coordinate times stride, for shared decisions and for shards.

Catches: strides or base applied to memory instead of the mask; a map that works only where it
happens to be row-major; shards that do not add up to the whole; a shared decision that is not.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import pytest
import torch

from dropout_ext import functional as F
from tests.helpers import cases, reference
from tests.helpers.compare import assert_bits, expected_dropout, expected_mask, random_bits, state
from tests.helpers.operators import dropout_

ops = torch.ops.dropout_ext
RNG_STATE = (12, 2**33)

# Shape and mask strides: shared along each combination of dimensions, reordered, sparse, colliding.
MAPS: list[tuple[Sequence[int], Sequence[int]]] = [
    *((s, reference.broadcast_strides(s, dims))
      for s in [(7, 130), (130, 7), (3, 5, 70)]
      for k in range(1, len(s) + 1)
      for dims in itertools.combinations(range(len(s)), k)),
    *(((c, n), reference.broadcast_strides((c, n), dims))
      for c, n in [(2, 3000), (65, 257), (300, 64), (1000, 1)]
      for dims in [(0,), (1,)]),
    ((64, 300), [1, 64]),
    ((300, 64), [1, 300]),
    ((300, 63), [1, 301]),
    ((40, 50), [1000, 1]),
    ((40, 50), [2**33, 1]),
    ((9, 65), [64, 1]),  # a row ends where the next one begins
    ((100, 5), [8, 1]),
    ((1000, 7), [7, 1]),
    ((1000, 7), [9, 1]),
    ((3000, 3), [64, 1]),
    ((2100,), [2]),
    ((2100,), [3]),
    ((500,), [2**40]),
    ((4, 6, 5, 7), [1000, 100, 10, 1]),
    ((4, 6, 5, 7), [1, 4, 24, 120]),
    ((), []),
    ((0, 3), [3, 1]),
]  # fmt: skip


@pytest.mark.parametrize(("shape", "strides"), MAPS)
def test_mask_of_map(backend: torch.device, shape: tuple[int, ...], strides: list[int]) -> None:
    for base in (0, 5, 64, 2**35 - 40):
        found = ops.dropout_mask(
            shape, 0.4, state(RNG_STATE, backend), mask_strides=strides, mask_base=base
        )
        expected = expected_mask(shape, 0.4, RNG_STATE, strides=strides, base=base)
        assert_bits(found, expected, f"base {base}")


@pytest.mark.parametrize(("shape", "strides"), MAPS)
def test_output_of_map(backend: torch.device, shape: tuple[int, ...], strides: list[int]) -> None:
    """Out of place and in place, contiguous, transposed and with gaps."""
    for name in cases.DTYPES:
        x = random_bits(shape, getattr(torch, name)).to(backend)
        for view in (x, x.t().contiguous().t() if x.ndim == 2 else x, with_gaps(x)):
            args = (0.4, state(RNG_STATE, backend))
            expected = expected_dropout(view, 0.4, RNG_STATE, strides=strides, base=3)
            found = ops.dropout(view, *args, mask_strides=strides, mask_base=3)
            assert_bits(found, expected, name)
            inplace = with_gaps(view) if view.is_contiguous() else view.clone()
            found = dropout_(inplace, *args, mask_strides=strides, mask_base=3)
            assert found.data_ptr() == inplace.data_ptr()
            assert_bits(inplace, expected, f"{name}, in place")


def with_gaps(x: torch.Tensor) -> torch.Tensor:
    """The same elements, with one to spare after each row."""
    if x.ndim == 0:
        return x.clone()
    wide = torch.zeros((*x.shape[:-1], x.shape[-1] + 1), dtype=x.dtype, device=x.device)
    view = wide[..., :-1]
    view.copy_(x)
    return view


@pytest.mark.thorough
@pytest.mark.parametrize(("rows", "columns"), [(600, 530), (30_000, 12), (12, 30_000)])
@pytest.mark.parametrize("dims", [(0,), (1,)])
def test_large_maps(backend: torch.device, rows: int, columns: int, dims: tuple[int, ...]) -> None:
    """For several threads, contiguous and transposed in memory."""
    strides = reference.broadcast_strides((rows, columns), dims)
    x = random_bits((rows, columns), torch.float32).to(backend)
    expected = expected_dropout(x, 0.4, RNG_STATE, strides=strides)
    for view in (x, x.t().contiguous().t()):
        found = ops.dropout(view, 0.4, state(RNG_STATE, backend), mask_strides=strides)
        assert_bits(found, expected)


# Broadcast_dims.


@pytest.mark.parametrize("shape", [(6,), (5, 70), (2, 3, 4, 65)])
def test_broadcast_dims(backend: torch.device, shape: tuple[int, ...]) -> None:
    every = range(len(shape))
    for dims in itertools.chain.from_iterable(
        itertools.combinations(every, k) for k in range(len(shape) + 1)
    ):
        strides = reference.broadcast_strides(shape, dims)
        x = random_bits(shape, torch.float32).to(backend)
        rng_tensor = state(RNG_STATE, backend)
        found = F.dropout(x, 0.4, rng_state=rng_tensor, broadcast_dims=dims)
        assert_bits(found, expected_dropout(x, 0.4, RNG_STATE, strides=strides), f"{dims}")
        negative = tuple(dim - len(shape) for dim in dims)
        mask = F.dropout_mask(shape, 0.4, rng_state=rng_tensor, broadcast_dims=negative)
        assert_bits(mask, expected_mask(shape, 0.4, RNG_STATE, strides=strides), f"{negative}")


LONG_ROWS = [pytest.param(n, marks=pytest.mark.thorough) for n in (128, 200, 511, 512, 513)]


@pytest.mark.parametrize("n", [2, 3, 4, 5, 8, 16, 31, 32, 33, 63, 64, 65, *LONG_ROWS])
def test_short_shared_rows(backend: torch.device, n: int) -> None:
    """Decisions that are repeated n times, and patterns of n decisions that are repeated; aligned
    with the words that masks are made of, and not."""
    for rows in (1, 7, 64, 300):
        for shape, dims in (((rows, n), (1,)), ((3, rows, n), (1,)), ((3, rows, n), (2,))):
            strides = reference.broadcast_strides(shape, dims)
            rng_tensor = state(RNG_STATE, backend)
            found = F.dropout_mask(shape, 0.4, rng_state=rng_tensor, broadcast_dims=dims)
            expected = expected_mask(shape, 0.4, RNG_STATE, strides=strides)
            assert_bits(found, expected, f"{shape}, {dims}")


def test_broadcast_dims_share_one_decision(device: torch.device) -> None:
    x = torch.ones(40, 9, 30, device=device)
    y = F.dropout(x, 0.5, rng_state=state((1, 2), device), broadcast_dims=(1,))
    assert torch.equal(y, y[:, :1].expand_as(y))
    assert 0 < y[:, 0].count_nonzero().item() < 1200


def test_broadcast_dims_name_each_dimension_once(device: torch.device) -> None:
    x = torch.ones(2, 3, device=device)
    for dim in (2, -3):
        with pytest.raises(IndexError, match=str(dim)):
            F.dropout(x, broadcast_dims=(dim,))
    for dims in [(0, 0), (0, -2)]:
        with pytest.raises(ValueError, match="broadcast_dims names a dimension twice"):
            F.dropout(x, broadcast_dims=dims)


# Shard.


def pieces(size: int, count: int) -> list[tuple[int, int]]:
    cuts = [size * k // count for k in range(count + 1)]
    return list(itertools.pairwise(cuts))


@pytest.mark.parametrize("global_shape", [(103,), (30, 70), (4, 9, 33)])
@pytest.mark.parametrize("dims", [(), (0,), (-1,)])
def test_shards_add_up(
    backend: torch.device, global_shape: tuple[int, ...], dims: tuple[int, ...]
) -> None:
    """Cut in three along every dimension, each piece alone; together they are the whole."""
    whole = random_bits(global_shape, torch.float32).to(backend)
    rng_tensor = state(RNG_STATE, backend)
    strides = reference.broadcast_strides(global_shape, dims)
    joined = torch.empty_like(whole)
    mask = torch.empty(global_shape, dtype=torch.bool, device=backend)
    for box in itertools.product(*(pieces(size, 3) for size in global_shape)):
        start = [low for low, _ in box]
        where = tuple(slice(low, high) for low, high in box)
        piece = whole[where].clone()
        joined[where] = F.dropout(
            piece, 0.4, rng_state=rng_tensor, broadcast_dims=dims, shard=(global_shape, start)
        )
        mask[where] = F.dropout_mask(
            piece.shape,
            0.4,
            rng_state=rng_tensor,
            broadcast_dims=dims,
            shard=(global_shape, start),
        )
    assert_bits(joined, expected_dropout(whole, 0.4, RNG_STATE, strides=strides))
    assert_bits(mask, expected_mask(global_shape, 0.4, RNG_STATE, strides=strides))


def test_shard_of_a_tensor_beyond_32_bits(backend: torch.device) -> None:
    global_shape, start = [2**20, 2**16 + 1], [2**19 + 3, 100]
    strides, base = reference.shard_map(global_shape, start)
    found = F.dropout_mask(
        (20, 30), 0.4, rng_state=state(RNG_STATE, backend), shard=(global_shape, start)
    )
    assert_bits(found, expected_mask((20, 30), 0.4, RNG_STATE, strides=strides, base=base))


@pytest.mark.parametrize(
    "shard",
    [
        ((4,), (0,)),  # not as many dimensions
        ((4, 5), (0,)),
        ((4, 5), (3, 0)),  # reaches beyond the end
        ((4, 5), (-1, 0)),
        ((1, 5), (0, 0)),
    ],
)
def test_shard_must_lie_inside(
    device: torch.device, shard: tuple[tuple[int, ...], tuple[int, ...]]
) -> None:
    with pytest.raises(ValueError, match="shard"):
        F.dropout(torch.ones(2, 3, device=device), shard=shard)


def test_inner_gradient_uses_the_same_map(device: torch.device) -> None:
    x = torch.ones(9, 70, device=device, requires_grad=True)
    y = F.dropout(
        x, 0.4, rng_state=state((1, 2), device), broadcast_dims=(1,), shard=((20, 90), (5, 10))
    )
    y.sum().backward()
    assert x.grad is not None
    assert torch.equal(x.grad, y.detach())
    assert 0 < np.count_nonzero(y.detach().cpu().numpy()) < y.numel()
