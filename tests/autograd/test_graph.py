"""The graph around dropout: how often it can be used, what flows through it, hooks, grad modes.

Catches: a second use of a freed graph; a gradient for what nobody used; a sparse or nested gradient
that loses its kind; a node that hooks do not see; a result that requires grad where it should not.
"""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch

from dropout_ext import functional as F
from tests.helpers import cases
from tests.helpers.compare import assert_bits, state, to_bits

RNG_STATE = (101, 7)


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
