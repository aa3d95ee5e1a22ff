"""Conversion of models written for torch.nn, redirection of functional calls, and the way back.

Catches: a dropout that keeps drawing from torch's kernels (a converted model must follow the given
generator alone); a lost p, inplace, flag or hook; a silent omission; attention without its mask.
"""

from __future__ import annotations

import copy
import warnings
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import dropout_ext
from dropout_ext import functional as F
from dropout_ext.modules import DropoutModule
from tests.helpers.models import Functional, ResNet, ViTBlock


class Translator(nn.Module):
    """nn.Transformer with one input."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Transformer(16, 2, 1, 1, 32, dropout=0.2, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.inner(x, x)
        return result


MODELS: dict[str, tuple[Any, tuple[int, ...]]] = {
    "Transformer": (Translator, (2, 5, 16)),
    "ResNet": (ResNet, (2, 3, 6, 6)),
    "ViT block": (ViTBlock, (2, 5, 16)),
    "Sequential": (lambda: nn.Sequential(nn.Linear(4, 4), nn.Dropout(0.5)), (3, 4)),
}


def step(model: nn.Module, x: Tensor) -> list[Tensor]:
    """Output and gradients of a training step."""
    model.zero_grad()
    y = model(x)
    y.square().sum().backward()
    return [y.detach(), *(p.grad.clone() for p in model.parameters() if p.grad is not None)]


@pytest.mark.parametrize("name", MODELS)
def test_every_dropout_follows_the_generator(name: str) -> None:
    """Reseeding it repeats the step, whatever the default generator does, which stays unused."""
    make, shape = MODELS[name]
    model, x, generator = make(), torch.randn(shape), torch.Generator()
    assert dropout_ext.convert_dropout(model, generator=generator) is model
    found = []
    with dropout_ext.redirect_torch_dropout(generator):  # timm's attention drops by a number
        for seed, default in [(1, 2), (1, 3), (2, 2)]:
            generator.manual_seed(seed)
            torch.manual_seed(default)
            before = torch.get_rng_state()
            found.append(step(model, x))
            assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(a, b) for a, b in zip(found[0], found[1], strict=True))
    assert not torch.equal(found[0][0], found[2][0])


def test_attention_is_converted_by_itself() -> None:
    """No context is needed for nn.MultiheadAttention."""
    model, x = Translator(), torch.randn(2, 5, 16)
    generator = torch.Generator().manual_seed(1)
    dropout_ext.convert_dropout(model, generator=generator)
    before = torch.get_rng_state()
    step(model, x)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("name", MODELS)
def test_evaluation_does_not_change(name: str) -> None:
    make, shape = MODELS[name]
    model, x = make().eval(), torch.randn(shape)
    expected = model(x)
    report = dropout_ext.ConversionReport()
    dropout_ext.convert_dropout(model, report=report)
    assert torch.equal(model(x), expected)
    assert report.changed and not report.unchanged
    assert all(not module.training for module in model.modules())
    dropout_ext.revert_dropout(model)
    assert torch.equal(model(x), expected)
    assert not any(isinstance(module, DropoutModule) for module in model.modules())


def test_report_names_what_changed() -> None:
    report = dropout_ext.ConversionReport()
    dropout_ext.convert_dropout(ResNet(), report=report)
    assert report.changed == {
        "layers.0.drop": (nn.Dropout2d, dropout_ext.Dropout2d),
        "layers.1.drop": (nn.Dropout2d, dropout_ext.Dropout2d),
        "head.0": (nn.Dropout, dropout_ext.Dropout),
    }
    assert "head.0: torch.Dropout -> dropout_ext.Dropout" in str(report)
    assert str(dropout_ext.ConversionReport()) == "no dropout found"


FAMILY = ["Dropout", "Dropout1d", "Dropout2d", "Dropout3d", "AlphaDropout", "FeatureAlphaDropout"]


@pytest.mark.parametrize("name", FAMILY)
def test_there_and_back(name: str) -> None:
    """p, inplace, flag, hooks, the object itself, also as the root of the model."""
    seen = []
    module = getattr(nn, name)(0.3, inplace=True).eval()
    module.register_forward_hook(lambda *_: seen.append(1))
    text = repr(module)
    same = dropout_ext.convert_dropout(module, generator=torch.Generator())
    assert same is module and type(module) is getattr(dropout_ext, name)
    assert (module.p, module.inplace, module.training, repr(module)) == (0.3, True, False, text)
    shape = {"Dropout1d": (2, 3), "Dropout3d": (2, 3, 4, 5)}.get(name, (2, 3, 4, 5))
    module.train()(torch.randn(shape))
    assert seen
    assert type(copy.deepcopy(module)) is type(module)
    assert dropout_ext.revert_dropout(module) is module
    assert type(module) is getattr(nn, name)
    assert (module.p, module.inplace, module.training) == (0.3, True, True)
    assert "generator" not in vars(module)


def test_instances_of_their_namesakes() -> None:
    """Code that looks for dropouts by class finds these."""
    for name in FAMILY:
        assert isinstance(getattr(dropout_ext, name)(), getattr(nn, name))


def test_generator_of_what_was_converted_before() -> None:
    generator = torch.Generator()
    model = dropout_ext.convert_dropout(nn.Sequential(nn.Dropout(0.3)))
    dropout_ext.convert_dropout(model, generator=generator)
    assert model[0].generator is generator


def test_shared_module_stays_shared() -> None:
    drop = nn.Dropout(0.3)
    model = dropout_ext.convert_dropout(nn.Sequential(drop, nn.ReLU(), drop))
    assert model[0] is model[2] is drop
    assert type(drop) is dropout_ext.Dropout


class Loud(nn.Dropout):
    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input) + 1


def test_what_cannot_be_converted_is_said() -> None:
    model = nn.ModuleDict({
        "lstm": nn.LSTM(4, 4, 2, dropout=0.5),
        "loud": Loud(0.5),
        "attention": nn.MultiheadAttention(4, 2, dropout=0.1),
        "fine": nn.LSTM(4, 4, 2),
    })  # fmt: skip
    report = dropout_ext.ConversionReport()
    dropout_ext.convert_dropout(model, attention=False, report=report)
    assert set(report.unchanged) == {"lstm", "loud", "attention"}
    assert "inside its kernel (dropout=0.5)" in report.unchanged["lstm"]
    assert not report.changed
    with pytest.warns(UserWarning, match="lstm: LSTM drops inside its kernel.*loud"):
        dropout_ext.convert_dropout(model)
    assert type(model["attention"]) is dropout_ext.modules.MultiheadAttention


def test_what_cannot_be_reverted_is_said() -> None:
    model = nn.ModuleDict({
        "path": dropout_ext.DropPath(0.1),
        "shared": dropout_ext.Dropout(0.1, broadcast_dims=0),
        "classic": dropout_ext.Dropout(0.1, mode="downscale_in_infer"),
        "plain": dropout_ext.Dropout(0.1),
    })  # fmt: skip
    with pytest.warns(UserWarning, match="DropPath.*broadcast_dims=.*mode='downscale_in_infer'"):
        dropout_ext.revert_dropout(model)
    assert type(model["plain"]) is nn.Dropout
    assert type(model["shared"]) is dropout_ext.Dropout


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


def test_functional_calls_are_redirected() -> None:
    """The same draws as calling ours, forward and backward; nothing outside the context."""
    model, x = Functional(), torch.randn(3, 4, 5, 6)

    def by_hand(t: Tensor) -> Tensor:
        t = F.dropout2d(F.dropout(t, 0.3), 0.3)
        t = F.feature_alpha_dropout(F.alpha_dropout(t, 0.3, True), 0.3, True)
        return F.dropout(F.dropout(t, 0.3), 0.3)

    found = []
    for function in (model, by_hand, model):
        torch.manual_seed(6)
        leaf = x.clone().requires_grad_()
        if len(found) == 0:
            with dropout_ext.redirect_torch_dropout():
                y = function(leaf)
        else:
            y = function(leaf)
        y.sum().backward()
        assert leaf.grad is not None
        found.append((y.detach(), leaf.grad))
    assert torch.equal(found[0][0], found[1][0])
    assert torch.equal(found[0][1], found[1][1])
    assert not torch.equal(found[0][0], found[2][0])


def test_redirection_serves_modules_and_ends_with_an_error() -> None:
    x = torch.ones(50)
    with pytest.raises(KeyError), dropout_ext.redirect_torch_dropout():
        raise KeyError
    torch.manual_seed(1)
    theirs = nn.Dropout()(x)
    torch.manual_seed(1)
    assert torch.equal(nn.functional.dropout(x), theirs)
    torch.manual_seed(1)
    ours = F.dropout(x)
    torch.manual_seed(1)
    with dropout_ext.redirect_torch_dropout():
        assert torch.equal(nn.Dropout()(x), ours)
        assert torch.equal(nn.Dropout().eval()(x), x)


def test_converted_transformer_compiles() -> None:
    torch._dynamo.reset()
    model, x = dropout_ext.convert_dropout(Translator()), torch.randn(2, 5, 16)
    function = torch.compile(model, backend="aot_eager", fullgraph=True)
    torch.manual_seed(1)
    expected = model(x)
    torch.manual_seed(1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert torch.equal(function(x), expected)
    torch._dynamo.reset()
