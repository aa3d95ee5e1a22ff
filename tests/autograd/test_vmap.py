"""torch.func.vmap: what a batch draws and which mask each sample has.

Catches: a mask that depends on the size of a batch that the function does not see; a draw that
happens where vmap was told to refuse randomness; samples that share a mask, or do not.
"""

from __future__ import annotations

import pytest
import torch
from torch.func import grad, vmap

import dropout_ext
from dropout_ext import functional as F
from tests.helpers.compare import assert_bits, random_bits, state

RNG_STATE = (55, 1)


def drop(x: torch.Tensor) -> torch.Tensor:
    return F.dropout(x, 0.4, rng_state=state(RNG_STATE, x.device))


@pytest.mark.parametrize("in_dim", [0, 1, -1])
@pytest.mark.parametrize("out_dim", [0, 1])
def test_vmap_is_a_loop(device: torch.device, in_dim: int, out_dim: int) -> None:
    """With one state every sample has the mask that it would have alone."""
    batch = random_bits((6, 7, 9), torch.float32).to(device)
    found = vmap(drop, in_dim, out_dim)(batch)
    alone = torch.stack([drop(sample) for sample in batch.unbind(in_dim)], out_dim)
    assert_bits(found, expected := alone.contiguous().view(torch.int32).cpu().numpy().view("u4"))
    assert expected.shape == found.shape


def test_vmap_over_states(device: torch.device) -> None:
    """A state for each sample."""
    states = torch.stack([state((seed, 3), device) for seed in range(5)])
    x = torch.ones(40, device=device)
    batch = torch.ones(5, 40, device=device)
    for in_dims, argument in (((None, 0), x), ((0, 0), batch)):
        found = vmap(lambda t, s: F.dropout(t, 0.5, rng_state=s), in_dims)(argument, states)
        alone = torch.stack([F.dropout(x, 0.5, rng_state=one) for one in states])
        assert torch.equal(found, alone)


def test_vmap_of_vmap(device: torch.device) -> None:
    batch = torch.ones(3, 4, 50, device=device)
    assert torch.equal(vmap(vmap(drop))(batch), drop(batch[0, 0]).expand(3, 4, 50))


def test_vmap_inplace(device: torch.device) -> None:
    def f(t: torch.Tensor) -> torch.Tensor:
        F.dropout(t, 0.4, inplace=True, rng_state=state(RNG_STATE, t.device))
        return t

    batch = torch.ones(3, 50, device=device)
    found = vmap(f)(batch)
    assert torch.equal(found, drop(torch.ones(50, device=device)).expand(3, 50))
    assert torch.equal(batch, found)


def test_vmap_inplace_with_drawn_masks(device: torch.device) -> None:
    """The masks are those of a loop over the samples."""
    batch = torch.ones(3, 50, device=device)
    torch.manual_seed(3)
    found = vmap(lambda t: F.dropout(t, inplace=True), randomness="different")(batch.clone())
    torch.manual_seed(3)
    assert torch.equal(found, torch.stack([F.dropout(sample) for sample in batch]))


def test_vmap_inplace_on_an_input_that_is_shared(device: torch.device) -> None:
    """Its masks would differ between the samples: an error, and the input as it was."""
    x, batch = torch.ones(50, device=device), torch.ones(3, device=device)
    with pytest.raises(RuntimeError, match="vmap"):
        vmap(lambda _: F.dropout(x, inplace=True), randomness="different")(batch)
    assert x.eq(1).all()


def test_vmap_randomness_error(device: torch.device) -> None:
    """torch's words, which its users look for, and then ours."""
    batch = torch.ones(3, 50, device=device)
    with pytest.raises(RuntimeError, match="called random operation") as theirs:
        vmap(torch.nn.functional.dropout)(batch)
    for call in (F.dropout, lambda _: dropout_ext.draw_rng_state(device=device)):
        with pytest.raises(RuntimeError, match="it is pure if it gets an rng_state") as ours:
            vmap(call)(batch)
        assert str(ours.value).startswith(str(theirs.value))


def test_vmap_randomness_same(device: torch.device) -> None:
    y = vmap(F.dropout, randomness="same")(torch.ones(3, 200, device=device))
    assert torch.equal(y[0], y[1])
    assert torch.equal(y[0], y[2])
    assert y.eq(0).any()


def test_vmap_randomness_different(device: torch.device) -> None:
    y = vmap(F.dropout, randomness="different")(torch.ones(3, 200, device=device))
    assert set(y.unique().tolist()) == {0.0, 2.0}
    assert not torch.equal(y[0], y[1])
    assert not torch.equal(y[1], y[2])


def test_batched_backward(device: torch.device) -> None:
    x = torch.ones(30, device=device, requires_grad=True)
    y = drop(x)
    (rows,) = torch.autograd.grad(y, x, torch.eye(30, device=device), is_grads_batched=True)
    assert torch.equal(rows, torch.diag(y.detach()))


@pytest.mark.parametrize("in_dim", [0, 1, 2, -1])
def test_vmap_different_is_a_loop(device: torch.device, in_dim: int) -> None:
    """The masks, and the generator afterwards, are those of a loop over the samples."""
    batch = torch.ones(5, 5, 5, device=device)
    torch.manual_seed(3)
    found = vmap(F.dropout, in_dim, in_dim, randomness="different")(batch)
    after = torch.rand(2)
    torch.manual_seed(3)
    alone = torch.stack([F.dropout(sample) for sample in batch.unbind(in_dim)], in_dim)
    assert torch.equal(found, alone)
    if device.type == "cpu":
        assert torch.equal(after, torch.rand(2))


def test_vmap_different_over_an_input_that_is_shared(device: torch.device) -> None:
    x, batch = torch.ones(200, device=device), torch.ones(3, device=device)
    y = vmap(lambda _: F.dropout(x), randomness="different")(batch)
    assert not torch.equal(y[0], y[1])
    same = vmap(lambda _: F.dropout(x), randomness="same")(batch)
    assert torch.equal(same[0], same[1])


@pytest.mark.parametrize("outer", ["same", "different"])
@pytest.mark.parametrize("inner", ["same", "different"])
def test_nested_randomness(device: torch.device, outer: str, inner: str) -> None:
    """Each level decides for its own dimension."""
    y = vmap(vmap(F.dropout, randomness=inner), randomness=outer)(
        torch.ones(3, 4, 100, device=device)
    )
    assert torch.equal(y[0, 0], y[1, 0]) == (outer == "same")
    assert torch.equal(y[0, 0], y[0, 1]) == (inner == "same")


def test_per_sample_gradients_of_drawn_masks(device: torch.device) -> None:
    """Each sample's gradient has the mask of its own forward pass."""
    weight, batch = torch.ones(200, device=device), torch.ones(4, 200, device=device)

    def loss(w: torch.Tensor, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        y = F.dropout(w * x, 0.5)
        return y.sum(), y

    found, y = vmap(grad(loss, has_aux=True), (None, 0), randomness="different")(weight, batch)
    assert torch.equal(found, y)
    assert not torch.equal(found[0], found[1])


def test_same_is_not_materialised(device: torch.device) -> None:
    """One state of 16 bytes serves the whole batch."""
    states: list[torch.Tensor] = []

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        states.append(tensor)
        return tensor

    x = torch.ones(50, 100, device=device, requires_grad=True)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        vmap(F.dropout, randomness="same")(x).sum().backward()
    assert sum(tensor.nbytes for tensor in states) == 16


def test_vmap_with_a_generator(device: torch.device) -> None:
    batch = torch.ones(3, 100, device=device)
    ours, theirs = (torch.Generator(device).manual_seed(5) for _ in range(2))
    found = vmap(lambda t: F.dropout(t, generator=ours), randomness="different")(batch)
    alone = torch.stack([F.dropout(sample, generator=theirs) for sample in batch])
    assert torch.equal(found, alone)
