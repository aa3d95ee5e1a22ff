"""Monte Carlo dropout: on in evaluation, off again afterwards.

Catches: a flag left changed, also by an error; batch normalization switched to training; dropout
that a fused inference kernel leaves out; statistics that are not those of the passes.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn

import dropout_ext
from dropout_ext import mc_dropout, mc_predict


def models() -> dict[str, tuple[nn.Module, Tensor]]:
    layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.3, batch_first=True)
    return {
        "torch's": (nn.Sequential(nn.Linear(4, 9), nn.Dropout(0.5)), torch.randn(3, 4)),
        "ours": (nn.Sequential(nn.Linear(4, 9), dropout_ext.Dropout(0.5)), torch.randn(3, 4)),
        "DropConnect": (dropout_ext.drop_connect(nn.Linear(4, 9)), torch.randn(3, 4)),
        "DropPath": (nn.Sequential(nn.Linear(4, 9), dropout_ext.DropPath(0.5)), torch.randn(9, 4)),
        "alpha": (nn.Sequential(nn.SELU(), nn.AlphaDropout(0.5)), torch.randn(3, 4)),
        "attention, fused inference": (layer, torch.randn(2, 5, 8)),
    }


@pytest.mark.parametrize("name", models())
def test_on_inside_off_outside(name: str) -> None:
    model, x = models()[name]
    model.eval()
    with torch.no_grad():
        assert torch.equal(model(x), model(x))
        with mc_dropout(model) as same:
            assert same is model
            assert not torch.equal(model(x), model(x))
        assert torch.equal(model(x), model(x))


@pytest.mark.parametrize("fails", [True, False])
def test_every_flag_is_restored(fails: bool) -> None:
    model = nn.Sequential(
        nn.BatchNorm1d(4), nn.Dropout(), nn.LSTM(4, 4, 2, dropout=0.5), dropout_ext.Dropout(),
        dropout_ext.drop_connect(nn.Linear(4, 4)), nn.MultiheadAttention(4, 2, dropout=0.1),
    ).eval()  # fmt: skip
    model[3].train()
    flags = [module.training for module in model.modules()]
    fast_path = torch.backends.mha.get_fastpath_enabled()
    try:
        with mc_dropout(model):
            inside = {type(module).__name__ for module in model.modules() if module.training}
            if fails:
                raise KeyError
    except KeyError:
        assert fails
    assert inside == {"Dropout", "LSTM", "DropConnect", "MultiheadAttention"}
    assert [module.training for module in model.modules()] == flags
    assert torch.backends.mha.get_fastpath_enabled() == fast_path


def test_prediction_is_that_of_the_passes() -> None:
    model, x = models()["ours"]
    torch.manual_seed(2)
    with torch.no_grad(), mc_dropout(model.eval()):
        passes = torch.stack([model(x) for _ in range(7)])
    torch.manual_seed(2)
    mean, std = mc_predict(model, x, samples=7)
    torch.testing.assert_close(mean, passes.mean(0))
    torch.testing.assert_close(std, passes.std(0))
    torch.manual_seed(2)
    vmapped = mc_predict(model, x, samples=7, vmapped=True)
    torch.testing.assert_close(vmapped.mean, mean)
    torch.testing.assert_close(vmapped.std, std)
    assert not model.training and not mean.requires_grad


@pytest.mark.parametrize("vmapped", [True, False])
def test_prediction_has_the_moments_of_dropout(vmapped: bool) -> None:
    """Of x * Bernoulli(1 - p) / (1 - p): mean x, standard deviation x * (p / (1 - p))^1/2.

    400 passes of 5000 elements: the mean over all has a standard deviation of 0.0007, the mean
    standard deviation less; 0.01 is 14 of them.
    """
    mean, std = mc_predict(dropout_ext.Dropout(0.5), torch.ones(5000), samples=400, vmapped=vmapped)
    assert abs(mean.mean().item() - 1) < 0.01
    assert abs(std.mean().item() - 1) < 0.01
    assert std.min() > 0.8


@pytest.mark.parametrize("vmapped", [True, False])
def test_model_without_dropout_is_certain_and_said_so(vmapped: bool) -> None:
    model, x = nn.Linear(3, 3), torch.randn(2, 3)
    with pytest.warns(UserWarning, match="passes of Linear drew no random number.*on: none"):
        mean, std = mc_predict(model, x, samples=3, vmapped=vmapped)
    torch.testing.assert_close(mean, model(x))
    assert std.max() < 1e-6


class Functional(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.dropout(x, 0.5, self.training)


def test_functional_dropout_is_said() -> None:
    """It cannot be switched on, and the deviation would be 0 without a word."""
    with pytest.warns(
        UserWarning, match=r"passes of Functional drew.*torch\.nn\.functional\.dropout"
    ):
        mc_predict(Functional(), torch.ones(3))
    with (
        pytest.warns(UserWarning, match="mc_dropout: Functional has no dropout.*as a function"),
        mc_dropout(Functional()),
    ):
        pass


def test_own_generators_count_as_drawn() -> None:
    generator = torch.Generator().manual_seed(1)
    _, std = mc_predict(dropout_ext.Dropout(generator=generator), torch.ones(50))
    assert std.min() > 0


class DropPath(nn.Module):
    """As timm defines it."""

    def __init__(self, drop_prob: float) -> None:
        super().__init__()
        self.drop_prob = drop_prob

    def forward(self, x: Tensor) -> Tensor:
        keep = x.new_empty(len(x), 1).bernoulli_(1 - self.drop_prob)
        return x * keep / (1 - self.drop_prob) if self.training else x


@pytest.mark.parametrize("name", ["DropPath", "SwinDropPath", "StochasticDepth", "DropBlock2d"])
def test_dropouts_of_other_libraries_are_switched_on(name: str) -> None:
    model = nn.Sequential(nn.Linear(4, 4), type(name, (DropPath,), {})(0.5)).eval()
    _, std = mc_predict(model, torch.ones(30, 4))
    assert std.max() > 0
    assert not any(module.training for module in model.modules())


def test_timm() -> None:
    timm = pytest.importorskip("timm")
    model = timm.create_model("vit_tiny_patch16_224", num_classes=3, drop_path_rate=0.5, depth=2)
    _, std = mc_predict(model.eval(), torch.randn(2, 3, 224, 224), samples=4)
    assert std.max() > 0


def test_model_in_training_is_evaluated_and_restored() -> None:
    """Batch normalization neither takes the statistics of the batch nor updates its own."""
    model = nn.Sequential(nn.BatchNorm1d(4), nn.Dropout(), nn.Linear(4, 4), nn.BatchNorm1d(4))
    model[2].eval()
    flags = [module.training for module in model.modules()]
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    x = torch.randn(9, 4)
    torch.manual_seed(1)
    found = mc_predict(model, x)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert [module.training for module in model.modules()] == flags
    torch.manual_seed(1)
    expected = mc_predict(model.eval(), x)
    assert torch.equal(found.mean, expected.mean) and torch.equal(found.std, expected.std)


@pytest.mark.parametrize("vmapped", [True, False])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64])
def test_thousand_samples_in_every_dtype(dtype: torch.dtype, vmapped: bool) -> None:
    """The deviation of 2 Bernoulli(1/2) is 1, its mean 1; over 200 elements their means are
    within 0.002 of that, six deviations. Accumulated in bfloat16 the deviation was 0.71."""
    x = torch.ones(200, dtype=dtype)
    mean, std = mc_predict(
        dropout_ext.Dropout(0.5),
        x,
        samples=1000,
        vmapped=vmapped,
        chunk_size=300 if vmapped else None,
    )
    assert mean.dtype == std.dtype == dtype
    assert abs(std.double().mean().item() - 1) < 0.004
    assert abs(mean.double().mean().item() - 1) < 0.015


class Outputs(NamedTuple):
    logits: Tensor
    hidden: tuple[Tensor, dict[str, Any]]


class Tree(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.drop = dropout_ext.Dropout()

    def forward(self, x: Tensor, scale: float = 1.0) -> Outputs:
        y = self.drop(x)
        counts = {"count": (y > 0).sum(), "any": y > 0, "kept": 3, "name": "tree", "none": None}
        return Outputs(y * scale, (torch.complex(y, -y), counts))


@pytest.mark.parametrize(
    "options", [{}, {"vmapped": True}, {"vmapped": True, "chunk_size": 3}], ids=str
)
def test_trees(options: dict[str, Any]) -> None:
    """Types are kept; integers and booleans become numbers; what is no tensor stays in the mean."""
    x = torch.ones(40)
    torch.manual_seed(2)
    with torch.no_grad():
        passes = [Tree()(x, scale=3.0) for _ in range(8)]
    torch.manual_seed(2)
    found = mc_predict(Tree(), x, samples=8, return_samples=True, scale=3.0, **options)
    assert isinstance(found, dropout_ext.SampledPrediction)
    mean, std, samples = found
    assert type(mean) is type(std) is type(samples) is Outputs
    for read in (
        lambda o: o.logits,
        lambda o: o.hidden[0],
        lambda o: o.hidden[1]["count"],
        lambda o: o.hidden[1]["any"],
    ):
        stacked = torch.stack([read(output) for output in passes])
        assert torch.equal(read(samples), stacked)
        wide = stacked if stacked.is_floating_point() or stacked.is_complex() else stacked.float()
        torch.testing.assert_close(read(mean), wide.mean(0))
        torch.testing.assert_close(read(std), wide.std(0))
    assert [mean.hidden[1][name] for name in ("kept", "name", "none")] == [3, "tree", None]
    assert [std.hidden[1][name] for name in ("kept", "name", "none")] == [None] * 3


def test_transformers() -> None:
    transformers = pytest.importorskip("transformers")
    config = transformers.BertConfig(
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        vocab_size=9,
    )
    model = transformers.BertForSequenceClassification(config)
    batch = {"input_ids": torch.ones(2, 5, dtype=torch.long), "labels": torch.tensor([0, 1])}
    mean, std = mc_predict(model, **batch, samples=3)
    assert type(mean).__name__ == type(std).__name__ == "SequenceClassifierOutput"
    assert mean.logits.shape == (2, 2) and std.logits.max() > 0 and std.loss > 0


def test_names_of_the_model_do_not_collide() -> None:
    class Greedy(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.drop = dropout_ext.Dropout()

        def forward(self, x: Tensor, *, samples: int, generator: str, scale: float) -> Tensor:
            assert (samples, generator) == (5, "theirs")
            return self.drop(x) * scale

    theirs = {"samples": 5, "generator": "theirs"}
    mean, _ = mc_predict(Greedy(), torch.ones(3), samples=2, model_kwargs=theirs, scale=2.0)
    assert mean.shape == (3,)
    with pytest.raises(TypeError, match="by model_kwargs and by keyword: scale"):
        mc_predict(Greedy(), torch.ones(3), model_kwargs={"scale": 1.0}, scale=2.0)


@pytest.mark.parametrize("fails", [False, True])
def test_generator_takes_the_place_of_the_default_one(fails: bool) -> None:
    """Of every dropout, torch's and functional ones too; it moves on, the default one does not."""

    class Mixed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.ours, self.theirs = dropout_ext.Dropout(), nn.Dropout()

        def forward(self, x: Tensor) -> Tensor:
            if fails:
                raise KeyError
            return self.ours(self.theirs(nn.functional.dropout(x)))

    model, x, generator = Mixed(), torch.ones(60), torch.Generator().manual_seed(4)
    before = torch.get_rng_state()
    if fails:
        with pytest.raises(KeyError):
            mc_predict(model, x, generator=generator)
        assert torch.equal(torch.get_rng_state(), before)
        return
    first, second = (mc_predict(model, x, generator=generator) for _ in range(2))
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(4)
    assert torch.equal(mc_predict(model, x).std, first.std)
    assert torch.equal(mc_predict(model, x).std, second.std)
    assert not torch.equal(first.std, second.std)


def test_errors() -> None:
    with pytest.raises(ValueError, match="samples must be 2 or more, but got 1"):
        mc_predict(nn.Dropout(), torch.ones(3), samples=1)
    with pytest.raises(ValueError, match="but got 0 and vmapped=True"):
        mc_predict(nn.Dropout(), torch.ones(3), vmapped=True, chunk_size=0)
    with pytest.raises(ValueError, match="but got 3 and vmapped=False"):
        mc_predict(nn.Dropout(), torch.ones(3), chunk_size=3)
    with pytest.raises(TypeError, match=r"must be a torch\.nn\.Module"):
        mc_predict(torch.sin, torch.ones(3))


class Changing(nn.Module):
    """Returns its outputs one after the other."""

    def __init__(self, *outputs: Any) -> None:
        super().__init__()
        self.outputs = outputs
        self.calls = 0

    def forward(self) -> Any:
        self.calls += 1
        return self.outputs[(self.calls - 1) % len(self.outputs)]


def test_outputs_that_have_no_mean() -> None:
    with pytest.raises(TypeError, match="a tensor or a tree of tensors, but got str"):
        mc_predict(Changing("words"))
    for outputs in ((torch.ones(2), [torch.ones(2)]), ([torch.ones(2), 1.5], [torch.ones(2), 1.6])):
        with pytest.raises(RuntimeError, match="all passes must return one tree"):
            mc_predict(Changing(*outputs))
    with pytest.raises(RuntimeError, match=r"the same shapes, but got \[2\] and then \[3\]"):
        mc_predict(Changing(torch.ones(2), torch.ones(3)))


def test_functional_calls_of_a_converted_model() -> None:
    """Catches: flags of modules that redirect, or their generators, that are not looked at."""
    generator = torch.Generator().manual_seed(1)
    model = dropout_ext.convert_dropout(nn.Sequential(Functional()), generator=generator).eval()
    before = torch.get_rng_state()
    _, std = mc_predict(model, torch.ones(40))
    assert std.all() and not model[0].training
    assert torch.equal(torch.get_rng_state(), before)
