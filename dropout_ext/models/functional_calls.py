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

from dropout_ext.integration.torch_private import TorchDropout
from dropout_ext.models.redirect import REDIRECTED

TRANSFORMERS = "the attention of transformers"
_RANDOM = "bernoulli", "bernoulli_", "native_dropout", "rand", "rand_like", "uniform_"


class Calls(NamedTuple):
    """What the code of a module calls, by name.

    Attributes:
        dropouts: of torch, reached from forward: functions, and modules that are made there.
        elsewhere: methods with a call of a dropout of torch that forward does not reach.
        masks: functions of torch by which code makes masks of its own, reached from forward.
    """

    dropouts: list[str]
    elsewhere: list[str]
    masks: list[str]


def calls_of(module: nn.Module) -> Calls:
    """Reads the code of a module.

    Followed are functions, also those that lie on the object, and methods of the module itself,
    from one to the next, but none of torch's, nor those of other modules, which are looked at by
    themselves. Not seen are functions in containers, those that are looked up by ``getattr``, and
    what happens in extensions.
    """
    found = _reached(module)
    within = set(map(id, found))
    table = _attention_table()
    dropouts = [TRANSFORMERS] if any(one is table for one in found) else []
    dropouts += sorted(filter(None, map(_target, found)))
    functions = [_names(one) for one in found if _is_followed(one)]
    masks = {name for names in functions for name in names.attributes}
    masks |= {_of_torch(one) for names in functions for one in names.objects}
    elsewhere = {
        name
        for cls in type(module).__mro__
        if not _is_of_torch(cls)
        for name, value in vars(cls).items()
        if name == "__call__" or not name.startswith("__")  # __init__ may store one for forward
        for one in _unwrapped(value)
        if id(one) not in within and any(map(_target, _names(one).objects))
    }
    return Calls(dropouts, sorted(elsewhere), sorted(masks.intersection(_RANDOM)))


def _reached(module: nn.Module) -> list[Any]:
    """Each function that forward reaches, and each other value that these refer to, once."""
    waiting, found = list[Any](), dict[int, Any]()
    waiting += _methods(module, "forward")
    for value in vars(module).values():
        waiting += _unwrapped(value)
    while waiting:
        one = waiting.pop()
        if id(one) in found:
            continue
        found[id(one)] = one
        if _is_followed(one):
            names = _names(one)
            for value in names.objects:
                waiting += [value, *_unwrapped(value)]
            for name in names.attributes:
                waiting += _methods(module, name)
    return list(found.values())


def _is_followed(found: Any) -> bool:
    return isinstance(found, FunctionType) and not _is_of_torch(found)


def _methods(module: nn.Module, name: str) -> Iterator[FunctionType]:
    """What an attribute of the class may be: its own, and those that it overrides."""
    for cls in type(module).__mro__:
        yield from _unwrapped(vars(cls).get(name))


def _unwrapped(value: Any) -> list[FunctionType]:
    """The functions that an object calls when it is called, or looked up on a module."""
    if isinstance(value, FunctionType):
        return [value]
    if isinstance(value, staticmethod | classmethod | MethodType):
        return _unwrapped(value.__func__)
    if isinstance(value, functools.partial | functools.partialmethod):
        return _unwrapped(value.func)
    if isinstance(value, property):
        return _unwrapped(value.fget)
    if isinstance(value, type) and issubclass(value, torch.autograd.Function):
        return _unwrapped(vars(value).get("forward"))
    if isinstance(value, nn.Module | type | ModuleType):
        return []
    call = vars(type(value)).get("__call__")
    return [call] if isinstance(call, FunctionType) else []


def _target(found: Any) -> str:
    if isinstance(found, type):
        return found.__name__ if issubclass(found, TorchDropout) and _is_of_torch(found) else ""
    try:
        return str(found.__name__) if found in REDIRECTED else ""
    except TypeError:  # it has no hash
        return ""


def _of_torch(found: Any) -> str:
    name = getattr(found, "__name__", "")
    return name if getattr(torch, name, None) is found else ""


def _attention_table() -> Any:
    """Where the models of transformers look their attention up, if there are any."""
    library = sys.modules.get("transformers.modeling_utils")
    return getattr(library, "ALL_ATTENTION_FUNCTIONS", library)


def _is_of_torch(found: Any) -> bool:
    return (getattr(found, "__module__", None) or "").partition(".")[0] == "torch"


class _Names(NamedTuple):
    """What a function refers to.

    Attributes:
        objects: the values of globals, of closure variables, of defaults, of what it imports, and
            of attributes of modules: for ``nn.functional.dropout`` all three.
        attributes: names that are looked up on anything else: on ``self``, for one.
    """

    objects: tuple[Any, ...]
    attributes: frozenset[str]


def _names(function: FunctionType) -> _Names:
    objects: list[Any] = [function.__wrapped__] if hasattr(function, "__wrapped__") else []
    objects += function.__defaults__ or ()
    objects += (function.__kwdefaults__ or {}).values()
    attributes: set[str] = set()
    cells = dict(zip(function.__code__.co_freevars, function.__closure__ or (), strict=True))
    for code in _codes(function.__code__):
        current: Any = None
        imported: Any = None
        for instruction in dis.get_instructions(code):
            operation, name = instruction.opname, instruction.argval
            if operation == "LOAD_GLOBAL":
                current = function.__globals__.get(name)
            elif operation in ("LOAD_DEREF", "LOAD_CLASSDEREF") and name in cells:
                current = _content(cells[name])
            elif operation == "IMPORT_NAME":
                imported = current = sys.modules.get(name)
            elif operation == "IMPORT_FROM":
                current = getattr(imported, name, None)
            elif operation in ("LOAD_ATTR", "LOAD_METHOD", "LOAD_SUPER_ATTR"):
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
