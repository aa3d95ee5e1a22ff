"""A whole model, from the dropout of torch and its libraries to this package's."""

from __future__ import annotations

from typing import Any, NamedTuple, TypeVar

import torch
from torch import Generator, nn

from dropout_ext.functional.attention_choice import Attention, check_attention
from dropout_ext.integration.torch_private import TorchDropout
from dropout_ext.models import transformers
from dropout_ext.models.counterparts import become, counterparts, inner_probability, is_ours
from dropout_ext.models.functional_calls import (
    TRANSFORMERS,
    calls_of_torch_dropout,
    calls_outside_of_forward,
    random_masks,
)
from dropout_ext.models.namesakes import looks_like_dropout
from dropout_ext.models.redirect import ATTENTION
from dropout_ext.models.redirected import Redirected, redirected
from dropout_ext.models.report import ConversionReport

Model = TypeVar("Model", bound=nn.Module)


def convert_dropout(
    model: Model,
    *,
    generator: Generator | None = None,
    attention: Attention = "auto",
    report: ConversionReport | None = None,
) -> Model:
    """Turns the dropouts of a model into this package's, in place.

    Each module object stays and changes its class. So it keeps ``p``, ``inplace``, its training
    flag, hooks, name, references and keys in ``state_dict``, and a model that is itself a dropout
    is converted too. Converted are

    - the dropouts of torch.nn, ``timm.layers.DropPath`` and ``torchvision.ops.StochasticDepth``;
    - :class:`torch.nn.MultiheadAttention`;
    - every other module whose forward calls torch's dropout or attention as a function, in its own
      code or in functions and methods that it calls. Its class becomes a subclass of the same
      name, whose forward in training runs under :class:`redirect_torch_dropout`. Models of
      transformers are served by this, whatever attention they use.

    Convert a model when it is complete: what replaces modules or adds some, as loading by
    ``from_pretrained`` or adapters of peft do, comes before. :func:`find_torch_dropout` shows
    what a training forward still draws from torch.

    Args:
        model: any module.
        generator: takes the place of the default generator in every dropout that is converted, now
            or before, and in those of this package.
        attention: whether attention with dropout is ours too. ``"auto"``: on the CPU, where its
            weights are never held; on other devices it keeps torch's fused kernels and their
            masks. See docs/attention.md.
        report: receives what was changed, what was not and why, and what looks like a dropout and
            was not understood. Without it, the latter two are a warning.

    Returns:
        ``model``.

    Raises:
        ValueError: another value of ``attention``.

    Warns:
        UserWarning: without ``report``, if there is something that could not be converted: the
            dropout inside the kernel of an nn.RNN, nn.LSTM or nn.GRU, for one.
    """
    check_attention("convert_dropout", attention)
    transformers.register_attention()
    found = ConversionReport() if report is None else report
    for name, module in list(model.named_modules()):
        plan = _plan(module, attention, generator)
        if isinstance(plan, str):
            found.unchanged[name] = plan
        elif plan is not None:
            found.changed[name] = type(module), plan.cls
            if plan.note:
                found.notes[name] = plan.note
            _convert(module, plan.cls, attention, generator)
        found.not_understood.update(_puzzles(name, module, plan is not None))
    if report is None:
        found.warn_of_the_rest()
    return model


class _Plan(NamedTuple):
    cls: type[nn.Module]
    note: str


def _plan(
    module: nn.Module, attention: Attention, generator: Generator | None
) -> _Plan | str | None:
    """What becomes of a module; the reason if it cannot; None if it has no dropout."""
    cls = type(module)
    if is_ours(module) or isinstance(module, Redirected):
        return None if generator is None else _Plan(cls, "given the generator")
    if isinstance(module, torch.jit.ScriptModule):
        scripted = str(getattr(module, "inlined_graph", ""))
        return "a dropout in TorchScript stays torch's" if "aten::dropout" in scripted else None
    if isinstance(module, nn.RNNBase):
        p = inner_probability(module)
        return f"{cls.__qualname__} drops inside its kernel (dropout={p})" if p else None
    ours, calls = counterparts().get(cls), _calls(module)
    if not calls:
        return None
    if attention is False and set(calls) <= {*ATTENTION, TRANSFORMERS}:
        return f"attention=False ({cls.__qualname__} calls {', '.join(calls)})"
    if "forward" in vars(module):
        return f"the forward of this {cls.__qualname__} is replaced on the object"
    notes = [f"redirects {', '.join(calls)}"] if ours is None else []
    if attention == "auto" and not {*ATTENTION, TRANSFORMERS}.isdisjoint(calls):
        notes.append("attention on the CPU alone")
    return _Plan(ours or redirected(cls), "; ".join(notes))


def _calls(module: nn.Module) -> list[str]:
    """The functions of torch, by name, that drop something in the forward of a module."""
    if isinstance(module, nn.MultiheadAttention):
        return ["multi_head_attention_forward"] if inner_probability(module) else []
    if isinstance(module, TorchDropout) or type(module) in counterparts():
        return ["dropout"]
    return calls_of_torch_dropout(module)


def _convert(
    module: nn.Module, cls: type[nn.Module], attention: Attention, generator: Generator | None
) -> None:
    own: dict[str, Any] = vars(module)
    wrapped = issubclass(cls, Redirected)
    if cls is not type(module):
        become(module, cls)
        if wrapped or issubclass(cls, nn.MultiheadAttention):
            own["dropout_attention" if wrapped else "attention"] = attention
    if generator is not None:
        own["dropout_generator" if wrapped else "generator"] = generator


def _puzzles(name: str, module: nn.Module, understood: bool) -> dict[str, str]:
    """What looks like a dropout, and was not understood."""
    if is_ours(module) or type(module).__module__.startswith("torch."):
        return {}
    cls, start = type(module).__qualname__, f"{name}." if name else ""
    puzzles = {
        f"{start}{method}": f"a method of {cls} that calls torch's dropout outside of forward"
        for method in calls_outside_of_forward(module)
    }
    if masks := random_masks(module):
        puzzles[name] = f"{cls} calls {', '.join(masks)} of torch"
    elif not understood and looks_like_dropout(module):
        puzzles[name] = f"{cls} is named like a dropout"
    elif not understood:
        puzzles |= {
            f"{start}{attribute}": f"{value} in {cls}, which calls no dropout of torch"
            for attribute, value in vars(module).items()
            if "drop" in attribute.lower() and isinstance(value, float) and 0.0 < value <= 1.0
        }
    return puzzles
