"""Derivatives: the same operation on another tensor, with the same mask.

Catches: a backward that draws again; a gradient taken in memory order when it arrives expanded or
transposed; a second use of a freed graph; a gradient for what nobody used.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.autograd.forward_ad as fwAD

from dropout_ext import functional as F
from tests.helpers import cases
from tests.helpers.compare import assert_bits, expected_dropout, random_bits, state, to_bits

RNG_STATE = (101, 7)


@pytest.mark.parametrize("drawn", [True, False])
def test_backward_has_the_mask_of_forward(
    device: torch.device, dtype: torch.dtype, drawn: bool
) -> None:
    """With an explicit state and with a draw, also through 100 other draws in between."""
    x = torch.ones(3, 5001, dtype=dtype, device=device, requires_grad=True)
    y = F.dropout(x, 0.3, rng_state=None if drawn else state(RNG_STATE, device))
    for _ in range(100):
        F.dropout(x.detach())
    y.backward(torch.ones_like(y))
    assert x.grad is not None
    assert torch.equal(x.grad, y.detach())
    assert x.grad.eq(0).any()


def gradients(device: torch.device, dtype: torch.dtype) -> dict[str, torch.Tensor]:
    shape = (65, 130)
    return {
        "contiguous": random_bits(shape, dtype).to(device),
        "transposed": random_bits((130, 65), dtype).to(device).t(),
        "expanded scalar": torch.tensor(3.0, dtype=dtype, device=device).expand(shape),
        "expanded rows": random_bits((1, 130), dtype).to(device).expand(shape),
        "expanded columns": random_bits((65, 1), dtype).to(device).expand(shape),
        "steps": random_bits((130, 260), dtype).to(device)[::2, ::2],
        "offset": random_bits((65 * 130 + 1,), dtype).to(device)[1:].view(shape),
    }


@pytest.mark.parametrize("view", [lambda x: x, lambda x: x.t().contiguous().t()])
def test_gradients_of_any_layout(
    device: torch.device, dtype: torch.dtype, view: Callable[[torch.Tensor], torch.Tensor]
) -> None:
    """The gradient is the reference's output for the incoming one, Inf and NaN included."""
    for name, gradient in gradients(device, dtype).items():
        x = view(torch.ones(65, 130, dtype=dtype, device=device)).requires_grad_()
        y = F.dropout(x, 0.3, rng_state=state(RNG_STATE, device))
        (found,) = torch.autograd.grad(y, x, gradient)
        assert_bits(found, expected_dropout(gradient, 0.3, RNG_STATE), name)


def test_sum_backward(device: torch.device) -> None:
    x = torch.randn(40, 50, device=device, requires_grad=True)
    y = F.dropout(x, 0.4, rng_state=state(RNG_STATE, device))
    y.sum().backward()
    assert x.grad is not None
    expected = expected_dropout(torch.ones(40, 50), 0.4, RNG_STATE)
    assert_bits(x.grad, expected)


def test_double_backward_bits(device: torch.device) -> None:
    """d/dg of (mask g) . v is mask v."""
    x = torch.ones(500, device=device, requires_grad=True)
    g = torch.ones(500, device=device, requires_grad=True)
    v = random_bits((500,), torch.float32).to(device)
    y = F.dropout(x, 0.4, rng_state=state(RNG_STATE, device))
    (first,) = torch.autograd.grad(y, x, g, create_graph=True)
    assert first.requires_grad
    (second,) = torch.autograd.grad(first, g, v)
    assert_bits(second, expected_dropout(v, 0.4, RNG_STATE))


def test_forward_mode_bits(device: torch.device) -> None:
    x, tangent = (random_bits((500,), torch.float32, seed).to(device) for seed in (1, 2))
    with fwAD.dual_level():
        y = F.dropout(fwAD.make_dual(x, tangent), 0.4, rng_state=state(RNG_STATE, device))
        primal, found = fwAD.unpack_dual(y)
        assert_bits(primal, expected_dropout(x, 0.4, RNG_STATE))
        assert_bits(found, expected_dropout(tangent, 0.4, RNG_STATE))


def test_forward_mode_inplace_bits(device: torch.device) -> None:
    x, tangent = (random_bits((500,), torch.float32, seed).to(device) for seed in (1, 2))
    expected = [expected_dropout(t, 0.4, RNG_STATE) for t in (x, tangent)]
    with fwAD.dual_level():
        dual = fwAD.make_dual(x.clone(), tangent)
        F.dropout(dual, 0.4, inplace=True, rng_state=state(RNG_STATE, device))
        for found, bits in zip(fwAD.unpack_dual(dual), expected, strict=True):
            assert_bits(found, bits)


def test_forward_mode_inplace_on_a_view(device: torch.device) -> None:
    """What shares memory with the view sees its tangent changed too."""
    base, tangent = (random_bits((6, 50), torch.float32, seed).to(device) for seed in (1, 2))
    with fwAD.dual_level():
        dual = fwAD.make_dual(base.clone(), tangent.clone())
        F.dropout(dual[1::2], 0.4, inplace=True, rng_state=state(RNG_STATE, device))
        for found, before in zip(fwAD.unpack_dual(dual), (base, tangent), strict=True):
            assert_bits(found[1::2], expected_dropout(before[1::2], 0.4, RNG_STATE))
            assert_bits(found[::2], to_bits(before[::2]))


def test_forward_mode_draws_once(device: torch.device) -> None:
    x = torch.ones(500, device=device)
    with fwAD.dual_level():
        y = F.dropout(fwAD.make_dual(x, x.clone()), 0.4)
        primal, tangent = fwAD.unpack_dual(y)
        assert torch.equal(primal, tangent)


# The graph.


def test_retain_graph_and_free(device: torch.device) -> None:
    x = torch.ones(100, device=device, requires_grad=True)
    y = F.dropout(x, 0.5, rng_state=state(RNG_STATE, device))
    seed = torch.ones_like(y)
    (first,) = torch.autograd.grad(y, x, seed, retain_graph=True)
    (second,) = torch.autograd.grad(y, x, seed)
    assert torch.equal(first, second)
    with pytest.raises(RuntimeError, match="second time"):
        torch.autograd.grad(y, x, seed)


@pytest.mark.torch_kernels
@pytest.mark.parametrize("create_graph", [False, True])
def test_sparse_gradient(device: torch.device, create_graph: bool) -> None:
    """That of a sparse embedding whose weights are dropped; it stays sparse, as with torch's."""
    weight = torch.randn(20, 6, device=device, requires_grad=True)
    indices = torch.tensor([3, 7, 3, 11], device=device)
    rng_tensor = state((4, 0), device)
    gradients = []
    for sparse in (False, True):
        rows = torch.nn.functional.embedding(
            indices, F.dropout(weight, 0.5, rng_state=rng_tensor), sparse=sparse
        )
        (gradient,) = torch.autograd.grad(
            rows.square().sum() if create_graph else rows.sum(), weight, create_graph=create_graph
        )
        gradients.append(gradient)
    dense, sparse_gradient = gradients
    assert sparse_gradient.is_sparse
    assert torch.equal(sparse_gradient.to_dense(), dense)


def test_jagged_nested_tensor(device: torch.device) -> None:
    """The mask index is the position in the packed values; gradients flow through both."""
    rows = [torch.randn(3, 4, device=device), torch.randn(5, 4, device=device)]
    nested = torch.nested.nested_tensor(rows, layout=torch.jagged, requires_grad=True)
    rng_tensor = state((4, 0), device)
    y = F.dropout(nested, 0.5, rng_state=rng_tensor)
    expected = F.dropout(torch.cat(rows), 0.5, rng_state=rng_tensor)
    assert torch.equal(y.values(), expected)
    assert (y + nested).shape == nested.shape
    assert y._metadata_cache.keys() == nested._metadata_cache.keys()
    y.values().sum().backward()
    assert torch.equal(
        nested.grad.values(), F.dropout(torch.ones(8, 4, device=device), 0.5, rng_state=rng_tensor)
    )
    for wrong in ({"inplace": True}, {"broadcast_dims": 0}):
        with pytest.raises(RuntimeError, match="nested tensor"):
            F.dropout(nested, 0.5, **wrong)


def test_undefined_gradient(device: torch.device) -> None:
    """The other output is used, ours is not: an undefined gradient arrives, none leaves."""

    class Two(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, a: torch.Tensor, b: torch.Tensor) -> Any:
            ctx.set_materialize_grads(False)
            return a.clone(), b.clone()

        @staticmethod
        def backward(ctx: Any, *gradients: torch.Tensor | None) -> Any:
            return gradients

    x = torch.ones(5, device=device, requires_grad=True)
    other = torch.ones(5, device=device, requires_grad=True)
    y = F.dropout(x, 0.5)
    _, used = Two.apply(y, other)
    used.sum().backward()
    assert x.grad is None
    assert other.grad is not None


def test_tensor_and_node_hooks(device: torch.device) -> None:
    x = torch.ones(50, device=device, requires_grad=True)
    y = F.dropout(x, 0.5, rng_state=state(RNG_STATE, device))
    seen = []
    y.register_hook(lambda gradient: gradient * 3)
    assert y.grad_fn is not None
    y.grad_fn.register_hook(lambda inputs, _outputs: seen.append(inputs[0].clone()))
    y.sum().backward()
    assert x.grad is not None
    assert torch.equal(x.grad, 3 * y.detach())
    assert torch.equal(seen[0], x.grad)


def test_node_name_says_what_it_is() -> None:
    y = F.dropout(torch.ones(5, requires_grad=True))
    assert y.grad_fn is not None
    assert "dropout" in y.grad_fn.name().lower()


def test_chain(device: torch.device) -> None:
    """Several layers, each with its own mask; the product rule over them in bits."""
    x = torch.ones(3000, device=device, requires_grad=True)
    states = [(1, 2), (3, 4), (5, 6)]
    y = x
    for rng_state in states:
        y = F.dropout(y, 0.5, rng_state=state(rng_state, device))
    y.sum().backward()
    assert x.grad is not None
    assert torch.equal(x.grad, y.detach())
    assert set(y.tolist()) == {0.0, 8.0}


def test_backward_in_another_thread_keeps_the_mask(device: torch.device) -> None:
    import threading

    x = torch.ones(5000, device=device, requires_grad=True)
    y = F.dropout(x)
    thread = threading.Thread(target=lambda: y.backward(torch.ones_like(y)))
    thread.start()
    thread.join()
    assert x.grad is not None
    assert torch.equal(x.grad, y.detach())


# Grad modes.


def test_inference_mode(device: torch.device) -> None:
    rng_tensor = state(RNG_STATE, device)
    x = torch.ones(500, device=device, requires_grad=True)
    expected = to_bits(F.dropout(x, 0.5, rng_state=rng_tensor))
    with torch.inference_mode():
        y = F.dropout(x, 0.5, rng_state=rng_tensor)
        assert y.is_inference()
        assert not y.requires_grad
        inside = torch.ones(500, device=device)
        F.dropout(inside, 0.5, inplace=True, rng_state=rng_tensor)
        drawn = F.dropout(torch.ones(500, device=device))
    for found in (y, inside):
        assert_bits(found, expected)
    assert drawn.eq(0).any()


def test_requires_grad_follows_the_input(device: torch.device) -> None:
    for requires_grad, enabled in itertools.product((True, False), repeat=2):
        x = torch.ones(5, device=device, requires_grad=requires_grad)
        with torch.set_grad_enabled(enabled):
            assert F.dropout(x).requires_grad == (requires_grad and enabled)


def test_gradient_dtype_and_device(device: torch.device) -> None:
    for name in cases.DTYPES:
        x = torch.ones(5, dtype=getattr(torch, name), device=device, requires_grad=True)
        F.dropout(x).sum().backward()
        assert x.grad is not None
        assert x.grad.dtype == x.dtype
        assert x.grad.device == x.device
