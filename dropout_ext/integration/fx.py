"""``torch.fx``: a module of this package is one call in a graph, as the modules of torch.nn are.

A tracer takes modules of torch.nn for leaves by the name of their Python module, and looks into all
others. It would find a function there and write down the training flag of this moment for good.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from torch import nn
from torch.fx import Proxy

Forward = TypeVar("Forward", bound=Callable[..., Any])

_leaves: set[Callable[..., Any]] = set()


def leaf(forward: Forward) -> Forward:
    """Marks the forward of a module that is one call in a graph; costs a call nothing."""
    _leaves.add(forward)
    return forward


def module_call(input: Any, *args: Any, **kwargs: Any) -> Proxy | None:
    """Writes the call of the module whose forward is being traced into the graph.

    Args:
        input, args, kwargs: of that forward.

    Returns:
        The result; None if ``input`` is no proxy, or the forward at work is not marked: a subclass
        has its own, or there is no module around the function.
    """
    if not isinstance(input, Proxy):
        return None
    tracer = input.tracer
    path = tracer.scope.module_path
    root = getattr(tracer, "root", None)
    if not path or not isinstance(root, nn.Module):
        return None
    if type(root.get_submodule(path)).forward not in _leaves:
        return None
    return tracer.create_proxy("call_module", path, (input, *args), kwargs)
