"""A whole model, from the dropout of torch and its libraries to this package's."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Generator, nn
from torch.nn.utils import parametrize

from dropout_ext import modules
from dropout_ext.functional.attention_choice import Attention, check_attention
from dropout_ext.integration.torch_private import TorchDropout
from dropout_ext.models import transformers
from dropout_ext.models.counterparts import CONVERTED, become, counterparts, inner_probability
from dropout_ext.models.functional_calls import TRANSFORMERS, Calls, calls_of
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
      transformers are served by this, whatever attention they use. The calls are found by reading
      the code: through functions, methods and what lies on the object, but not in containers, in
      forward hooks, or behind ``getattr``. In evaluation nothing is redirected, so a dropout that
      is on there too draws from torch then.

    Convert a model when it is complete: what replaces modules or adds some, as loading by
    ``from_pretrained`` or adapters of peft do, comes before. :func:`find_torch_dropout` shows
    what a training forward still draws from torch.

    Args:
        model: any module.
        generator: takes the place of the default generator in every dropout that is converted, now
            or before, and in those of this package.
        attention: whether attention with dropout is ours too. ``"auto"``: on the CPU, where its
            weights are never held; on other devices it keeps torch's fused kernels and their
            masks. See docs/attention.md. A MultiheadAttention of this package that no conversion
            made keeps its own.
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
    known = counterparts()
    named = dict(model.named_modules())
    plans = {name: _plan(module, known, attention) for name, module in named.items()}
    for name, plan in plans.items():  # nothing is changed before all can be
        module = named[name]
        if plan.cls is not None:
            found.changed[name] = type(module), plan.cls
            _become(module, plan.cls, attention)
        if generator is not None and _give(module, generator):
            found.changed.setdefault(name, (type(module), type(module)))
        if plan.note:
            (found.notes if plan.cls is not None else found.unchanged)[name] = plan.note
        found.not_understood.update(_named(name, plan.puzzles))
    if report is None:
        found.warn_of_the_rest()
    return model


class _Plan(NamedTuple):
    """What becomes of a module.

    Attributes:
        cls: its class afterwards; None if it stays as it is.
        note: what more there is to say, or the reason if it stays torch's.
        puzzles: what looks like a dropout, and was not understood; by attribute, "" for all of it.
    """

    cls: type[nn.Module] | None = None
    note: str = ""
    puzzles: Mapping[str, str] = MappingProxyType({})


def _plan(
    module: nn.Module, known: Mapping[type[nn.Module], type[nn.Module]], attention: Attention
) -> _Plan:
    cls = type(module)
    if isinstance(module, Redirected | modules.MultiheadAttention):
        return _again(module, attention)
    if isinstance(module, modules.DropoutModule):
        return _Plan()
    if isinstance(module, torch.jit.ScriptModule):
        scripted = "aten::dropout" in str(getattr(module, "inlined_graph", ""))
        return _Plan(note="a dropout in TorchScript stays torch's" if scripted else "")
    if isinstance(module, nn.RNNBase):
        p = inner_probability(module)
        return _Plan(note=f"{cls.__qualname__} drops inside its kernel (dropout={p})" if p else "")
    if isinstance(module, nn.MultiheadAttention):
        calls = Calls(["multi_head_attention_forward"], [], [])
    elif isinstance(module, TorchDropout) or cls in known:
        calls = Calls(["dropout"], [], [])
    else:
        calls = calls_of(module)
    puzzles = _puzzles(module, calls)
    if not calls.dropouts:
        return _Plan(puzzles=puzzles)
    names = ", ".join(calls.dropouts)
    attends = not {*ATTENTION, TRANSFORMERS}.isdisjoint(calls.dropouts)
    if attention is False and set(calls.dropouts) <= {*ATTENTION, TRANSFORMERS}:
        drops = not isinstance(module, nn.MultiheadAttention) or inner_probability(module)
        note = f"attention=False ({cls.__qualname__} calls {names})" if drops else ""
        return _Plan(note=note, puzzles=puzzles)
    if "forward" in vars(module):
        return _Plan(note=f"the forward of this {cls.__qualname__} is replaced on the object")
    if parametrize.is_parametrized(module):
        return _Plan(note=f"{cls.__qualname__} is made by a parametrization: convert before it")
    notes = [] if cls in known else [f"redirects {names}"]
    if attends and attention is not True:
        notes.append("attention on the CPU alone" if attention else "attention stays torch's")
    return _Plan(known.get(cls) or redirected(cls), "; ".join(notes), puzzles)


def _again(module: nn.Module, attention: Attention) -> _Plan:
    """The plan for a module that is ours: the attention of a conversion may be another now."""
    if not isinstance(module, Redirected) and CONVERTED not in vars(module):
        return _Plan()  # attention is what its maker chose
    before = (module.dropout_ext if isinstance(module, Redirected) else module).attention
    if before == attention:
        return _Plan()
    return _Plan(type(module), f"attention={attention!r} instead of {before!r}")


def _become(module: nn.Module, cls: type[nn.Module], attention: Attention) -> None:
    become(module, cls)
    own: dict[str, Any] = vars(module)
    if isinstance(module, Redirected):
        own["dropout_ext"] = module.dropout_ext._replace(attention=attention)
    elif isinstance(module, nn.MultiheadAttention):
        own["attention"] = attention
        own[CONVERTED] = True


def _give(module: nn.Module, generator: Generator) -> bool:
    own: dict[str, Any] = vars(module)
    if isinstance(module, Redirected):
        own["dropout_ext"] = module.dropout_ext._replace(generator=generator)
    elif isinstance(module, modules.DropoutModule | modules.MultiheadAttention):
        own["generator"] = generator
    else:
        return False
    return True


def _puzzles(module: nn.Module, calls: Calls) -> dict[str, str]:
    if type(module).__module__.startswith("torch."):
        return {}
    cls = type(module).__qualname__
    puzzles = {
        method: f"a method of {cls} that calls torch's dropout outside of forward"
        for method in calls.elsewhere
    }
    if calls.masks:
        puzzles[""] = f"{cls} calls {', '.join(calls.masks)} of torch"
    elif not calls.dropouts and looks_like_dropout(module):
        puzzles[""] = f"{cls} is named like a dropout"
    elif not calls.dropouts:
        puzzles |= {
            attribute: f"{value} in {cls}, which calls no dropout of torch"
            for attribute, value in vars(module).items()
            if "drop" in attribute.lower() and isinstance(value, float) and 0.0 < value <= 1.0
        }
    return puzzles


def _named(name: str, puzzles: Mapping[str, str]) -> dict[str, str]:
    return {".".join(filter(None, (name, part))): what for part, what in puzzles.items()}
