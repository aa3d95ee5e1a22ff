"""What a GPU would see of the kernels, counted by the emulation: the sectors of 32 bytes that the
accesses of a warp touch, Philox calls, the elements that are computed, and idle lanes.

Catches: a layout for which neighbouring lanes stop being neighbours in memory, a decision that is
drawn again for each element that shares it, work on elements that do not exist, a launch whose last
wave is mostly empty.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pytest
import torch

from tests.cuda.emulator import COUNT, PLAN, RUN, Counts, Emulator
from tests.cuda.everyday_layouts import EVERYDAY, Everyday
from tests.helpers import reference
from tests.helpers.compare import assert_bits, expected_dropout, random_bits, torch_dtype

pytestmark = pytest.mark.thorough

SECTOR_BYTES = 32
P = 0.4 + 2.0**-20


@pytest.fixture
def counted(emulator: Emulator) -> Iterator[Emulator]:
    emulator.counts(COUNT)
    yield emulator
    emulator.counts(RUN)


def _aligned(x: torch.Tensor) -> torch.Tensor:
    """In memory of torch, which begins where sectors do."""
    return torch.empty_like(x).copy_(x)


def _strides(layout: Everyday, shape: Sequence[int]) -> Sequence[int] | None:
    return reference.broadcast_strides(shape, layout.shared) if layout.shared else None


def _check(counts: Counts, layout: Everyday, x: torch.Tensor, what: str) -> None:
    useful = x.numel() * x.element_size()
    shares = {
        "loads": useful / (SECTOR_BYTES * counts.load_sectors),
        "stores": useful / (SECTOR_BYTES * counts.store_sectors),
    }
    figures = {name: round(share, 3) for name, share in shares.items()}
    figures |= {name: round(getattr(counts, name) / x.numel(), 4) for name in ("calls", "applied")}
    found = f"{what}: {figures}"
    assert shares["loads"] >= layout.loads, found
    assert shares["stores"] >= layout.stores, found
    assert counts.calls <= layout.calls * x.numel(), found
    assert counts.applied <= layout.applied * x.numel(), found


@pytest.mark.parametrize("name", EVERYDAY)
def test_everyday_layouts(counted: Emulator, name: str) -> None:
    """Into a fresh output, as autograd's forward has it."""
    layout = EVERYDAY[name]
    for dtype in layout.dtypes:
        x = layout.make(lambda shape, dtype=dtype: _aligned(random_bits(shape, torch_dtype(dtype))))
        out = torch.empty_like(x)
        strides = _strides(layout, x.shape)
        counted.counts(COUNT)
        counted.dropout(x, out, P, (5, 6), strides=strides)
        _check(counted.counts(COUNT), layout, x, f"{dtype}, {name}")
        assert_bits(out, expected_dropout(x, P, (5, 6), strides=strides), f"{dtype}, {name}")


@pytest.mark.parametrize("dtype", ["bfloat16", "float64"])
def test_many_small_samples(counted: Emulator, dtype: str) -> None:
    """vmap with different masks: samples share warps."""
    count, size = 65536, 10  # several launches, in the emulation
    states = torch.randint(-(2**63), 2**63 - 1, (count, 2))
    x = random_bits((count, size), torch_dtype(dtype))
    out = torch.empty_like(x)
    counted.dropout(x[0], out[0], P, (0, 0), captured=(states, 0), samples=(count, size, size, 2))
    counts = counted.counts(COUNT)
    assert counts.busy_threads >= 0.5 * counts.threads
    assert counts.calls <= 0.33 * x.numel()
    for k in (0, 1, 777, count - 1):
        seed, offset = (int(number) % 2**64 for number in states[k])
        assert_bits(out[k], expected_dropout(x[k], P, (seed, offset)), f"sample {k}")


# Multiprocessors of A100, H100 and B200, and blocks that each holds at once: more with fewer
# registers.
@pytest.mark.parametrize("multiprocessors", [108, 132, 148])
@pytest.mark.parametrize("resident", [3, 4, 5, 6, 8])
@pytest.mark.parametrize("dtype", ["float64", "float32", "bfloat16"])
def test_waves(emulator: Emulator, dtype: str, resident: int, multiprocessors: int) -> None:
    """64M elements: the last wave of blocks costs little, be it full or not."""
    x = torch.empty(1 << 26, dtype=torch_dtype(dtype))  # never touched
    emulator.counts(PLAN)
    emulator.dropout(x, x, P, (0, 0))
    counts = emulator.counts(RUN)
    waves = counts.blocks / (resident * multiprocessors)
    assert waves / -(-counts.blocks // (resident * multiprocessors)) >= 0.94, waves
    assert counts.launches == 1


def test_small_launches(emulator: Emulator) -> None:
    """The parameters of one long row, which travel with each launch."""
    x = torch.empty(1024)
    emulator.counts(PLAN)
    emulator.dropout(x, x, P, (0, 0))
    assert emulator.counts(RUN).parameter_bytes < 300
