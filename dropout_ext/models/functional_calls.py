"""Which modules call torch's dropout as a function: their code is read, nothing runs."""

from __future__ import annotations

import dis
import functools
import sys
from collections.abc import Iterator
from types import CodeType, FunctionType, MethodType, ModuleType
from typing import Any, NamedTuple

import torch
from torch import nn

from dropout_ext.models.redirect import REDIRECTED

TRANSFORMERS = "the attention of transformers"
_RANDOM = "bernoulli", "bernoulli_", "native_dropout", "rand", "rand_like"


class _Names(NamedTuple):
    """What a function refers to.

    Attributes:
        objects: the values of globals, of closure variables, and of their attributes: for
            ``nn.functional.dropout`` all three.
        attributes: names that are looked up on anything else: on ``self``, for one.
    """

    objects: tuple[Any, ...]
    attributes: frozenset[str]


def calls_of_torch_dropout(module: nn.Module) -> list[str]:
    """The dropouts of torch that the forward of a module reaches as functions, by name.

    Followed are functions and methods of the module itself, from one to the next, but none of
    torch's, nor those of other modules, which are looked at by themselves.
    """
    found = _reached(module)
    table = _attention_table()
    names = [TRANSFORMERS] if any(one is table for one in found) else []
    return names + sorted(filter(None, map(_target, found)))


def calls_outside_of_forward(module: nn.Module) -> list[str]:
    """The methods with a call of a dropout of torch that forward does not reach."""
    within = set(map(id, _reached(module)))
    return sorted({
        name
        for cls in type(module).__mro__
        if not _is_of_torch(cls)
        for name, value in vars(cls).items()
        if isinstance(value, FunctionType) and id(value) not in within
        if not name.startswith("__")  # as __init__, that may store one for forward
        if any(map(_target, _names(value).objects))
    })  # fmt: skip


def random_masks(module: nn.Module) -> list[str]:
    """The functions of torch by which code makes masks of its own, that forward reaches."""
    return sorted({
        name
        for found in _reached(module)
        if isinstance(found, FunctionType) and not _is_of_torch(found)
        for name in _names(found).attributes | {_random(one) for one in _names(found).objects}
        if name in _RANDOM
    })  # fmt: skip


def _target(found: Any) -> str:
    try:
        return str(found.__name__) if found in REDIRECTED else ""
    except TypeError:  # it has no hash
        return ""


def _random(found: Any) -> str:
    name = getattr(found, "__name__", "")
    return name if getattr(torch, name, None) is found else ""


def _attention_table() -> Any:
    """Where the models of transformers look their attention up, if there are any."""
    library = sys.modules.get("transformers.modeling_utils")
    return getattr(library, "ALL_ATTENTION_FUNCTIONS", library)


def _reached(module: nn.Module) -> list[Any]:
    """Each function that forward reaches, and each other value that these refer to, once."""
    waiting, found = list(_methods(module, "forward")), dict[int, Any]()
    while waiting:
        one = waiting.pop()
        if id(one) in found:
            continue
        found[id(one)] = one
        if isinstance(one, FunctionType) and not _is_of_torch(one):
            names = _names(one)
            waiting += names.objects
            for name in names.attributes:
                waiting += _methods(module, name)
    return list(found.values())


def _methods(module: nn.Module, name: str) -> Iterator[Any]:
    """What an attribute may be: the class's, those it overrides and the instance's."""
    yield from (vars(cls)[name] for cls in type(module).__mro__ if name in vars(cls))
    own = vars(module).get(name)
    if callable(own):
        yield own.__func__ if isinstance(own, MethodType) else own


def _is_of_torch(found: Any) -> bool:
    return (getattr(found, "__module__", None) or "").partition(".")[0] == "torch"


@functools.lru_cache(4096)
def _names(function: FunctionType) -> _Names:
    objects: list[Any] = [function.__wrapped__] if hasattr(function, "__wrapped__") else []
    attributes: set[str] = set()
    cells = dict(zip(function.__code__.co_freevars, function.__closure__ or (), strict=True))
    for code in _codes(function.__code__):
        current: Any = None
        for instruction in dis.get_instructions(code):
            name = instruction.argval
            if instruction.opname == "LOAD_GLOBAL":
                current = function.__globals__.get(name)
            elif instruction.opname in ("LOAD_DEREF", "LOAD_CLASSDEREF") and name in cells:
                current = _content(cells[name])
            elif instruction.opname in ("LOAD_ATTR", "LOAD_METHOD", "LOAD_SUPER_ATTR"):
                namespace = isinstance(current, ModuleType)  # a look at others may run code
                if not namespace:
                    attributes.add(name)
                current = getattr(current, name, None) if namespace else None
            else:
                continue
            if current is not None:
                objects.append(current)
    return _Names(tuple(objects), frozenset(attributes))


def _codes(code: CodeType) -> Iterator[CodeType]:
    """The code, and that of the functions defined in it."""
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _codes(constant)


def _content(cell: Any) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # not set yet
        return None
