"""Which modules of a model drop something, and which class of ours stands for which of theirs."""

from __future__ import annotations

from collections.abc import Iterator

from torch import nn

from dropout_ext import modules
from dropout_ext.integration.torch_private import TorchDropout
from dropout_ext.models.namesakes import namesakes
from dropout_ext.models.redirected import Redirected

_OURS: dict[type[nn.Module], type[nn.Module]] = {
    nn.Dropout: modules.Dropout,
    nn.Dropout1d: modules.Dropout1d,
    nn.Dropout2d: modules.Dropout2d,
    nn.Dropout3d: modules.Dropout3d,
    nn.AlphaDropout: modules.AlphaDropout,
    nn.FeatureAlphaDropout: modules.FeatureAlphaDropout,
    nn.MultiheadAttention: modules.MultiheadAttention,
}

CONVERTED = "converted_by_dropout_ext"
"""Attribute of a MultiheadAttention that a conversion made, whose attention is its choice."""


def counterparts() -> dict[type[nn.Module], type[nn.Module]]:
    """Our class for each of torch.nn, and of timm and torchvision where they are imported."""
    return {**_OURS, **namesakes()}


def become(module: nn.Module, cls: type[nn.Module]) -> None:
    """Changes the class of a module, and the name of what the two classes call differently."""
    own = vars(module)
    if cls is modules.DropPath:
        own["p"] = own.pop("drop_prob")
    elif type(module) is modules.DropPath:
        own["drop_prob"] = own.pop("p")
    module.__class__ = cls


def is_ours(module: nn.Module) -> bool:
    return isinstance(module, modules.DropoutModule | modules.MultiheadAttention)


def inner_probability(module: nn.Module) -> float:
    """That of a dropout which is no module but part of another module's forward, else 0."""
    if not isinstance(module, nn.MultiheadAttention | nn.RNNBase):
        return 0.0
    if isinstance(module, nn.RNNBase) and module.num_layers == 1:
        return 0.0
    p = module.dropout  # a subclass may put a module there
    return float(p) if isinstance(p, int | float) else 0.0


def dropouts(model: nn.Module) -> Iterator[nn.Module]:
    """Every module that drops something by its training flag, also in a function it calls."""
    by_class = modules.DropoutModule | TorchDropout | Redirected
    for module in model.modules():
        if isinstance(module, by_class) or inner_probability(module):
            yield module
