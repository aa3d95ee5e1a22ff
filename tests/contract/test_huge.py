"""More than 2^31 elements. Opt-in (DROPOUT_EXT_HUGE=1): about 5 GiB.

Catches: an `int` element index, stride or size anywhere between Python and the last loop.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch

from dropout_ext import functional as F
from tests.helpers import reference
from tests.helpers.compare import assert_bits, state

BEYOND = 2**31 + 2**20 + 77
RNG_STATE = (1234567, 89)
P = 0.3


def sampled(n: int) -> list[tuple[int, int]]:
    """Stretches at both ends, around 2^31, and where 32-bit bytes or bits would wrap."""
    centres = [0, 2**29, 2**30, 2**31, n - 2000, *np.random.default_rng(1).integers(0, n, 20)]
    return [(max(0, int(c) - 1000), min(n, int(c) + 2000)) for c in centres]


def check_row(y: torch.Tensor) -> None:
    for low, high in sampled(len(y)):
        keep = reference.mask((high - low,), P, *RNG_STATE, base=low)
        ones = np.full(high - low, 0x3F80, dtype=np.uint16)
        assert_bits(y[low:high], reference.dropout(ones, keep, P, "bfloat16"), f"from {low}")


@pytest.mark.huge(6)
def test_row_in_place_and_mask(device: torch.device) -> None:
    x = torch.ones(BEYOND, dtype=torch.bfloat16, device=device)
    assert F.dropout(x, P, inplace=True, rng_state=state(RNG_STATE, device)) is x
    check_row(x)
    del x
    mask = F.dropout_mask((BEYOND,), P, rng_state=state(RNG_STATE, device))
    for low, high in sampled(BEYOND):
        expected = reference.mask((high - low,), P, *RNG_STATE, base=low)
        assert np.array_equal(mask[low:high].cpu().numpy(), expected), f"from {low}"
    kept = int(mask.count_nonzero())
    assert abs(kept - BEYOND * (1 - P)) < 5 * (BEYOND * P * (1 - P)) ** 0.5


@pytest.mark.huge(6)
def test_row_out_of_place(device: torch.device) -> None:
    x = torch.ones((), dtype=torch.bfloat16, device=device).expand(BEYOND)
    check_row(F.dropout(x, P, rng_state=state(RNG_STATE, device)))


@pytest.mark.huge(6)
@pytest.mark.parametrize("columns", [3, 33_000])
def test_transposed_in_place(device: torch.device, columns: int) -> None:
    """Strides and sizes whose product passes 2^31, on the loop for transposed memory."""
    rows = BEYOND // columns
    memory = torch.ones(rows, columns, dtype=torch.bfloat16, device=device)
    x = memory.t()
    F.dropout(x, P, inplace=True, rng_state=state(RNG_STATE, device))
    for row in {0, 1, columns // 2, columns - 1}:
        for low, high in sampled(rows):
            if low >= high:
                continue
            keep = reference.mask((high - low,), P, *RNG_STATE, base=row * rows + low)
            ones = np.full(high - low, 0x3F80, dtype=np.uint16)
            expected = reference.dropout(ones, keep, P, "bfloat16")
            assert_bits(x[row, low:high], expected, f"row {row} from {low}")


@pytest.mark.huge(6)
def test_rows_with_gaps_in_place(device: torch.device) -> None:
    rows, columns = 2**20, 2**11 + 3
    memory = torch.ones(rows, columns, dtype=torch.bfloat16, device=device)
    x = memory[:, 1:-1]
    F.dropout(x, P, inplace=True, rng_state=state(RNG_STATE, device))
    for row in (0, 1, rows // 2, rows - 2, rows - 1):
        keep = reference.mask((columns - 2,), P, *RNG_STATE, base=row * (columns - 2))
        ones = np.full(columns - 2, 0x3F80, dtype=np.uint16)
        assert_bits(x[row], reference.dropout(ones, keep, P, "bfloat16"), f"row {row}")
    assert memory[:, 0].eq(1).all()
    assert memory[:, -1].eq(1).all()
