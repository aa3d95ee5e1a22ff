"""An rng_state for each sample: of shape [*batch, 2] for an input whose sizes begin with *batch.

That is how the batching rules of vmap call the operators; the public functions take one state.
Catches: a sample that takes its neighbour's state, or an index that goes on from one sample into
the next instead of starting anew.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch

import dropout_ext  # noqa: F401
from tests.helpers.compare import assert_bits, expected_dropout, expected_mask, random_bits, state
from tests.helpers.operators import dropout_

ops = torch.ops.dropout_ext

BATCHES: list[tuple[int, ...]] = [(1,), (5,), (2, 3), (0,), (1, 4)]


def states(batch: tuple[int, ...], device: torch.device) -> tuple[torch.Tensor, list[list[int]]]:
    """A state for each sample, and the same as a flat list."""
    count = int(np.prod(batch, dtype=np.int64))
    numbers = [[seed * 2**40 + 5, 2**32 - 1 + seed] for seed in range(count)]
    stacked = [state((seed, offset), device) for seed, offset in numbers]
    if not stacked:
        return torch.empty(*batch, 2, dtype=torch.int64, device=device), []
    return torch.stack(stacked).view(*batch, 2), numbers


@pytest.mark.parametrize("batch", BATCHES)
@pytest.mark.parametrize("sample", [(), (70,), (9, 130)])
@pytest.mark.parametrize("inplace", [False, True])
def test_each_sample_has_its_state(
    backend: torch.device,
    batch: tuple[int, ...],
    sample: tuple[int, ...],
    inplace: bool,
) -> None:
    stacked, numbers = states(batch, backend)
    for dtype in (torch.float64, torch.bfloat16):
        x = random_bits((*batch, *sample), dtype).to(backend)
        flat = x.clone().view(-1, *sample) if numbers else x
        y = (dropout_ if inplace else ops.dropout)(x, 0.4, stacked)
        assert (y is x) == inplace
        for k, (seed, offset) in enumerate(numbers):
            found = y.reshape(-1, *sample)[k]
            assert_bits(found, expected_dropout(flat[k], 0.4, (seed, offset)), f"sample {k}")


@pytest.mark.parametrize("batch", BATCHES)
def test_mask(backend: torch.device, batch: tuple[int, ...]) -> None:
    stacked, numbers = states(batch, backend)
    mask = ops.dropout_mask((*batch, 9, 70), 0.4, stacked)
    for k, (seed, offset) in enumerate(numbers):
        expected = expected_mask((9, 70), 0.4, (seed, offset))
        assert_bits(mask.view(-1, 9, 70)[k], expected, f"sample {k}")


def test_samples_among_threads(backend: torch.device) -> None:
    """So many that threads begin and end within samples, which some have to share."""
    stacked, numbers = states((6,), backend)
    for sample in ((70_001,), (65, 65, 33)):
        x = random_bits((6, *sample), torch.float32).to(backend)
        y = ops.dropout(x, 0.4, stacked)
        for k, number in enumerate(numbers):
            assert_bits(y[k], expected_dropout(x[k], 0.4, tuple(number)), f"sample {k}")


def test_map_of_a_sample(backend: torch.device) -> None:
    """Strides and base are those within a sample; what stands at the batch is ignored."""
    stacked, numbers = states((4,), backend)
    x = random_bits((4, 9, 70), torch.float32).to(backend)
    for view in (
        x,
        x.transpose(1, 2).contiguous().transpose(1, 2),
        x.transpose(0, 2).contiguous().transpose(0, 2),
    ):
        y = ops.dropout(view, 0.4, stacked, mask_strides=[12345, 0, 1], mask_base=7)
        for k, (seed, offset) in enumerate(numbers):
            expected = expected_dropout(x[k], 0.4, (seed, offset), strides=[0, 1], base=7)
            assert_bits(y[k], expected, f"sample {k}")


def test_gradient(device: torch.device) -> None:
    stacked, _ = states((5,), device)
    x = torch.ones(5, 200, device=device, requires_grad=True)
    y = ops.dropout(x, 0.4, stacked)
    y.backward(torch.ones_like(y))
    assert x.grad is not None
    assert torch.equal(x.grad, y.detach())


@pytest.mark.parametrize("shape", [(4, 2), (5, 3), (5, 7, 2), (5, 9, 70, 2), (2, 5)])
def test_shape_must_fit(device: torch.device, shape: tuple[int, ...]) -> None:
    wrong = torch.ones(shape, dtype=torch.int64, device=device)
    with pytest.raises((ValueError, RuntimeError), match="rng_state") as error:
        ops.dropout(torch.ones(5, 9, device=device), 0.5, wrong)
    assert str(list(shape)) in str(error.value)
