"""Every private or undocumented name of torch that this package touches, under a plain name.

``PURPOSES`` says what each is for; a test looks each of them up, and names the one that is gone.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from torch import Tensor
from torch._C import DisableTorchFunctionSubclass, DispatchKey, DispatchKeySet
from torch._C import _ExcludeDispatchKeyGuard as ExcludeDispatchKeyGuard
from torch._C._autograd import (
    _top_saved_tensors_default_hooks as top_saved_tensors_hooks,
)
from torch._C._functorch import _add_batch_dim as add_batch_dim
from torch._functorch import config as functorch_config
from torch._functorch.pyfunctorch import VmapInterpreter
from torch._functorch.pyfunctorch import (
    retrieve_current_functorch_interpreter as current_interpreter,
)
from torch._functorch.vmap import unwrap_batched
from torch.fx.experimental.proxy_tensor import ProxyTorchDispatchMode
from torch.fx.experimental.symbolic_shapes import has_static_value
from torch.fx.traceback import get_current_meta
from torch.nn.modules.dropout import _DropoutNd as TorchDropout
from torch.utils import _pytree as pytree
from torch.utils.checkpoint import SAC_IGNORED_OPS
from torch.utils.checkpoint import _checkpoint_hook as checkpoint_hook

Function = TypeVar("Function", bound=Callable[..., Any])

PURPOSES = {
    "torch._C.DispatchKey": "vmap: names the mode's key",
    "torch._C.DispatchKeySet": "vmap: the key to leave out",
    "torch._C.DisableTorchFunctionSubclass": "DropConnect: a guarded weight as a plain tensor",
    "torch._C._ExcludeDispatchKeyGuard": "vmap: a draw goes on to the next level",
    "torch._C._autograd._top_saved_tensors_default_hooks": "a draw sees that it is checkpointed",
    "torch._C._functorch._add_batch_dim": "vmap: each sample has a state of its own",
    "torch._functorch.config": "tracing: a memory budget of 0 would draw again",
    "torch._functorch.pyfunctorch.VmapInterpreter": "vmap: its randomness and batch size",
    "torch._functorch.pyfunctorch.retrieve_current_functorch_interpreter": "vmap: the level",
    "torch._functorch.vmap.unwrap_batched": "vmap: the tensor of the level below",
    "torch.fx.experimental.proxy_tensor.ProxyTorchDispatchMode": "tracing: how a draw is recorded",
    "torch.fx.experimental.symbolic_shapes.has_static_value": "compiled code: is p a symbol?",
    "torch.fx.traceback.get_current_meta": "tracing: the annotated memory budget",
    "torch.nn.modules.dropout._DropoutNd": "models: what is a dropout of torch",
    "torch.utils._pytree": "models: outputs that are trees of tensors",
    "torch.utils.checkpoint.SAC_IGNORED_OPS": "tracing: a checkpoint keeps its draws",
    "torch.utils.checkpoint._checkpoint_hook": "a draw sees that it is checkpointed",
    "torch.Tensor._is_view": "DropConnect: what looks into a guarded weight",
    "torch.Tensor._ragged_idx": "nested tensors: the jagged dimension",
    "torch.Tensor._maybe_min_seqlen": "nested tensors: the cached least length",
    "torch.Tensor._maybe_max_seqlen": "nested tensors: the cached greatest length",
    "function._dynamo_marked_constant": "tracing: a number for a generator, a factor for p",
}

# The key of a node's "custom" metadata to which torch.autograd.graph writes an annotated budget.
BUDGET_ANNOTATION = "_region_activation_memory_budget"


def assume_constant_result(function: Function) -> Function:
    """:func:`torch.compiler.assume_constant_result`, without importing Dynamo, which is slow."""
    function._dynamo_marked_constant = True  # type: ignore[attr-defined]
    return function


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
    "TorchDropout",
    "VmapInterpreter",
    "add_batch_dim",
    "assume_constant_result",
    "checkpoint_hook",
    "current_interpreter",
    "functorch_config",
    "get_current_meta",
    "has_static_value",
    "is_view",
    "jagged_layout",
    "pytree",
    "top_saved_tensors_hooks",
    "unwrap_batched",
]
