"""The CUDA kernels and their launcher, compiled for the host, against the reference, bit for bit.

Where no GPU is at hand, this is what keeps their index arithmetic honest: the choice of kernel and
of the width of its accesses, tiles and tails, the exchange between lanes, strides, rng_state from
the host, from device memory and under graph capture. It cannot see races between warps, nor
anything of timing.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch

import dropout_ext  # noqa: F401  (its operators)
from tests.cuda.emulator import Emulator
from tests.helpers import cases, layouts, reference
from tests.helpers.compare import assert_bits, expected_dropout, expected_mask, random_bits, state

pytestmark = pytest.mark.thorough


def check(
    emulator: Emulator,
    x: torch.Tensor,
    p: float,
    rng_state: tuple[int, int],
    what: str,
    **index: Any,
) -> None:
    out = torch.empty_like(x)
    written = emulator.dropout(x, out, p, rng_state, **index)
    assert_bits(out, expected_dropout(x, p, rng_state, **index), what)
    assert torch.equal(written, state(rng_state))


def test_sizes(emulator: Emulator, dtype: torch.dtype) -> None:
    for size in [size for size in cases.SMALL_SIZES if size > 0] + [16385, 100_003]:
        check(emulator, random_bits((size,), dtype), 0.3, (2, 3), f"size {size}")


@pytest.mark.parametrize("begin", range(1, 8))
def test_rows_that_begin_anywhere(emulator: Emulator, dtype: torch.dtype, begin: int) -> None:
    """Into aligned memory: packs of input that end in the next lane's, also between two tiles."""
    for size in (7, 256, 511, 513, 1029):
        x = random_bits((begin + size,), dtype)[begin:]
        check(emulator, x, 0.3, (2, 3), f"size {size} from {begin}")


@pytest.mark.parametrize(
    "p", [p for p in cases.PROBABILITIES if 0 < reference.threshold(p) < 2**32]
)
def test_probabilities(emulator: Emulator, dtype: torch.dtype, p: float) -> None:
    check(emulator, random_bits((5003,), dtype), p, (2**40 + 1, 6), f"p {p!r}")


@pytest.mark.parametrize("rng_state", cases.RNG_STATES)
def test_states(emulator: Emulator, rng_state: tuple[int, int]) -> None:
    x = random_bits((20_003,), torch.bfloat16)
    check(emulator, x, 0.25 + 2.0**-17, rng_state, str(rng_state))


@pytest.mark.parametrize("base", cases.BASES)
def test_base(emulator: Emulator, dtype: torch.dtype, base: int) -> None:
    check(emulator, random_bits((1000,), dtype), 0.4, (9, 9), str(base), base=base)


@pytest.mark.parametrize("name", [*layouts.DENSE, *layouts.OVERLAPPING])
def test_layouts(emulator: Emulator, name: str) -> None:
    layout = {**layouts.DENSE, **layouts.OVERLAPPING}[name]
    for dtype in cases.DTYPES:
        x = layout(lambda shape, dtype=dtype: random_bits(shape, getattr(torch, dtype)))
        if x.numel() > 0:
            check(emulator, x, 0.3, (31, 32), f"{dtype} {name}")


@pytest.mark.parametrize("name", [name for name in layouts.DENSE if "(0" not in name])
def test_in_place(emulator: Emulator, name: str) -> None:
    for dtype in ("float32", "bfloat16"):
        x = layouts.DENSE[name](
            lambda shape, dtype=dtype: random_bits(shape, getattr(torch, dtype))
        )
        if x.numel() == 0:
            continue
        expected = expected_dropout(x, 0.3, (31, 32))
        emulator.dropout(x, x, 0.3, (31, 32))
        assert_bits(x, expected, f"{dtype} {name}")


@pytest.mark.parametrize("name", ["channels last, 256 channels", "rows with gaps", "transposed"])
def test_large_layouts(emulator: Emulator, name: str) -> None:
    x = layouts.LARGE[name](lambda shape: random_bits(shape, torch.bfloat16))
    check(emulator, x, 0.3, (31, 32), name)


@pytest.mark.parametrize("rows", [1, 2, 3])
def test_several_launches_of_few_rows(emulator: Emulator, rows: int) -> None:
    """The emulation has a launch for every 2^18 elements: when no row is left, rows are divided."""
    x = random_bits((rows, 2**18 + 77), torch.bfloat16)
    for piece in (x[:, 1:], x.t()[3:].t()):
        check(emulator, piece, 0.3, (31, 32), f"{rows} rows, strides {piece.stride()}")


@pytest.mark.parametrize("dims", [(0,), (1,), (2,), (-1,), (0, 2), (1, 2), (0, 1, 2)])
@pytest.mark.parametrize("shape", [(5, 70, 33), (3, 16, 256), (2, 9, 700)])
def test_shared_decisions(
    emulator: Emulator, dtype: torch.dtype, shape: tuple[int, ...], dims: tuple[int, ...]
) -> None:
    strides = reference.broadcast_strides(shape, dims)
    check(emulator, random_bits(shape, dtype), 0.4, (3, 4), str(dims), strides=strides)


@pytest.mark.parametrize("start", [(0, 0, 0), (1, 3, 5), (7, 0, 11)])
def test_shards(emulator: Emulator, dtype: torch.dtype, start: tuple[int, ...]) -> None:
    strides, base = reference.shard_map((2**20, 2**10, 1000), start)
    x = random_bits((3, 40, 300), dtype)
    check(emulator, x, 0.4, (3, 4), str(start), strides=strides, base=base)


def test_mask(emulator: Emulator) -> None:
    for shape in [(1,), (7,), (1000,), (33, 65)]:
        out = torch.empty(shape, dtype=torch.bool)
        emulator.dropout(None, out, 0.3, (1, 2))
        assert_bits(out, expected_mask(shape, 0.3, (1, 2)))


def test_rows_beyond_the_largest_grid(emulator: Emulator) -> None:
    """More tiles than warps: each warp goes on by the number of warps."""
    x = random_bits((2**25 + 2**20 + 5,), torch.bfloat16)
    keep = torch.empty(x.shape, dtype=torch.bfloat16)
    emulator.dropout(x, keep, 0.5, (5, 6))
    for begin in (0, 2**25 - 1000, x.numel() - 1000):
        part = slice(begin, begin + 1000)
        assert_bits(keep[part], expected_dropout(x[part], 0.5, (5, 6), base=begin), str(begin))


def test_captured_state(emulator: Emulator) -> None:
    """Replays: the generator's offset, in 32-bit numbers, is read when the kernel runs."""
    x = random_bits((1000,), torch.float32)
    for extragraph, intragraph in ((0, 0), (16, 8), (2**34, 24)):
        device_memory = state((-7, extragraph))
        out = torch.empty_like(x)
        written = emulator.dropout(x, out, 0.5, (0, 0), captured=(device_memory, intragraph))
        used = (-7, (extragraph + intragraph) // 4)
        assert_bits(out, expected_dropout(x, 0.5, used))
        assert torch.equal(written, state(used))
        states = emulator.write_states(device_memory, intragraph, True, 300)
        assert torch.equal(states[:, 0], torch.full((300,), -7))
        assert torch.equal(states[:, 1], used[1] + 2 * torch.arange(300))


def test_host_state_is_written_down(emulator: Emulator) -> None:
    assert torch.equal(emulator.write_states(state((-1, 5)), 0, False, 1), state((-1, 5))[None])


@pytest.mark.parametrize("count", [1, 300, 70_000])
def test_fold_in(emulator: Emulator, count: int) -> None:
    states = torch.stack([torch.arange(count) - 5, torch.arange(count) << 33], 1)
    numbers = torch.arange(count) * 2**50 - 3
    expected = torch.ops.dropout_ext.fold_in(states, numbers)
    assert torch.equal(emulator.fold_in(states, numbers), expected)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
@pytest.mark.parametrize("shape", [(8,), (70,), (9, 64), (9, 130)])
def test_samples(emulator: Emulator, dtype: torch.dtype, shape: tuple[int, ...]) -> None:
    """Each sample has its state, also where its memory is aligned and the next one's is not."""
    count = 5
    numbers = [(seed * 2**40 + 5, 2**32 - 1 + seed) for seed in range(count)]
    states = torch.stack([state(number) for number in numbers])
    for gap in (0, 1, 8):
        size = torch.Size(shape).numel()
        memory = random_bits((count, size + gap), dtype)
        x = memory[:, :size].view(count, *shape)
        for view in (x, x.transpose(1, -1)):
            out = torch.empty_like(memory)[:, :size].view(count, *shape)
            out = out if view is x else out.transpose(1, -1)
            emulator.dropout(
                view[0], out[0], 0.4, (0, 0), captured=(states, 0),
                samples=(count, view.stride(0), out.stride(0), states.stride(0)),
            )  # fmt: skip
            for k, number in enumerate(numbers):
                expected = expected_dropout(view[k], 0.4, number)
                assert_bits(out[k], expected, f"sample {k}, gap {gap}")
