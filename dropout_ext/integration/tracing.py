"""Draws in compiled code: as many as in eager code, in the same order, none for backward.

torch keeps its own random operators in order; here ours are kept in order:

- each draw in a graph takes the previous draw as an input (``after``), so no two are equal and
  none passes another;
- a draw is a side effect, so it stays although nobody uses its result;
- its result, 16 bytes, is saved for backward and never recomputed, also within
  ``torch.utils.checkpoint``;
- what the backward pass draws is drawn there.
"""

from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Generator, Tensor
from torch.fx import Graph, has_side_effect
from torch.utils.checkpoint import CheckpointPolicy

from dropout_ext import _C
from dropout_ext.integration.torch_private import (
    BUDGET_ANNOTATION,
    SAC_IGNORED_OPS,
    ProxyTorchDispatchMode,
    assume_constant_result,
    current_graph_task_id,
    functorch_config,
    get_current_meta,
    local_of_caller,
    when_traced,
)

_draw_traced = torch.ops.dropout_ext.draw_traced
# At a budget of exactly 0 the partitioner saves inputs alone and would draw again.
_LEAST_BUDGET = 1e-12
_last_draws: WeakKeyDictionary[Graph, Tensor] = WeakKeyDictionary()
_numbers: dict[int, int] = {}  # of the generator at this address, while its call is traced


def _register(context: Any) -> None:
    generator = local_of_caller(context, "generator")
    _numbers[id(generator)] = _C.register_generator(generator)


@assume_constant_result
def _number_at(address: int) -> int:
    return _numbers.pop(address)


def traced_draw(input: Tensor, generator: Generator | None) -> Tensor:
    """The state of one call, drawn in code that is traced.

    Args:
        input: of the call; its device is that of the state.
        generator: to draw from; None for the default one.

    Returns:
        int64 tensor of shape [2].
    """
    if generator is None:
        number = None
    elif not torch.compiler.is_dynamo_compiling():
        number = _C.register_generator(generator)
    else:
        # A graph holds the number alone. Dynamo guards on the identity of what ``id`` is asked of.
        when_traced(_register)
        number = _number_at(id(generator))
    states: Tensor = _draw_traced(input, generator=number)
    return states


def _record(
    mode: ProxyTorchDispatchMode, func: Any, types: Any, args: Any = (), kwargs: Any = None
) -> Any:
    """Writes a draw into a graph."""
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
    if current_graph_task_id() != -1:  # else the partitioner moves it into the forward graph
        node.meta["partitioner_tag"] = "must_be_in_backward"
    if functorch_config.activation_memory_budget == 0:
        node.meta["memory_budget"] = _LEAST_BUDGET
    if get_current_meta().get("custom", {}).get(BUDGET_ANNOTATION) == 0:
        raise RuntimeError(
            "dropout: region_activation_memory_budget(0) would draw another mask for the backward "
            f"pass. Please use a small budget above 0, as {_LEAST_BUDGET}, which saves 16 bytes"
        )
    return states


def register(library: torch.library.Library) -> None:
    """Registers the tracing of draws for as long as the library lives."""
    has_side_effect(_draw_traced.default)
    SAC_IGNORED_OPS.add(_draw_traced.default)  # else a policy decides whether it is saved
    for name in ("draw", "draw_traced"):
        torch.library.register_torch_dispatch(
            f"dropout_ext::{name}", ProxyTorchDispatchMode, _record, lib=library
        )
