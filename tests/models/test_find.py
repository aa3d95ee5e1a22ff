"""find_torch_dropout: the random operators of torch in a training forward, by module.

Catches: one that is not seen, or seen where nothing is drawn; a model that is not as before.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

import dropout_ext


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(6)
        self.drop = nn.Dropout(0.3)
        self.none = nn.Dropout(0.0)
        self.attention = nn.MultiheadAttention(6, 2, dropout=0.3)
        self.lstm = nn.LSTM(6, 6, 2, dropout=0.3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.none(self.drop(self.norm(x)))
        x = self.attention(x, x, x, need_weights=False)[0] + torch.rand(()) * self.lstm(x)[0]
        return nn.functional.scaled_dot_product_attention(x, x, x)


def test_by_module_and_as_often_as_it_runs() -> None:
    found = dropout_ext.find_torch_dropout(Model(), torch.randn(5, 6))
    assert set(found) == {"", "drop", "attention", "lstm"}
    assert found[""] == ["aten.rand.default"]
    assert all(len(operators) >= 1 for operators in found.values())


def test_ours_are_not_torchs() -> None:
    model = nn.Sequential(dropout_ext.Dropout(0.3), dropout_ext.DropPath(0.3), nn.Dropout(0.0))
    assert dropout_ext.find_torch_dropout(model, torch.randn(5, 6)) == {}


def test_the_model_is_as_before() -> None:
    model = Model().eval()
    model.drop.train()
    state = {name: value.clone() for name, value in model.state_dict().items()}
    random, flags = torch.get_rng_state(), [module.training for module in model.modules()]
    dropout_ext.find_torch_dropout(model, torch.randn(5, 6, generator=torch.Generator()))
    assert torch.equal(torch.get_rng_state(), random)
    assert [module.training for module in model.modules()] == flags
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
    assert all(parameter.grad is None for parameter in model.parameters())


def test_attention_without_dropout_draws_nothing() -> None:
    """Its operators count as random whatever their p, which may be a default."""

    class Attending(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return nn.functional.scaled_dot_product_attention(x, x, x)

    assert dropout_ext.find_torch_dropout(Attending(), torch.randn(1, 2, 5, 6)) == {}


def test_buffers_of_every_kind() -> None:
    """Expanded ones cannot be written to; some forwards replace theirs."""

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("expanded", torch.zeros(1).expand(3))
            self.register_buffer("replaced", torch.zeros(3))

        def forward(self, x: Tensor) -> Tensor:
            self.replaced = self.replaced + x
            return x

    model = Model()
    before = model.replaced
    dropout_ext.find_torch_dropout(model, torch.ones(3))
    assert model.replaced is before and not before.any()
