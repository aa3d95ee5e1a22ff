"""Random cases: shapes, strides, offsets, bases, probabilities and states that nobody thought of.

Catches: a combination of layout and index map that takes a wrong loop. The search is seeded; a
failure is shrunk to its smallest case.
"""

from __future__ import annotations

from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings

from tests.helpers import cases, reference
from tests.helpers.compare import (
    assert_bits,
    expected_dropout,
    expected_mask,
    random_bits,
    state,
    to_bits,
)
from tests.helpers.operators import dropout_

pytestmark = pytest.mark.thorough

ops = torch.ops.dropout_ext

SETTINGS = settings(
    max_examples=100,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)

sizes = st.one_of(
    st.integers(0, 9), st.sampled_from([15, 16, 17, 31, 33, 63, 64, 65, 66, 127, 130, 257])
)
probabilities = st.one_of(
    st.sampled_from(cases.PROBABILITIES), st.floats(2.0**-40, 1), st.floats(0.4, 0.6)
)
int64 = st.integers(-(2**63), 2**63 - 1)
states = st.one_of(st.tuples(int64, int64), st.sampled_from(cases.RNG_STATES))


@st.composite
def views(draw: st.DrawFn, device: torch.device) -> torch.Tensor:
    """A float32 view: a permuted, stepped slice with an offset, of up to 12,000 elements."""
    shape = draw(st.lists(sizes, max_size=4).filter(lambda s: np.prod(s, dtype=np.int64) <= 12000))
    steps = [draw(st.sampled_from([1, 1, 1, 2, 3])) for _ in shape]
    gaps = [draw(st.sampled_from([0, 0, 1, 5])) for _ in shape]
    order = draw(st.permutations(range(len(shape))))
    full = [size * step + gap for size, step, gap in zip(shape, steps, gaps, strict=True)]
    where = tuple(
        slice(gap, gap + size * step, step)
        for size, step, gap in zip(shape, steps, gaps, strict=True)
    )
    return random_bits(full, torch.float32).to(device)[where].permute(order)


@st.composite
def maps(draw: st.DrawFn, shape: tuple[int, ...]) -> dict[str, Any]:
    base = draw(st.one_of(st.integers(0, 300), st.integers(2**35 - 2000, 2**35 + 64)))
    kind = draw(st.sampled_from(["default", "shared", "shard", "any"]))
    if kind == "default":
        return {"mask_base": base}
    if kind == "any":
        stride = st.one_of(st.integers(0, 70), st.sampled_from([2**20, 2**33]))
        return {"mask_strides": [draw(stride) for _ in shape], "mask_base": base}
    whole = [size + draw(st.integers(0, 70)) for size in shape] if kind == "shard" else shape
    dims = [d for d in range(len(shape)) if draw(st.booleans())]
    return {"mask_strides": reference.broadcast_strides(whole, dims), "mask_base": base}


@pytest.mark.parametrize("inplace", [False, True])
def test_any_view_and_map(backend: torch.device, inplace: bool) -> None:
    @SETTINGS
    @given(st.data())
    def check(data: st.DataObject) -> None:
        x = data.draw(views(backend))
        mapping = data.draw(maps(tuple(x.shape)))
        p, rng_state = data.draw(probabilities), data.draw(states)
        expected = expected_dropout(
            x, p, rng_state, strides=mapping.get("mask_strides"), base=mapping["mask_base"]
        )
        op = dropout_ if inplace else ops.dropout
        assert_bits(op(x, p, state(rng_state, backend), **mapping), expected)

    check()


def test_any_mask(backend: torch.device) -> None:
    @SETTINGS
    @given(st.data())
    def check(data: st.DataObject) -> None:
        shape = data.draw(
            st.lists(sizes, max_size=4).filter(lambda s: np.prod(s, dtype=np.int64) <= 12000)
        )
        mapping = data.draw(maps(tuple(shape)))
        p, rng_state = data.draw(probabilities), data.draw(states)
        found = ops.dropout_mask(shape, p, state(rng_state, backend), **mapping)
        expected = expected_mask(
            shape, p, rng_state, strides=mapping.get("mask_strides"), base=mapping["mask_base"]
        )
        assert_bits(found, expected)

    check()


def test_expectation_survives_any_p(backend: torch.device) -> None:
    """Kept elements are scaled by exactly 1 / (1 - T / 2^32) of float64."""

    @SETTINGS
    @given(p=probabilities)
    def check(p: float) -> None:
        x = torch.ones(64, dtype=torch.float64, device=backend)
        y = to_bits(ops.dropout(x, p, state((1, 2), backend))).view(np.float64)
        if reference.threshold(p) < reference.ONE:
            assert set(y.tolist()) <= {0.0, reference.scale(p)}

    check()
