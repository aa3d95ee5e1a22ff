"""Attention: the dropout of its weights is ours, all else is torch's.

Catches: weights that are not dropped, dropped before the softmax, or with torch's mask; an argument
of torch's function that is lost; NaN where a query attends to nothing; another dtype than torch's.
"""

from __future__ import annotations

import copy
import sys
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import dropout_ext
from dropout_ext import functional as F
from dropout_ext.models import transformers
from tests.helpers.models import step


def test_the_weights_are_dropped() -> None:
    """Output and gradients are those of dropout between softmax and product, from the same draw."""
    leaves = [torch.randn(2, 3, size, 8, dtype=torch.float64) for size in (5, 7, 7)]

    def by_hand(q: Tensor, k: Tensor, v: Tensor, generator: torch.Generator) -> Tensor:
        weights = (q @ k.transpose(-2, -1) / 8**0.5).softmax(-1)
        return F.dropout(weights, 0.5, generator=generator) @ v

    def ours(q: Tensor, k: Tensor, v: Tensor, generator: torch.Generator) -> Tensor:
        return F.scaled_dot_product_attention(q, k, v, dropout_p=0.5, generator=generator)

    found = []
    for function in (by_hand, ours):
        arguments = [leaf.clone().requires_grad_() for leaf in leaves]
        y = function(*arguments, torch.Generator().manual_seed(4))
        found.append([y, *torch.autograd.grad(y.square().sum(), arguments)])
    for expected, computed in zip(*found, strict=True):
        torch.testing.assert_close(computed, expected)


@pytest.mark.parametrize("need_weights", [True, False])
def test_module_drops_its_weights(need_weights: bool) -> None:
    """From its generator alone; the weights it returns are the dropped ones, as torch's are."""
    attention = dropout_ext.modules.MultiheadAttention(8, 2, dropout=0.5, batch_first=True)
    attention.generator = torch.Generator().manual_seed(3)
    x, default = torch.randn(2, 5, 8), torch.get_rng_state()
    y, weights = attention(x, x, x, need_weights=need_weights, average_attn_weights=False)
    assert torch.equal(torch.get_rng_state(), default)
    drawn = torch.Generator().manual_seed(3)
    q, k, v = (
        t.unflatten(-1, (2, 4)).transpose(1, 2)
        for t in nn.functional.linear(x, attention.in_proj_weight, attention.in_proj_bias).chunk(
            3, -1
        )
    )
    scores = (q @ k.transpose(-2, -1) / 2).softmax(-1)
    # With weights torch has (batch * head) as one dimension; the mask index is the same.
    expected = F.dropout(scores, 0.5, generator=drawn)
    out = attention.out_proj((expected @ v).transpose(1, 2).flatten(2))
    torch.testing.assert_close(y, out)
    if need_weights:
        torch.testing.assert_close(weights, expected)


@pytest.mark.parametrize("need_weights", [True, False])
@pytest.mark.parametrize("masked", ["", "bool", "float", "causal"])
def test_attention_without_dropping_is_torchs(need_weights: bool, masked: str) -> None:
    """With a p that drops nothing (but is not 0), ours computes what torch's does."""
    theirs = nn.MultiheadAttention(8, 2, dropout=1e-12, batch_first=True)
    ours = dropout_ext.convert_dropout(copy.deepcopy(theirs))
    x = torch.randn(3, 5, 8)
    mask: dict[str, Any] = {}
    above = torch.ones(5, 5, dtype=torch.bool).triu(1)
    if masked == "bool":
        mask = {"attn_mask": above}
    elif masked == "float":
        mask = {"attn_mask": torch.randn(5, 5)}
    elif masked == "causal":
        mask = {"attn_mask": above, "is_causal": True}
    expected = theirs(x, x, x, need_weights=need_weights, **mask)
    found = ours(x, x, x, need_weights=need_weights, **mask)
    torch.testing.assert_close(found[0], expected[0])
    if need_weights:
        torch.testing.assert_close(found[1], expected[1])


@pytest.mark.parametrize("mask", ["bool", "float"])
def test_attention_to_nothing(mask: str) -> None:
    """A padded sample gives zeros and no NaN, neither in the output nor in any gradient."""
    padding = torch.tensor([[False] * 5, [True] * 5])
    if mask == "float":
        padding = torch.zeros(2, 5).masked_fill(padding, float("-inf"))
    theirs = nn.TransformerEncoderLayer(8, 2, 16, dropout=1e-12, batch_first=True)
    ours = dropout_ext.convert_dropout(copy.deepcopy(theirs))
    x = torch.randn(2, 5, 8)
    for found, expected in zip(
        step(padded(ours, padding), x), step(padded(theirs, padding), x), strict=True
    ):
        assert expected.isfinite().all()
        torch.testing.assert_close(found, expected)


def padded(layer: nn.Module, padding: Tensor) -> nn.Module:
    """The layer with this padding, as a module of one input."""

    class Padded(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = layer

        def forward(self, x: Tensor) -> Tensor:
            result: Tensor = self.layer(x, src_key_padding_mask=padding)
            return result

    return Padded()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_attention_in_half_precision(dtype: torch.dtype) -> None:
    """As exact as torch's, under autocast too; and with scores that overflow float16."""
    attention = nn.functional.scaled_dot_product_attention
    for size, factor in ((64, 3), (7, 300)):
        query, key, value = (torch.randn(2, 3, size, 64).mul(factor).to(dtype) for _ in range(3))
        exact = attention(query.double(), key.double(), value.double())
        error = (attention(query, key, value) - exact).abs().mean()
        for enabled in (False, True):
            with torch.autocast("cpu", dtype, enabled=enabled):
                ours = F.scaled_dot_product_attention(query, key, value, dropout_p=1e-12)
            assert ours.dtype == dtype
            assert (ours - exact).abs().mean() <= 1.1 * error


def test_attention_under_autocast() -> None:
    """The dtype of torch's."""
    x = torch.randn(2, 5, 8)
    with torch.autocast("cpu", torch.bfloat16):
        for p in (0.0, 0.5):
            assert F.scaled_dot_product_attention(x, x, x, dropout_p=p).dtype == torch.bfloat16


@pytest.mark.parametrize(
    "wrong",
    [
        {"attn_mask": torch.ones(5, 5, dtype=torch.uint8)},
        {"attn_mask": torch.ones(5, 5, dtype=torch.float16)},
        {"attn_mask": torch.ones(3, 5, 5, dtype=torch.bool)},
        {"value": torch.ones(2, 5, 8, dtype=torch.float64)},
    ],
)
def test_attention_refuses_what_torch_does(wrong: dict[str, Any]) -> None:
    x = torch.randn(2, 5, 8)
    arguments = {"query": x, "key": x, "value": x, **wrong}
    for p in (0.0, 0.5):
        with pytest.raises(RuntimeError):
            F.scaled_dot_product_attention(dropout_p=p, **arguments)


def test_attention_takes_one_mask() -> None:
    x = torch.randn(2, 5, 8)
    for p in (0.0, 0.5):
        with pytest.raises(RuntimeError, match="attn_mask should not be set when is_causal"):
            F.scaled_dot_product_attention(
                x, x, x, torch.ones(5, 5, dtype=torch.bool), dropout_p=p, is_causal=True
            )


class Tagged(Tensor):
    pass


@pytest.mark.parametrize("need_weights", [True, False])
def test_attention_of_a_subclass(need_weights: bool) -> None:
    """What torch hands to a subclass, to be called again, still draws from our generator."""
    generator = torch.Generator().manual_seed(1)
    attention = dropout_ext.modules.MultiheadAttention(8, 2, dropout=0.5, generator=generator)
    x = torch.randn(5, 8).as_subclass(Tagged)
    default, own = torch.get_rng_state(), generator.get_state()
    attention(x, x, x, need_weights=need_weights)
    assert torch.equal(torch.get_rng_state(), default)
    assert not torch.equal(generator.get_state(), own)


def test_scaled_dot_product_attention() -> None:
    query, key, value = torch.randn(2, 4, 5, 8), torch.randn(2, 2, 6, 8), torch.randn(2, 2, 6, 3)
    arguments: dict[str, Any] = {"is_causal": True, "scale": 0.3, "enable_gqa": True}
    expected = nn.functional.scaled_dot_product_attention(query, key, value, **arguments)
    for p in (0.0, 1e-12):
        found = F.scaled_dot_product_attention(query, key, value, dropout_p=p, **arguments)
        torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("name", ["indices", "block_indices"])
def test_sparse_attention_of_transformers_is_refused(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its "sdpa" ignores which keys a query may attend to, and would attend to all of them."""

    class Interface(dict[str, Any]):
        register = dict.__setitem__

        def __call__(self) -> Interface:
            return self

    attention = Interface(sdpa=lambda module, **given: given)
    models = SimpleNamespace(AttentionInterface=attention)
    masks = SimpleNamespace(AttentionMaskInterface=Interface(sdpa=None))
    monkeypatch.setitem(sys.modules, "transformers.modeling_utils", models)
    monkeypatch.setitem(sys.modules, "transformers.masking_utils", masks)
    transformers.register_attention()
    ours = attention["dropout_ext"]
    assert ours(nn.Identity(), **{name: None}) == {name: None}
    with pytest.raises(ValueError, match=f"Identity hands {name} to attention of other names"):
        ours(nn.Identity(), **{name: torch.ones(1)})
