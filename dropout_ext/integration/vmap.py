"""Batching rules for torch.func.vmap.

``randomness="different"``: a draw gives each sample a state of its own, those that a loop over the
samples would draw. ``"same"``: one state for all, whose mask is not materialised. The rules of the
pure operators depend on the states alone, so vmap composes with everything else.
"""

import functools
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from dropout_ext.integration.strides import row_major
from dropout_ext.integration.torch_private import (
    DispatchKey,
    DispatchKeySet,
    ExcludeDispatchKeyGuard,
    VmapInterpreter,
    add_batch_dim,
    current_interpreter,
    unwrap_batched,
)

_ops = torch.ops.dropout_ext
_VMAP_MODE = DispatchKeySet(DispatchKey.FuncTorchVmapMode)


def _draw(op: Any, input: Tensor, *, batch: Sequence[int] | None = None, **source: Any) -> Tensor:
    interpreter = current_interpreter()
    assert isinstance(interpreter, VmapInterpreter)
    randomness = interpreter.randomness()
    if randomness == "error":
        raise RuntimeError(
            "vmap: called random operation while in randomness error mode. Please either use the "
            "'same' or 'different' randomness flags on vmap or perform the randomness operation "
            "out of vmap. The operation is a dropout: it is pure if it gets an rng_state"
        )
    (inner,), _ = unwrap_batched((input,), interpreter.level())
    batch = tuple(batch or ())
    if randomness == "different":
        batch = (interpreter.batch_size(), *batch)
    with ExcludeDispatchKeyGuard(_VMAP_MODE):  # on to the next level
        states: Tensor = op(inner, batch=batch, **source)
        if randomness == "different":
            states = add_batch_dim(states, 0, interpreter.level())
    return states


def leading(tensor: Tensor, dim: int | None, size: int) -> Tensor:
    return tensor.expand(size, *tensor.shape) if dim is None else tensor.movedim(dim, 0)


def _dropout_arguments(
    info: Any, in_dims: Any, input: Tensor, rng_state: Tensor, mask_strides: Any
) -> tuple[Tensor, Tensor, list[int] | None, int]:
    """The arguments for the whole batch, and the batch dimension of the input among them."""
    input_dim, _, state_dim = in_dims[:3]
    if state_dim is None and rng_state.dim() == 1:
        shared = row_major(_without(input.shape, input_dim))
        shared = shared if mask_strides is None else list(mask_strides)
        shared.insert(input_dim, 0)  # the samples share their decisions
        return input, rng_state, shared, input_dim
    states = leading(rng_state, state_dim, info.batch_size)
    strides = None if mask_strides is None else [0, *mask_strides]
    return leading(input, input_dim, info.batch_size), states, strides, 0


def _without(shape: torch.Size, dim: int) -> torch.Size:
    return torch.Size([size for d, size in enumerate(shape) if d != dim])


def _dropout(
    info: Any,
    in_dims: Any,
    input: Tensor,
    p: float | Tensor,
    rng_state: Tensor,
    *,
    mask_strides: list[int] | None = None,
    op: Any = _ops.dropout,
    **linear: Any,
) -> tuple[Tensor, int]:
    if in_dims[1] is not None:
        raise RuntimeError("vmap: dropout of samples with a p each is not supported")
    input, rng_state, mask_strides, dim = _dropout_arguments(
        info, in_dims, input, rng_state, mask_strides
    )
    return op(input, p, rng_state, mask_strides=mask_strides, **linear), dim


def _dropout_mask(
    info: Any,
    in_dims: Any,
    size: list[int],
    p: float,
    rng_state: Tensor,
    *,
    mask_strides: list[int] | None = None,
    mask_base: int = 0,
) -> tuple[Tensor, int]:
    states = leading(rng_state, in_dims[2], info.batch_size)
    strides = None if mask_strides is None else [0, *mask_strides]
    size = [info.batch_size, *size]
    return _ops.dropout_mask(size, p, states, mask_strides=strides, mask_base=mask_base), 0


def _fold_in(info: Any, in_dims: Any, rng_state: Tensor, number: Tensor) -> tuple[Tensor, int]:
    arguments = (
        leading(tensor, dim, info.batch_size)
        for tensor, dim in zip((rng_state, number), in_dims, strict=True)
    )
    return _ops.fold_in(*arguments), 0


def register(library: torch.library.Library) -> None:
    """Registers the rules for as long as the library lives."""
    # A draw gets its rule for the mode, not for batched tensors: each sample gets a mask of its
    # own even if they share the input.
    for op in (_ops.draw, _ops.draw_traced):
        library.impl(op.__name__, functools.partial(_draw, op), "FuncTorchVmapMode")
    torch.library.register_vmap("dropout_ext::dropout", _dropout, lib=library)
    torch.library.register_vmap(
        "dropout_ext::dropout_p", functools.partial(_dropout, op=_ops.dropout_p), lib=library
    )
    torch.library.register_vmap("dropout_ext::dropout_mask", _dropout_mask, lib=library)
    torch.library.register_vmap("dropout_ext::fold_in", _fold_in, lib=library)
