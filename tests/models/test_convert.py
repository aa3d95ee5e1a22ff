"""Conversion of models written for torch.nn, and the way back.

Catches: a dropout that keeps drawing from torch's kernels (a converted model must follow the given
generator alone); a lost p, inplace, flag or hook; a silent omission; a module that stays ours.
"""

from __future__ import annotations

import copy
import warnings
from typing import Any

import pytest
import torch
from torch import nn

import dropout_ext
from tests.helpers.models import ResNet, Translator, ViTBlock, step

MODELS: dict[str, tuple[Any, tuple[int, ...]]] = {
    "Transformer": (Translator, (2, 5, 16)),
    "ResNet": (ResNet, (2, 3, 6, 6)),
    "ViT block": (ViTBlock, (2, 5, 16)),
    "Sequential": (lambda: nn.Sequential(nn.Linear(4, 4), nn.Dropout(0.5)), (3, 4)),
}


@pytest.mark.parametrize("name", MODELS)
def test_every_dropout_follows_the_generator(name: str) -> None:
    """Reseeding it repeats the step, whatever the default generator does, which stays unused."""
    make, shape = MODELS[name]
    model, x, generator = make(), torch.randn(shape), torch.Generator()
    assert dropout_ext.convert_dropout(model, generator=generator) is model
    found = []
    with dropout_ext.redirect_torch_dropout(
        generator=generator
    ):  # timm's attention drops by a number
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
    """And every module has its class again afterwards."""
    make, shape = MODELS[name]
    model, x = make().eval(), torch.randn(shape)
    expected, classes = model(x), [type(module) for module in model.modules()]
    report = dropout_ext.ConversionReport()
    dropout_ext.convert_dropout(model, report=report)
    assert torch.equal(model(x), expected)
    assert report.changed and not report.unchanged
    assert all(not module.training for module in model.modules())
    dropout_ext.revert_dropout(model)
    assert torch.equal(model(x), expected)
    assert [type(module) for module in model.modules()] == classes


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


def test_attention_that_a_user_chose_stays() -> None:
    """A conversion changes the choice of conversions alone."""
    ours = dropout_ext.MultiheadAttention
    model = nn.Sequential(*(ours(8, 2, attention=a) for a in (False, "auto", True)))
    model.append(nn.MultiheadAttention(8, 2))
    for attention in (True, "auto", False):
        dropout_ext.convert_dropout(model, attention=attention)
        assert [layer.attention for layer in model] == [False, "auto", True, attention]
    dropout_ext.revert_dropout(dropout_ext.convert_dropout(model[3]))
    assert set(vars(model[3])) == set(vars(nn.MultiheadAttention(8, 2)))


def test_attention_there_and_back() -> None:
    """Dropout, weights, flag; the generator is forgotten."""
    module = nn.MultiheadAttention(8, 2, dropout=0.3).eval()
    weights, attributes = copy.deepcopy(module.state_dict()), set(vars(module))
    report = dropout_ext.ConversionReport()
    assert dropout_ext.convert_dropout(module, generator=torch.Generator()) is module
    assert type(module) is dropout_ext.modules.MultiheadAttention
    assert dropout_ext.revert_dropout(module, report=report) is module
    assert type(module) is nn.MultiheadAttention
    assert report.changed.keys() == {""} and not report.unchanged
    assert (module.dropout, module.training, set(vars(module))) == (0.3, False, attributes)
    for key, value in module.state_dict().items():
        assert torch.equal(value, weights[key])
    before = torch.get_rng_state()
    x = torch.randn(5, 8)
    module.train()(x, x, x)
    assert not torch.equal(torch.get_rng_state(), before), "the mask is not torch's again"


def test_instances_of_their_namesakes() -> None:
    """Code that looks for dropouts by class finds these."""
    for name in [*FAMILY, "MultiheadAttention"]:
        assert issubclass(getattr(dropout_ext.modules, name), getattr(nn, name))


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


def test_what_cannot_be_converted_is_said() -> None:
    model = nn.ModuleDict({
        "lstm": nn.LSTM(4, 4, 2, dropout=0.5),
        "attention": nn.MultiheadAttention(4, 2, dropout=0.1),
        "fine": nn.LSTM(4, 4, 2),
    })  # fmt: skip
    report = dropout_ext.ConversionReport()
    dropout_ext.convert_dropout(model, attention=False, report=report)
    assert set(report.unchanged) == {"lstm", "attention"}
    assert "inside its kernel (dropout=0.5)" in report.unchanged["lstm"]
    assert "attention=False" in report.unchanged["attention"]
    assert not report.changed
    with pytest.warns(UserWarning, match="lstm: LSTM drops inside its kernel"):
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


@pytest.mark.thorough
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
