"""What keeps a draw in its place when a compiler rearranges the code around it.

For the same generator state the same bits, however the code is run: a compiled graph must draw as
often as the code it was traced from, in the same order, and must not draw again for the backward
pass. torch knows that of its own random operators only, so it is said here of ours:

- in a graph each draw names the one before it (``after``), so no two are alike and none can pass
  another;
- it counts as a side effect, so it is not dropped when its result is unused;
- its result, 16 bytes, is saved for the backward pass, never computed again, also within
  ``torch.utils.checkpoint``.
"""

import ctypes
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Generator, Tensor
from torch._functorch import config
from torch.fx import Graph, has_side_effect
from torch.fx.experimental.proxy_tensor import ProxyTorchDispatchMode
from torch.fx.traceback import get_current_meta
from torch.utils.checkpoint import SAC_IGNORED_OPS, CheckpointPolicy

from dropout_ext import _C

_draw_traced = torch.ops.dropout_ext.draw_traced
# At a budget of exactly 0 the partitioner saves inputs alone and would draw again.
_LEAST_BUDGET = 1e-12
_BUDGET_ANNOTATION = "_region_activation_memory_budget"
_last_draws: WeakKeyDictionary[Graph, Tensor] = WeakKeyDictionary()


def _registered(address: int) -> int:
    generator = ctypes.cast(address, ctypes.py_object).value
    assert isinstance(generator, Generator)
    return _C.register_generator(generator)


# torch.compiler.assume_constant_result, without the seconds that importing Dynamo takes.
_registered._dynamo_marked_constant = True  # type: ignore[attr-defined]


def traced_draw(input: Tensor, generator: Generator | None) -> Tensor:
    """A draw in code that Dynamo traces.

    It cannot put a generator into a graph, but turns ``id`` into a number and guards on the
    identity of the object. While the call lasts, that number is its address.
    """
    number = None if generator is None else _registered(id(generator))
    states: Tensor = _draw_traced(input.detach(), generator=number)
    return states


def _record(
    mode: ProxyTorchDispatchMode, func: Any, types: Any, args: Any = (), kwargs: Any = None
) -> Any:
    """How a draw is written into a graph."""
    kwargs = dict(kwargs or {})
    if func is torch.ops.dropout_ext.draw.default and kwargs.get("generator") is not None:
        kwargs["generator"] = _C.register_generator(kwargs["generator"])
    kwargs["batch"] = kwargs.get("batch") or None
    graph = mode.tracer.graph
    kwargs["after"] = _last_draws.get(graph)
    states: Any = mode.__torch_dispatch__(_draw_traced.default, types, args, kwargs)
    _last_draws[graph] = states
    node = next(iter(reversed(graph.nodes)))
    if node.target is not _draw_traced.default:
        raise RuntimeError(f"dropout: expected the draw at the end of the graph, but got {node}")
    node.meta["recompute"] = CheckpointPolicy.MUST_SAVE
    if config.activation_memory_budget == 0:
        node.meta["memory_budget"] = _LEAST_BUDGET
    if get_current_meta().get("custom", {}).get(_BUDGET_ANNOTATION) == 0:
        raise RuntimeError(
            "dropout: region_activation_memory_budget(0) would draw another mask for the backward "
            f"pass. Please use a small budget above 0, as {_LEAST_BUDGET}, which saves 16 bytes"
        )
    return states


def register(library: torch.library.Library) -> None:
    """For as long as the library lives."""
    has_side_effect(_draw_traced.default)
    SAC_IGNORED_OPS.add(_draw_traced.default)  # it would take back that the draw is to be saved
    for name in ("draw", "draw_traced"):
        torch.library.register_torch_dispatch(
            f"dropout_ext::{name}", ProxyTorchDispatchMode, _record, lib=library
        )
