"""The registered ops as compilers see them: schemas, fake kernels, autograd registration.

Catches: a fake kernel that promises another shape, stride or dtype than the real one gives; an op
that writes to an argument its schema calls pure; a random op that a compiler takes for a pure one.
"""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.library import opcheck

from dropout_ext import functional as F
from tests.helpers.compare import state
from tests.helpers.operators import dropout_

ops = torch.ops.dropout_ext
OPS = ("draw", "draw_traced", "dropout", "dropout_mask", "dropout_p", "fold_in")
DTYPES = [torch.float32, pytest.param(torch.bfloat16, marks=pytest.mark.thorough)]


def inputs(dtype: torch.dtype, device: torch.device, grad: bool) -> list[torch.Tensor]:
    plain = torch.randn(6, 7, dtype=dtype, device=device)
    found = [
        plain,
        plain.t(),
        plain[::2, 1:],
        torch.randn((), dtype=dtype, device=device),
        torch.randn(0, 3, dtype=dtype, device=device),
        torch.randn(2, 3, 4, 5, dtype=dtype, device=device).to(memory_format=torch.channels_last),
    ]
    return [x.detach().requires_grad_(grad) for x in found]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("grad", [False, True])
@pytest.mark.thorough
def test_opcheck_dropout(device: torch.device, dtype: torch.dtype, grad: bool) -> None:
    for x in inputs(dtype, device, grad):
        opcheck(ops.dropout.default, (x, 0.4, state((1, 2), device)))


@pytest.mark.parametrize("dtype", DTYPES)
def test_opcheck_dropout_with_a_map(device: torch.device, dtype: torch.dtype) -> None:
    x = torch.randn(6, 7, dtype=dtype, device=device, requires_grad=True)
    kwargs = {"mask_strides": [0, 1], "mask_base": 9}
    opcheck(ops.dropout.default, (x, 0.4, state((1, 2), device)), kwargs)


@pytest.mark.parametrize("grad", [False, True])
def test_opcheck_dropout_p(device: torch.device, grad: bool) -> None:
    """p as a tensor; the same values and derivatives as with the number."""
    x = torch.randn(6, 7, dtype=torch.float64, device=device, requires_grad=grad)
    p, number, rng_state = torch.tensor(0.4, dtype=torch.float64), 0.4, state((1, 2), device)
    for kwargs in ({}, {"mask_strides": [0, 1], "mask_base": 9, "scale": 0.7, "shift": 0.1}):
        opcheck(ops.dropout_p.default, (x, p, rng_state), kwargs)
        y, expected = (
            op(x, q, rng_state, **kwargs) for op, q in ((ops.dropout_p, p), (ops.dropout, number))
        )
        assert torch.equal(y, expected)
        if grad:
            weights = torch.randn_like(x)
            gradients = [
                torch.autograd.grad((v.sin() * weights).sum(), x)[0] for v in (y, expected)
            ]
            assert torch.equal(*gradients)
            assert torch.autograd.gradgradcheck(
                lambda t, k=kwargs: ops.dropout_p(t, p, rng_state, **k), x
            )


def test_dropout_p_errors() -> None:
    x, rng_state = torch.ones(3), state((1, 2))
    for p in (1.5, -0.1, float("nan")):
        with pytest.raises(ValueError, match="between 0 and 1, but got"):
            ops.dropout_p(x, torch.tensor(p), rng_state)
    for kind in ("cpu", "meta"):
        with pytest.raises(
            TypeError, match=r"tensor without dimensions, but got Float of shape \[1\]"
        ):
            ops.dropout_p(x.to(kind), torch.ones(1), rng_state.to(kind))


def test_opcheck_dropout_mask(device: torch.device) -> None:
    opcheck(ops.dropout_mask.default, ([6, 7], 0.4, state((1, 2), device)))
    kwargs = {"mask_strides": [0, 1], "mask_base": 9}
    opcheck(ops.dropout_mask.default, ([6, 7], 0.4, state((1, 2), device)), kwargs)


@pytest.mark.parametrize("batch", [(), (3,), (2, 0)])
def test_opcheck_fold_in(device: torch.device, batch: tuple[int, ...]) -> None:
    states = torch.arange(2 * math.prod(batch), device=device).view(*batch, 2)
    opcheck(ops.fold_in.default, (states, torch.ones(batch, dtype=torch.int64, device=device)))


@pytest.mark.parametrize("dtype", DTYPES)
def test_opcheck_draw(device: torch.device, dtype: torch.dtype) -> None:
    opcheck(ops.draw.default, (torch.ones(3, dtype=dtype, device=device),))


@pytest.mark.parametrize("kwargs", [{}, {"batch": [3, 2]}])
def test_opcheck_draw_traced(device: torch.device, kwargs: dict[str, Any]) -> None:
    x = torch.ones(3, device=device)
    opcheck(ops.draw_traced.default, (x,), kwargs)
    opcheck(ops.draw_traced.default, (x,), {**kwargs, "after": ops.draw(x)})


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("grad", [False, True])
def test_opcheck_dropout_of_a_batch(device: torch.device, dtype: torch.dtype, grad: bool) -> None:
    """A state for each sample; what vmap calls."""
    x = torch.randn(3, 6, 7, dtype=dtype, device=device).requires_grad_(grad)
    opcheck(ops.dropout.default, (x, 0.4, ops.draw(x, batch=[3])))


def test_schemas() -> None:
    tail = ", *, SymInt[]? mask_strides=None, SymInt mask_base=0"
    linear = f"{tail}, float? scale=None, float shift=0., float fill=0."
    assert {str(getattr(ops, name).default._schema) for name in OPS} == {
        "dropout_ext::draw(Tensor input, *, SymInt[] batch=[], Generator? generator=None) "
        "-> Tensor",
        "dropout_ext::draw_traced(Tensor input, *, SymInt[]? batch=None, int? generator=None, "
        "Tensor? after=None) -> Tensor",
        f"dropout_ext::dropout(Tensor input, float p, Tensor rng_state{linear}) -> Tensor",
        f"dropout_ext::dropout_mask(SymInt[] size, float p, Tensor rng_state{tail}) -> Tensor",
        f"dropout_ext::dropout_p(Tensor input, Tensor p, Tensor rng_state{linear}) -> Tensor",
        "dropout_ext::fold_in(Tensor rng_state, Tensor number) -> Tensor",
    }


def test_only_the_draw_is_random() -> None:
    """A compiler may compute a pure op again; it must not do so with the draw."""
    random = torch.Tag.nondeterministic_seeded
    assert random in ops.draw.default.tags
    assert random in ops.draw_traced.default.tags
    for op in (
        ops.dropout.default,
        ops.dropout_mask.default,
        ops.dropout_p.default,
        ops.fold_in.default,
    ):
        assert random not in op.tags


@pytest.mark.parametrize("kind", ["fake", "meta"])
def test_shape_without_data(kind: str) -> None:
    """Fake and meta tensors give what real ones would, and compute nothing."""
    layouts = {
        "contiguous": lambda x: x,
        "transposed": lambda x: x.transpose(1, 3),
        "channels last": lambda x: x.contiguous(memory_format=torch.channels_last),
        "steps": lambda x: x[:, ::2],
        "expanded": lambda x: x[:1].expand(5, -1, -1, -1),
    }
    for name, view in layouts.items():
        for dtype in (torch.float64, torch.bfloat16):
            real = F.dropout(view(torch.ones(2, 3, 4, 5, dtype=dtype)))
            empty = shape_of(kind, view, dtype)
            assert (empty.shape, empty.stride()) == (real.shape, real.stride()), name
            assert empty.dtype == dtype


def shape_of(kind: str, view: Any, dtype: torch.dtype) -> torch.Tensor:
    if kind == "meta":
        x = view(torch.ones(2, 3, 4, 5, dtype=dtype, device="meta"))
        found = F.dropout(x)
        assert found.device.type == "meta"
        return found
    with FakeTensorMode():
        return F.dropout(view(torch.ones(2, 3, 4, 5, dtype=dtype)))


@pytest.mark.parametrize("kind", ["fake", "meta"])
def test_in_place_without_data(kind: str) -> None:
    """The tensor itself, whose strides stay and whose version counts the change."""
    with FakeTensorMode() if kind == "fake" else torch.device("meta"):
        x = torch.ones(3, 4).t()
        assert F.dropout(x, inplace=True) is x
        assert x.stride() == (1, 4)
        assert x._version == 1


def test_fake_draw_takes_no_number() -> None:
    before = torch.get_rng_state()
    with FakeTensorMode():
        drawn = ops.draw(torch.ones(3))
        assert drawn.shape == (2,)
        assert drawn.dtype == torch.int64
    assert torch.equal(torch.get_rng_state(), before)


def test_fake_mask() -> None:
    with FakeTensorMode():
        mask = F.dropout_mask((3, 4), rng_state=torch.zeros(2, dtype=torch.int64))
        assert mask.shape == (3, 4)
        assert mask.dtype == torch.bool


@pytest.mark.parametrize("strides", [[1], [7, 1, 1], []])
def test_map_must_fit_the_shape(device: torch.device, strides: list[int]) -> None:
    rng_tensor = state((1, 2), device)
    bad = {"mask_strides": strides}
    x = torch.ones(6, 7, device=device)
    for call in (
        lambda: ops.dropout(x, 0.5, rng_tensor, **bad),
        lambda: dropout_(x, 0.5, rng_tensor, **bad),
        lambda: ops.dropout_mask([6, 7], 0.5, rng_tensor, **bad),
    ):
        with pytest.raises(ValueError, match="mask_strides must have one entry for each"):
            call()
    assert torch.equal(x, torch.ones_like(x))
