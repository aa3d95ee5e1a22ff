"""Every private or undocumented name of torch that this package touches, under a plain name.

``PURPOSES`` says what each is for; a test looks each of them up, and names the one that is gone.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from torch import Tensor
from torch._C import DisableTorchFunctionSubclass, DispatchKey, DispatchKeySet
from torch._C import _current_graph_task_id as current_graph_task_id
from torch._C import _ExcludeDispatchKeyGuard as ExcludeDispatchKeyGuard
from torch._C._autograd import (
    _top_saved_tensors_default_hooks as top_saved_tensors_hooks,
)
from torch._C._functorch import TransformType
from torch._C._functorch import _add_batch_dim as add_batch_dim
from torch._C._functorch import get_interpreter_stack as interpreter_stack
from torch._functorch import config as functorch_config
from torch._functorch.pyfunctorch import VmapInterpreter
from torch._functorch.pyfunctorch import (
    retrieve_current_functorch_interpreter as current_interpreter,
)
from torch._functorch.vmap import unwrap_batched
from torch.fx.experimental.proxy_tensor import ProxyTorchDispatchMode
from torch.fx.traceback import get_current_meta
from torch.nn.modules.dropout import _DropoutNd as TorchDropout
from torch.overrides import _get_current_function_mode_stack as active_function_modes
from torch.utils import _pytree as pytree
from torch.utils import checkpoint as checkpoint_module
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.checkpoint import SAC_IGNORED_OPS
from torch.utils.checkpoint import _checkpoint_hook as checkpoint_hook
from torch.utils.checkpoint import (
    _checkpoint_without_reentrant_generator as checkpoint_entry,
)

Function = TypeVar("Function", bound=Callable[..., Any])

PURPOSES = {
    "torch._C.DispatchKey": "vmap: names the mode's key",
    "torch._C.DispatchKeySet": "vmap: the key to leave out",
    "torch._C.DisableTorchFunctionSubclass": "DropConnect: a guarded weight as a plain tensor",
    "torch._C._ExcludeDispatchKeyGuard": "vmap: a draw goes on to the next level",
    "torch._C._current_graph_task_id": "a draw sees that it is in a backward pass",
    "torch._C._autograd._top_saved_tensors_default_hooks": "a draw sees that it is checkpointed",
    "torch._C._functorch._add_batch_dim": "vmap: each sample has a state of its own",
    "torch._C._functorch.TransformType": "compiled code: is p in what is differentiated?",
    "torch._C._functorch.get_interpreter_stack": "compiled code: the transforms it is within",
    "torch._functorch.config": "tracing: a memory budget of 0 would draw again",
    "torch._functorch.pyfunctorch.VmapInterpreter": "vmap: its randomness and batch size",
    "torch._functorch.pyfunctorch.retrieve_current_functorch_interpreter": "vmap: the level",
    "torch._functorch.vmap.unwrap_batched": "vmap: the tensor of the level below",
    "torch.fx.experimental.proxy_tensor.ProxyTorchDispatchMode": "tracing: how a draw is recorded",
    "torch.fx.experimental.symbolic_shapes.has_static_value": "compiled code: is p a symbol?",
    "torch.fx.traceback.get_current_meta": "tracing: the annotated memory budget",
    "torch.nn.modules.dropout._DropoutNd": "models: what is a dropout of torch",
    "torch.overrides._get_current_function_mode_stack": "a recomputation enters them again",
    "torch.utils._python_dispatch.TorchDispatchMode": "models: which operators a forward runs",
    "torch.utils.checkpoint._checkpoint_without_reentrant_generator": "checkpoints repeat draws",
    "torch.utils._pytree": "models: outputs that are trees of tensors",
    "torch.utils.checkpoint.SAC_IGNORED_OPS": "tracing: a checkpoint keeps its draws",
    "torch.utils.checkpoint._checkpoint_hook": "a draw sees that it is checkpointed",
    "torch.Tensor._is_view": "DropConnect: what looks into a guarded weight",
    "torch.Tensor._ragged_idx": "nested tensors: the jagged dimension",
    "torch.Tensor._maybe_min_seqlen": "nested tensors: the cached least length",
    "torch.Tensor._maybe_max_seqlen": "nested tensors: the cached greatest length",
    "operator._schema": "models: whether an operator drops in a call",
    "function._dynamo_marked_constant": "tracing: a number for a generator, a factor for p",
    "torch._dynamo.comptime.comptime": "tracing: a generator is registered",
    "ComptimeVar._i_will_not_complain_if_bc_breaks_VariableTracker": "tracing: a generator",
}

# The key of a node's "custom" metadata to which torch.autograd.graph writes an annotated budget.
BUDGET_ANNOTATION = "_region_activation_memory_budget"

# In torch 2.15 the function of this name is a shim for the one that every checkpoint goes through.
checkpoint_entry = getattr(checkpoint_module, f"{checkpoint_entry.__name__}_impl", checkpoint_entry)


def assume_constant_result(function: Function) -> Function:
    """:func:`torch.compiler.assume_constant_result`, without importing Dynamo, which is slow."""
    function._dynamo_marked_constant = True  # type: ignore[attr-defined]
    return function


def arguments(operator: Any, args: Any, kwargs: Any) -> dict[str, Any]:
    """Those of a call of an operator of torch.ops by name, defaults included."""
    declared = operator._schema.arguments
    given = {one.name: one.default_value for one in declared if one.has_default_value()}
    names = (one.name for one in declared)
    return {**given, **dict(zip(names, args, strict=False)), **kwargs}


def has_static_value(number: Any) -> bool:
    """Whether traced code sees a number, not a symbol."""
    # Not before: it imports sympy, which is slow.
    from torch.fx.experimental.symbolic_shapes import has_static_value as is_static

    return is_static(number)


def when_traced(function: Callable[[Any], None]) -> None:
    """Calls ``function(context)`` while Dynamo traces this; the graph has nothing of it."""
    from torch._dynamo.comptime import comptime  # not before: importing Dynamo is slow

    comptime(function)


def local_of_caller(context: Any, name: str) -> Any:
    """The object from outside of traced code that is this local variable where `when_traced` is
    called."""
    variable = context.get_local(name, stacklevel=1)
    return variable._i_will_not_complain_if_bc_breaks_VariableTracker().value


def is_view(tensor: Tensor) -> bool:
    """Whether a tensor looks into the memory of another."""
    return bool(tensor._is_view())


def jagged_layout(nested: Any) -> dict[str, Any]:
    """The arguments that give ``nested_tensor_from_jagged`` the layout of a nested tensor."""
    return {
        "offsets": nested.offsets(),
        "lengths": nested.lengths(),
        "jagged_dim": nested._ragged_idx,
        "min_seqlen": nested._maybe_min_seqlen,
        "max_seqlen": nested._maybe_max_seqlen,
    }


__all__ = [
    "BUDGET_ANNOTATION",
    "SAC_IGNORED_OPS",
    "DisableTorchFunctionSubclass",
    "DispatchKey",
    "DispatchKeySet",
    "ExcludeDispatchKeyGuard",
    "ProxyTorchDispatchMode",
    "TorchDispatchMode",
    "TorchDropout",
    "TransformType",
    "VmapInterpreter",
    "active_function_modes",
    "add_batch_dim",
    "arguments",
    "assume_constant_result",
    "checkpoint_entry",
    "checkpoint_hook",
    "current_graph_task_id",
    "current_interpreter",
    "functorch_config",
    "get_current_meta",
    "has_static_value",
    "interpreter_stack",
    "is_view",
    "jagged_layout",
    "local_of_caller",
    "pytree",
    "top_saved_tensors_hooks",
    "unwrap_batched",
    "when_traced",
]
