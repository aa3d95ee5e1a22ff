"""A whole model, from torch's dropout to this package's and back."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypeVar

from torch import Generator, nn
from torch.nn.modules.dropout import _DropoutNd

from dropout_ext import modules
from dropout_ext._checks import UPSCALE
from dropout_ext._report import ConversionReport

Model = TypeVar("Model", bound=nn.Module)

_OURS: dict[type[nn.Module], type[nn.Module]] = {
    nn.Dropout: modules.Dropout,
    nn.Dropout1d: modules.Dropout1d,
    nn.Dropout2d: modules.Dropout2d,
    nn.Dropout3d: modules.Dropout3d,
    nn.AlphaDropout: modules.AlphaDropout,
    nn.FeatureAlphaDropout: modules.FeatureAlphaDropout,
    nn.MultiheadAttention: modules.MultiheadAttention,
}
_THEIRS = {ours: theirs for theirs, ours in _OURS.items()}


def convert_dropout(
    model: Model,
    *,
    generator: Generator | None = None,
    attention: bool = True,
    report: ConversionReport | None = None,
) -> Model:
    """Turns every dropout of torch.nn in a model into this package's, in place.

    The module objects remain: they change their class. So ``p``, ``inplace``, the training flag,
    hooks, names and whoever holds a reference are kept, and a model that is itself a dropout is
    converted too. Modules of exactly torch's classes are converted, and
    :class:`torch.nn.MultiheadAttention`, which drops attention weights by a function: a
    ``torch.nn.Transformer`` has all its dropouts replaced.

    Calls of ``torch.nn.functional.dropout`` in a forward are no modules and cannot be seen here;
    :class:`redirect_torch_dropout` serves them.

    Args:
        model: any module.
        generator: takes the place of the default generator in all that is converted or was before.
        attention: also convert nn.MultiheadAttention. In training with dropout it then
            materialises the attention weights, as torch does on the CPU; if False, it keeps torch's
            fused CUDA kernels and their masks.
        report: gets what was changed and what could not be. Without it, the latter is a warning.

    Returns:
        ``model``.

    Warns:
        UserWarning: without ``report``, if there is a dropout that could not be converted: that of
            a subclass, or inside the kernel of an nn.RNN, nn.LSTM or nn.GRU.
    """
    found = ConversionReport() if report is None else report
    for name, module in model.named_modules():
        before = type(module)
        if before in _OURS and _wanted(module, attention):
            module.__class__ = _OURS[before]
            if generator is not None:
                module.generator = generator
            found.changed[name] = before, type(module)
        elif generator is not None and before in _THEIRS:
            module.generator = generator
        elif reason := _obstacle(module, attention):
            found.unchanged[name] = reason
    if report is None:
        found.warn_of_unchanged()
    return model


def revert_dropout(model: Model, *, report: ConversionReport | None = None) -> Model:
    """The way back: turns this package's dropouts into those of torch.nn, in place.

    Generators are forgotten, as torch's dropouts have none.

    Args:
        model: any module.
        report: gets what was changed and what could not be. Without it, the latter is a warning.

    Returns:
        ``model``.

    Warns:
        UserWarning: without ``report``, if there is a dropout that torch.nn does not have:
            DropPath, StochasticDepth, DropConnect, a mode or broadcast_dims.
    """
    found = ConversionReport() if report is None else report
    for name, module in model.named_modules():
        before = type(module)
        if before in _THEIRS and not (reason := _without_counterpart(module)):
            vars(module).pop("generator", None)
            module.__class__ = _THEIRS[before]
            found.changed[name] = before, type(module)
        elif reason := _without_counterpart(module):
            found.unchanged[name] = reason
    if report is None:
        found.warn_of_unchanged()
    return model


def dropouts(model: nn.Module) -> Iterator[nn.Module]:
    """Every module that drops something by its training flag: ours and torch's."""
    for module in model.modules():
        if isinstance(module, modules.DropoutModule | _DropoutNd) or _inner_probability(module):
            yield module


def _inner_probability(module: nn.Module) -> float:
    """Of a dropout that is not a module but part of another module's forward."""
    inner = isinstance(module, nn.MultiheadAttention | nn.RNNBase)
    return float(module.dropout) if inner else 0.0  # type: ignore[arg-type]


def _wanted(module: nn.Module, attention: bool) -> bool:
    if isinstance(module, nn.MultiheadAttention):
        return attention and module.dropout > 0
    return True


def _obstacle(module: nn.Module, attention: bool) -> str | None:
    if isinstance(module, modules.DropoutModule | modules.MultiheadAttention):
        return None
    cls = type(module)
    if isinstance(module, nn.MultiheadAttention) and module.dropout > 0:
        if cls is nn.MultiheadAttention and not attention:
            return f"attention=False (dropout={module.dropout})"
        return f"{cls.__qualname__} is a subclass of torch.nn.MultiheadAttention"
    if isinstance(module, nn.RNNBase) and module.dropout > 0:
        return f"{cls.__qualname__} drops inside its kernel (dropout={module.dropout})"
    if isinstance(module, _DropoutNd) and cls not in _OURS:
        return f"{cls.__qualname__} is a subclass of torch's dropout with a forward of its own"
    return None


def _without_counterpart(module: nn.Module) -> str | None:
    if not isinstance(module, modules.DropoutModule):
        return None
    cls = type(module)
    if cls not in _THEIRS:
        return f"torch.nn has no {cls.__qualname__}"
    if isinstance(module, modules.Dropout) and module.mode != UPSCALE:
        return f"torch.nn.Dropout has no mode={module.mode!r}"
    if isinstance(module, modules.Dropout) and module.broadcast_dims != ():
        return f"torch.nn.Dropout has no broadcast_dims={module.broadcast_dims}"
    return None
