"""Monte Carlo dropout: on in evaluation, off again afterwards.

Catches: a flag left changed, also by an error; batch normalization switched to training; dropout
that a fused inference kernel leaves out; statistics that are not those of the passes.
"""

from __future__ import annotations

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


def test_model_without_dropout_is_certain() -> None:
    model, x = nn.Linear(3, 3), torch.randn(2, 3)
    for vmapped in (True, False):
        mean, std = mc_predict(model, x, samples=3, vmapped=vmapped)
        torch.testing.assert_close(mean, model(x))
        assert std.max() < 1e-6


def test_errors() -> None:
    with pytest.raises(ValueError, match="samples must be 2 or more, but got 1"):
        mc_predict(nn.Dropout(), torch.ones(3), samples=1)
    with pytest.raises(TypeError, match=r"must be a torch\.nn\.Module"):
        mc_predict(torch.sin, torch.ones(3))
    with pytest.raises(TypeError, match="must return a tensor, but got tuple"):
        mc_predict(nn.LSTM(3, 3), torch.ones(2, 3))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_statistics_of_16_bits(dtype: torch.dtype) -> None:
    """Sums of many passes in 16 bits would stand still, or overflow: 200 times 100^2."""
    torch.manual_seed(0)
    model = dropout_ext.Dropout(0.1)
    mean, std = dropout_ext.mc_predict(model, torch.full((1000,), 100.0, dtype=dtype), samples=200)
    assert mean.dtype == std.dtype == dtype
    assert abs(mean.float().mean() - 100) < 0.5
    assert abs(std.float().mean() - 100 / 3) < 0.5
