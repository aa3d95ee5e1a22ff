"""What every function of the family comes down to: one mask, one pass."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.autograd.graph import increment_version

from dropout_ext import _C
from dropout_ext.functional.checks import check_tensor
from dropout_ext.functional.mask import Mask, is_elementwise, mask_indices
from dropout_ext.functional.state import Source, repeatable_source, state_of
from dropout_ext.integration import dtensor
from dropout_ext.integration.symbolic_p import as_tensor, is_symbol, is_transformed
from dropout_ext.integration.torch_private import jagged_layout

if TYPE_CHECKING:
    from torch.distributed.tensor import DTensor

PLAIN = (Tensor, torch.nn.Parameter)


def unchanged(input: Tensor) -> Tensor:
    """The input itself; TypeError unless it is a tensor."""
    check_tensor(input)
    return input


def apply(input: Tensor, inplace: bool, mask: Mask, source: Source) -> Tensor:
    """Draws unless the source has a state, and applies the mask; all errors come first."""
    if type(input) not in PLAIN:
        check_tensor(input)
        if dtensor.is_dtensor(input):
            return _distributed(input, inplace, mask, source)
        if input.is_nested:
            return _jagged(input, inplace, mask, source)
    if torch.compiler.is_compiling():
        return _traced(input, inplace, mask, source)
    strides, base = mask_indices(mask, input.shape)
    generator, state = repeatable_source(input, source)
    scale, shift, fill = mask.kept or (None, 0.0, 0.0)
    # All by position, none by unpacking or default: pybind11 is slower with either.
    return _C.dropout(input, mask.p, inplace, generator, state, strides, base, scale, shift, fill)


def _traced(input: Tensor, inplace: bool, mask: Mask, source: Source) -> Tensor:
    """The two operators that ``_C.dropout`` fuses, apart.

    Compilers may compute a pure operator again in the backward pass, but never a draw.
    """
    strides, base = mask_indices(mask, input.shape)
    state = state_of(input, source)
    linear = {} if mask.kept is None else mask.kept._asdict()
    op: Any = torch.ops.dropout_ext.dropout
    p: float | Tensor = mask.p
    if is_symbol(p) and not is_transformed():
        op, p = torch.ops.dropout_ext.dropout_p, as_tensor(mask.p)
    result: Tensor = op(input, p, state, mask_strides=strides, mask_base=base, **linear)
    return input.copy_(result) if inplace else result


def _jagged(input: Tensor, inplace: bool, mask: Mask, source: Source) -> Tensor:
    """A nested tensor of jagged layout: the mask index is the position in its packed values."""
    if inplace or not is_elementwise(mask):
        what = "done in place" if inplace else "shared or sharded"
        raise RuntimeError(
            f"dropout: of a nested tensor cannot be {what}; apply it to the tensor's values()"
        )
    values = apply(input.values(), False, mask, source)
    nested: Tensor = torch.nested.nested_tensor_from_jagged(values, **jagged_layout(input))
    return nested


def _distributed(input: DTensor, inplace: bool, mask: Mask, source: Source) -> Tensor:
    """Each rank applies its piece of the one mask, from the common state, to its local tensor."""
    if mask.shard is not None:
        raise ValueError(
            "dropout: shard must not be given for a DTensor, which knows its shards "
            f"({input.placements}); but got {mask.shard}"
        )
    start = dtensor.start(input)
    if start is None:
        return input
    local = dtensor.local(input)
    piece = Mask(mask.p, mask.kept, mask.broadcast_dims, shard=(input.shape, start))
    mask_indices(piece, local.shape)  # its errors come before the draw
    state = dtensor.local(state_of(local, source))
    if source.rng_state is None:
        dtensor.verify(input.device_mesh, state)
    in_memory = inplace and not torch.is_grad_enabled()
    result = apply(local, in_memory, piece, Source(rng_state=state))
    if in_memory:
        if not torch.compiler.is_compiling():
            increment_version(input)  # autograd watches the distributed tensor, not its memory
        return input
    output = dtensor.like(result, input)
    return input.copy_(output) if inplace else output
