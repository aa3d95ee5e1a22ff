"""torch.fx: each module of this package is one call in a graph, as nn.Dropout is.

Catches: the training flag of the moment written into a graph, so that ``eval()`` changes nothing;
the forward of a subclass left out of the graph, or run twice.
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


class Plain(dropout_ext.Dropout):
    """Without a forward of its own."""


def family() -> dict[str, nn.Module]:
    return {
        "Dropout": dropout_ext.Dropout(),
        "in place": dropout_ext.Dropout(inplace=True),
        "classic": dropout_ext.Dropout(mode="downscale_in_infer"),
        "Dropout1d": dropout_ext.Dropout1d(),
        "Dropout2d": dropout_ext.Dropout2d(),
        "Dropout3d": dropout_ext.Dropout3d(),
        "AlphaDropout": dropout_ext.AlphaDropout(),
        "FeatureAlphaDropout": dropout_ext.FeatureAlphaDropout(),
        "DropPath": dropout_ext.DropPath(0.5),
        "StochasticDepth": dropout_ext.StochasticDepth(0.5, "row"),
        "a plain subclass": Plain(),
        "converted": dropout_ext.convert_dropout(nn.Dropout()),
    }


SHAPES = {"Dropout2d": (8, 8, 3, 3), "Dropout3d": (8, 8, 2, 2, 2)}


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("name", family())
def test_training_flag_stays_alive(name: str, training: bool) -> None:
    model = nn.Sequential(nn.Identity(), family()[name]).train(training)
    graph = torch.fx.symbolic_trace(model)
    assert [node.target for node in graph.graph.nodes if node.op == "call_module"] == ["0", "1"]
    x = torch.ones(SHAPES.get(name, (8, 8, 4)))
    for traced in (graph, copy.deepcopy(graph)):
        for mode in (True, False):
            torch.manual_seed(3)
            expected = model.train(mode)(x.clone())
            torch.manual_seed(3)
            assert torch.equal(traced.train(mode)(x.clone()), expected)


class Attending(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attention = dropout_ext.MultiheadAttention(8, 2, dropout=0.5, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        output: Tensor = self.attention(x, x, x, need_weights=False)[0]
        return output


@pytest.mark.parametrize("training", [True, False])
def test_attention(training: bool) -> None:
    model = Attending().train(training)
    graph, x = torch.fx.symbolic_trace(model), torch.randn(2, 5, 8)
    for mode in (True, False):
        torch.manual_seed(3)
        expected = model.train(mode)(x)
        torch.manual_seed(3)
        assert torch.equal(graph.train(mode)(x), expected)


class Doubling(dropout_ext.Dropout):
    def forward(self, input: Tensor, **state: Any) -> Tensor:
        return super().forward(input * 2, **state)


def test_forward_of_a_subclass_is_traced() -> None:
    """As one of nn.Dropout is: what it does stands in the graph, once."""
    x, state = torch.ones(4, 8), dropout_ext.rng_state(1)

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.drop = Doubling()

        def forward(self, x: Tensor) -> Tensor:
            return self.drop(x, rng_state=state)

    graph = torch.fx.symbolic_trace(Model())
    assert not [node for node in graph.graph.nodes if node.op == "call_module"]
    assert torch.equal(graph(x), F.dropout(2 * x, rng_state=state))


def test_state_is_an_argument_of_the_call() -> None:
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.drop = dropout_ext.Dropout()

        def forward(self, x: Tensor, state: Tensor) -> Tensor:
            return self.drop(x, rng_state=state)

    graph, x, state = torch.fx.symbolic_trace(Model()), torch.ones(4, 8), dropout_ext.rng_state(1)
    assert torch.equal(graph(x, state), F.dropout(x, rng_state=state))


def test_folded_state() -> None:
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.drop = dropout_ext.Dropout()

        def forward(self, x: Tensor, state: Tensor) -> Tensor:
            return self.drop(x, rng_state=dropout_ext.fold_in(state, 3))

    graph, x, state = torch.fx.symbolic_trace(Model()), torch.ones(4, 8), dropout_ext.rng_state(1)
    expected = F.dropout(x, rng_state=dropout_ext.fold_in(state, 3))
    assert torch.equal(graph(x, state), expected)


def test_function_stays_a_function() -> None:
    """In the forward of a module that is none of ours."""

    class Model(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return F.dropout(x, 0.5, self.training)

    (call,) = (n for n in torch.fx.symbolic_trace(Model()).graph.nodes if n.op == "call_function")
    assert call.target is F.dropout


@pytest.mark.thorough
def test_prepared_for_quantization() -> None:
    """Its tracer decides for itself what is a leaf."""
    quantization = pytest.importorskip("torch.ao.quantization.quantize_fx")
    from torch.ao.quantization import get_default_qat_qconfig_mapping

    x = torch.randn(4, 8)
    model = dropout_ext.convert_dropout(nn.Sequential(nn.Linear(8, 8), nn.Dropout(), nn.ReLU()))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of its end
        mapping = get_default_qat_qconfig_mapping("x86")
        prepared = quantization.prepare_qat_fx(model.train(), mapping, (x,))

    def draws() -> bool:  # the observers of the values go on in evaluation, and change them
        before = torch.get_rng_state()
        prepared(x)
        return not torch.equal(torch.get_rng_state(), before)

    assert draws()
    prepared.eval()
    assert not draws()
