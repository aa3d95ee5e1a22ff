"""What a model still draws from torch."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

from dropout_ext.integration.torch_private import TorchDispatchMode, arguments


def find_torch_dropout(model: nn.Module, *args: Any, **kwargs: Any) -> dict[str, list[str]]:
    """Runs one training forward and lists the random operators in it that are torch's.

    It sees what really runs: functional dropout, attention with dropout, layers that are skipped
    at random, noise. Random numbers of Python or NumPy it does not see. Parameters, buffers,
    training flags and the default generators are afterwards what they were; other generators that
    the model names are not.

    Args:
        model: any module.
        args, kwargs: of its forward.

    Returns:
        The operators by the name of the module that calls them, each as often as it ran. Empty if
        all that is random is this package's.
    """
    found: dict[str, list[str]] = {}
    with _as_it_was(model), _Watch(found) as watch, contextlib.ExitStack() as hooks:
        for name, module in model.named_modules():
            if isinstance(module, torch.jit.ScriptModule):  # it takes no such hook
                continue
            enter = module.register_forward_pre_hook(functools.partial(watch.enter, name))
            leave = module.register_forward_hook(watch.leave, always_call=True)
            hooks.callback(enter.remove)
            hooks.callback(leave.remove)
        model(*args, **kwargs)
    return found


class _Watch(TorchDispatchMode):
    supports_higher_order_operators = True

    def __init__(self, found: dict[str, list[str]]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.found, self.within = found, [""]

    def enter(self, name: str, *_: object) -> None:
        self.within.append(name)

    def leave(self, *_: object) -> None:
        self.within.pop()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if _draws(func, args, kwargs):
            self.found.setdefault(self.within[-1], []).append(str(func))
        return func(*args, **kwargs)


def _draws(func: Any, args: Any, kwargs: Any) -> bool:
    """Whether an operator of torch draws random numbers in this call."""
    if func.namespace == "dropout_ext" or torch.Tag.nondeterministic_seeded not in func.tags:
        return False
    given = arguments(func, args, kwargs)
    p = given.get("dropout_p", given.get("p"))
    return p != 0.0 and given.get("train", True) is not False


@contextlib.contextmanager
def _as_it_was(model: nn.Module) -> Iterator[None]:
    training = [(module, module.training) for module in model.modules()]
    buffers = [
        (module, name, buffer)
        for module in model.modules()
        for name, buffer in module.named_buffers(recurse=False)
    ]
    copies = {id(buffer): buffer.clone() for _, _, buffer in buffers}
    try:
        for module, name, buffer in buffers:
            setattr(module, name, copies[id(buffer)])
        with torch.random.fork_rng(), torch.no_grad():
            model.train()
            yield
    finally:
        for module, flag in training:
            module.training = flag
        for module, name, buffer in buffers:
            setattr(module, name, buffer)
