"""The mask of attention is that of the weights, bit for bit: with the identity as value the output
is the weights themselves, whose zeros are what was dropped.

Catches: a block, row, head or batch that begins at a wrong mask index; keys shifted by the start of
a row within a word; a mask that depends on the path, the layout, the shard or the threads.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from dropout_ext import functional as F
from tests.attention.composition import random, rng_state

pytestmark = pytest.mark.thorough

# Around the edges of words, of blocks of queries (64) and of keys (512); rows that begin anywhere.
SIZES = [(1, 1), (3, 70), (65, 64), (64, 511), (2, 512), (67, 513), (130, 1090)]


def kept(query: Tensor, key: Tensor, p: float, **arguments: object) -> Tensor:
    """Which weights are not 0."""
    size = key.size(-2)
    identity = torch.eye(size, dtype=query.dtype).expand(*key.shape[:-1], size)
    output = F.scaled_dot_product_attention(
        query,
        key,
        identity,
        dropout_p=p,
        **arguments,  # type: ignore[arg-type]
    )
    return output != 0


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("causal", [False, True])
def test_mask_of_every_element(cpu_path: torch.device, size: tuple[int, int], causal: bool) -> None:
    queries, keys = size
    query, key = random(2, 3, queries, 8), random(2, 3, keys, 8, seed=1)
    expected = F.dropout_mask((2, 3, queries, keys), 0.3, rng_state=rng_state())
    if causal:
        expected = expected & torch.ones(queries, keys, dtype=torch.bool).tril()
    found = kept(query, key, 0.3, rng_state=rng_state(), is_causal=causal)
    assert torch.equal(found, expected)


def test_mask_of_every_dtype(dtype: torch.dtype) -> None:
    query, key = random(1, 2, 5, 8, dtype=dtype), random(1, 2, 77, 8, seed=1, dtype=dtype)
    expected = F.dropout_mask((1, 2, 5, 77), 0.5, rng_state=rng_state())
    assert torch.equal(kept(query, key, 0.5, rng_state=rng_state()), expected)


def test_mask_with_batches_of_any_shape_and_grouped_heads() -> None:
    query, key = random(2, 1, 3, 4, 5, 8), random(2, 1, 3, 2, 9, 8, seed=1)
    expected = F.dropout_mask((2, 1, 3, 4, 5, 9), 0.5, rng_state=rng_state())
    found = kept(query, key, 0.5, rng_state=rng_state(), enable_gqa=True)
    assert torch.equal(found, expected)


@pytest.mark.parametrize("dims", [2, 3])
def test_mask_of_unbatched(dims: int) -> None:
    query, key = random(*[4, 5, 8][3 - dims :]), random(*[4, 9, 8][3 - dims :], seed=1)
    expected = F.dropout_mask((*query.shape[:-1], 9), 0.5, rng_state=rng_state())
    assert torch.equal(kept(query, key, 0.5, rng_state=rng_state()), expected)


def test_mask_of_layouts() -> None:
    packed = random(2, 70, 3, 4, 8)  # batch, length, (query, key, value), head, width
    query, key = packed[:, :, 0].transpose(1, 2), packed[:, :, 1].transpose(1, 2)
    assert not query.is_contiguous()
    expected = F.dropout_mask((2, 4, 70, 70), 0.5, rng_state=rng_state())
    for change in (lambda t: t, lambda t: t.contiguous(), lambda t: t.mT.contiguous().mT):
        assert torch.equal(kept(change(query), change(key), 0.5, rng_state=rng_state()), expected)


@pytest.mark.parametrize("start", [(0, 0), (1, 0), (0, 2), (1, 3)])
def test_mask_of_a_shard(start: tuple[int, int]) -> None:
    batch, head = start
    query, key = random(2, 5, 9, 8), random(2, 5, 70, 8, seed=1)
    whole = F.dropout_mask((2, 5, 9, 70), 0.5, rng_state=rng_state())
    part = slice(batch, None), slice(head, None)
    found = kept(
        query[part],
        key[part],
        0.5,
        rng_state=rng_state(),
        shard=((2, 5, 9, 70), (batch, head, 0, 0)),
    )
    assert torch.equal(found, whole[part])


def test_mask_of_a_shard_of_queries() -> None:
    query, key = random(1, 2, 9, 8), random(1, 2, 70, 8, seed=1)
    whole = F.dropout_mask((1, 2, 9, 70), 0.5, rng_state=rng_state())
    shard = ((1, 2, 9, 70), (0, 0, 4, 0))
    found = kept(query[:, :, 4:], key, 0.5, rng_state=rng_state(), shard=shard)
    assert torch.equal(found, whole[:, :, 4:])


def test_large_indices() -> None:
    """Beyond 2^32 blocks of eight, where the counter's high word changes."""
    shard = ((2**30, 4, 3, 70), (2**29 - 1, 0, 0, 0))
    query, key = random(2, 4, 3, 8), random(2, 4, 70, 8, seed=1)
    ones = torch.ones(2, 4, 3, 70)
    expected = F.dropout(ones, 0.5, rng_state=rng_state(), shard=shard) != 0
    assert torch.equal(kept(query, key, 0.5, rng_state=rng_state(), shard=shard), expected)


def test_results_do_not_depend_on_threads(set_threads: Callable[[int], None]) -> None:
    found = []
    arguments = [random(1, 3, 700, 16, seed=seed) for seed in range(3)]
    for threads in (1, 2, 3):
        set_threads(threads)
        leaves = [tensor.clone().requires_grad_() for tensor in arguments]
        output = F.scaled_dot_product_attention(
            *leaves, dropout_p=0.3, is_causal=True, rng_state=rng_state()
        )
        found.append([output, *torch.autograd.grad(output.square().sum(), leaves)])
    for other in found[1:]:
        assert all(torch.equal(a, b) for a, b in zip(found[0], other, strict=True))


def test_draws_one_state() -> None:
    """The state that dropout of the weights would draw, whatever the size."""
    query, key = random(1, 2, 5, 8), random(1, 2, 9, 8)
    torch.manual_seed(3)
    ones = F.dropout(torch.ones(1, 2, 5, 9), 0.5) != 0
    after = torch.get_rng_state()
    torch.manual_seed(3)
    assert torch.equal(kept(query, key, 0.5), ones)
    assert torch.equal(torch.get_rng_state(), after)
    generator = torch.Generator().manual_seed(3)
    assert torch.equal(kept(query, key, 0.5, generator=generator), ones)
