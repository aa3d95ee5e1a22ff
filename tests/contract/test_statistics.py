"""The contract itself, statistically: the keep rate, independence, the expectation.

Bit-for-bit tests say that the kernels follow the contract; these say that the contract is dropout.
Seeds are fixed, so a test that passes once passes always; the figures are for the day a seed or the
contract changes. A statistic of n decisions is compared with its law as a normal deviate z. With
|z| < 5 the false-alarm rate is 6e-7 for each comparison, below 1e-3 for all of this file together.

Catches: a keep rate off by 0.1 % (p rounded to 8 or 16 bits, a scale that does not match it);
decisions that repeat along rows, between lanes, between consecutive calls, seeds or offsets.
"""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import scipy.stats
import torch

from dropout_ext import functional as F
from tests.helpers import cases, reference
from tests.helpers.compare import state

pytestmark = pytest.mark.thorough

LIMIT = 5.0
OFF_DYADIC = [0.1, 0.3, 1 / 3, 0.45, 0.7]


def keep_mask(
    device: torch.device, n: int, p: float, rng_state: tuple[int, int] = (2**62 + 1, 0)
) -> torch.Tensor:
    return F.dropout_mask((n,), p, rng_state=state(rng_state, device))


def deviate(count: int, n: int, probability: float) -> float:
    """z of a binomial count."""
    return (count - n * probability) / math.sqrt(n * probability * (1 - probability))


@pytest.mark.parametrize("p", OFF_DYADIC)
def test_keep_rate(device: torch.device, p: float) -> None:
    """n = 2^28. A keep rate off by a factor of 1.001 moves z by 16 sqrt((1 - p) / p) = 10.7 or
    more: it passes |z| < 5 with a probability below 1e-8. p rounded to 8 bits moves it by hundreds.
    """
    n = 2**28
    kept = int(keep_mask(device, n, p).count_nonzero())
    assert abs(deviate(kept, n, 1 - p)) < LIMIT


@pytest.mark.parametrize("p", [2.0**-17, 1 - 2.0**-17])
def test_keep_rate_beyond_16_bits(device: torch.device, p: float) -> None:
    """Half the weight of the 16-bit number's last place: 2^-17 of n = 2^28 are 2048 decisions.

    A p cut to 16 bits moves z by 45.
    """
    n = 2**28
    rarer = min(p, 1 - p)
    kept = int(keep_mask(device, n, p).count_nonzero())
    count = n - kept if p < 0.5 else kept
    assert abs(deviate(count, n, rarer)) < LIMIT


@pytest.mark.parametrize(
    ("name", "p"),
    [*((name, 0.1) for name in cases.DTYPES), *(("bfloat16", p) for p in (0.3, 0.45))],
)
def test_expectation(device: torch.device, name: str, p: float) -> None:
    """E[y] = x, in every dtype: the sum of y over that of x, n = 2^25, within 5 deviations.

    A scale off by 0.1 % moves z by 1e-3 sqrt(n (1 - p) / p) = 6.4 (p = 0.45), 8.8 and 17: detected
    with a probability of 0.92 and more. One rounded to bfloat16 moves it by 7 and more at each of
    these p. Rounding y itself does not bias the sum: x is spread over a binade.
    """
    n = 2**25
    generator = torch.Generator().manual_seed(6)
    x = (1 + torch.rand(n, generator=generator)).to(getattr(torch, name)).to(device)
    y = F.dropout(x, p, rng_state=state((8, 0), device))
    squares = float(x.double().square().sum())
    z = float(y.double().sum() - x.double().sum()) / math.sqrt(squares * p / (1 - p))
    assert abs(z) < LIMIT


def agreement_deviate(a: torch.Tensor, b: torch.Tensor, p: float) -> float:
    """z of the number of places at which two independent masks agree."""
    agree = p * p + (1 - p) * (1 - p)
    return deviate(int((a == b).count_nonzero()), a.numel(), agree)


SHIFTS = (*range(1, 18), 31, 32, 33, 63, 64, 65, 127, 128, 255, 256, 1000, 1024, 4096, 2**16, 2**20)


@pytest.mark.parametrize("p", [0.3, 0.9])
def test_neighbours_are_independent(device: torch.device, p: float) -> None:
    """n = 2^25 pairs at each distance, block and vector lengths among them.

    A correlation of 0.2 % is z = 9.8 at p = 0.3, one of 0.4 % is z = 10.9 at p = 0.9; decisions
    that repeat are in the thousands.
    """
    n = 2**25
    mask = keep_mask(device, n + max(SHIFTS), p)
    for shift in SHIFTS:
        z = agreement_deviate(mask[:n], mask[shift : n + shift], p)
        assert abs(z) < LIMIT, f"distance {shift}: z = {z}"


def test_eight_lanes_are_independent(device: torch.device) -> None:
    """All 256 patterns of a block, 2^22 blocks: chi-squared with 255 degrees of freedom.

    False-alarm rate 1e-6. A single pattern that is 3 % too frequent is detected more often than
    not, a lane that repeats another one always.
    """
    p, blocks = 0.3, 2**22
    bits = keep_mask(device, 8 * blocks, p).view(blocks, 8).cpu().numpy()
    counts = np.bincount(np.packbits(bits, axis=1).reshape(-1), minlength=256)
    kept = np.array([pattern.bit_count() for pattern in range(256)])
    expected = blocks * (1 - p) ** kept * p ** (8 - kept)
    statistic = float(((counts - expected) ** 2 / expected).sum())
    assert scipy.stats.chi2.sf(statistic, 255) > 1e-6
    assert scipy.stats.chi2.cdf(statistic, 255) > 1e-6, "too regular to be random"


def test_rows_are_independent(device: torch.device) -> None:
    """Column sums of a 4096 x 4096 mask, and row sums: their variance is the binomial one.

    Chi-squared with 4095 degrees of freedom on either side, false-alarm rate 1e-6 each; rows that
    share one decision in 100 raise the column statistic by 40 %, 18 deviations.
    """
    p, n = 0.3, 4096
    mask = keep_mask(device, n * n, p).view(n, n)
    for sums in (mask.sum(0), mask.sum(1)):
        counts = sums.cpu().numpy()
        statistic = float(((counts - n * (1 - p)) ** 2).sum() / (n * p * (1 - p)))
        assert 1e-6 < scipy.stats.chi2.sf(statistic, n) < 1 - 1e-6


def test_consecutive_calls_are_independent(device: torch.device) -> None:
    """Two calls in a row with one generator, at every shift up to 16, both ways.

    n = 2^24; calls that share half of a Philox block agree there entirely, z in the hundreds.
    """
    n, p = 2**24, 0.4
    generator = torch.Generator(device).manual_seed(4)
    ones = torch.ones(n + 16, device=device, dtype=torch.bfloat16)
    first, second = (F.dropout(ones, p, generator=generator) != 0 for _ in range(2))
    for shift in range(17):
        for a, b in ((first, second), (second, first)):
            z = agreement_deviate(a[:n], b[shift : n + shift], p)
            assert abs(z) < LIMIT, f"shift {shift}: z = {z}"
    for a_half, b_half in itertools.permutations((slice(0, 4), slice(4, 8))):
        a = first[:n].view(-1, 8)[:, a_half]
        z = agreement_deviate(a, second[:n].view(-1, 8)[:, b_half], p)
        assert abs(z) < LIMIT, f"halves of a block: z = {z}"


NEIGHBOURING_STATES = [
    ((5, 0), (6, 0)),
    ((5, 0), (5, 2)),
    ((5, 0), (5, 4)),
    ((5, 0), (5 + 2**32, 0)),
    ((5, 0), (5 + 2**63, 0)),
    ((5, 0), (5, 2**32)),
    ((5, 0), (0, 5)),
    ((2**32, 0), (0, 2**32)),
]


@pytest.mark.parametrize(("one", "other"), NEIGHBOURING_STATES)
def test_neighbouring_states_are_independent(
    device: torch.device, one: tuple[int, int], other: tuple[int, int]
) -> None:
    """n = 2^25, each of the four words counted up by one; also beyond the resolution of ties."""
    n, p = 2**25, 0.3
    z = agreement_deviate(keep_mask(device, n, p, one), keep_mask(device, n, p, other), p)
    assert abs(z) < LIMIT


def test_seeds_are_independent(device: torch.device) -> None:
    """2^14 seeds by 512 elements, both ways.

    Each column is one index over all seeds: its keep rate is binomial, as is that of each row
    (chi-squared, false-alarm rate 1e-6). A seed of which half the bits are ignored repeats rows:
    the variance of the columns doubles, 16 deviations.
    """
    seeds, n, p = 2**14, 512, 0.3
    states = seed_states(seeds, device)
    rows = torch.stack([F.dropout_mask((n,), p, rng_state=one) for one in states.unbind(0)])
    variance = p * (1 - p)
    columns = rows.sum(0).cpu().numpy()
    per_seed = rows.sum(1).cpu().numpy()
    for counts, trials in ((columns, seeds), (per_seed, n)):
        statistic = float(((counts - trials * (1 - p)) ** 2).sum() / (trials * variance))
        assert 1e-6 < scipy.stats.chi2.sf(statistic, len(counts)) < 1 - 1e-6


def seed_states(seeds: int, device: torch.device) -> torch.Tensor:
    """Seeds 0, 1, 2 ... and the same numbers in the upper half, where a cut key would lose them."""
    low = torch.arange(seeds // 2, dtype=torch.int64)
    numbers = torch.cat([low, (low + 1) << 40])
    return torch.stack([numbers, torch.zeros_like(numbers)], 1).to(device)


def test_realised_probability_is_within_2_to_the_minus_33() -> None:
    """What is left of the bias is below anything that can be measured."""
    rng = np.random.default_rng(0)
    for p in [*OFF_DYADIC, *rng.random(1000).tolist()]:
        assert abs(reference.threshold(p) / 2**32 - p) <= 2.0**-33
