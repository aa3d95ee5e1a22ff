"""Which modules of a model drop something, and which class of ours stands for which of torch's."""

from __future__ import annotations

from collections.abc import Iterator

from torch import nn

from dropout_ext import modules
from dropout_ext.integration.torch_private import TorchDropout

OURS: dict[type[nn.Module], type[nn.Module]] = {
    nn.Dropout: modules.Dropout,
    nn.Dropout1d: modules.Dropout1d,
    nn.Dropout2d: modules.Dropout2d,
    nn.Dropout3d: modules.Dropout3d,
    nn.AlphaDropout: modules.AlphaDropout,
    nn.FeatureAlphaDropout: modules.FeatureAlphaDropout,
    nn.MultiheadAttention: modules.MultiheadAttention,
}
THEIRS = {ours: theirs for theirs, ours in OURS.items()}


def is_ours(module: nn.Module) -> bool:
    return isinstance(module, modules.DropoutModule | modules.MultiheadAttention)


def inner_probability(module: nn.Module) -> float:
    """That of a dropout which is no module but part of another module's forward, else 0."""
    inner = isinstance(module, nn.MultiheadAttention | nn.RNNBase)
    return float(module.dropout) if inner else 0.0  # type: ignore[arg-type]


def dropouts(model: nn.Module) -> Iterator[nn.Module]:
    """Every module that drops something by its training flag: ours and torch's."""
    for module in model.modules():
        if isinstance(module, modules.DropoutModule | TorchDropout) or inner_probability(module):
            yield module
