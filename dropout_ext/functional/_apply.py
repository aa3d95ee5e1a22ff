"""What every function of the family comes down to: one mask, one pass."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Generator, Tensor
from torch.overrides import handle_torch_function, has_torch_function_unary

from dropout_ext import _C, _dtensor
from dropout_ext._checks import check_generator, check_rng_state, check_tensor, warn_if_checkpointed
from dropout_ext._index_map import Shard, index_map
from dropout_ext._tracing import traced_draw

Function = TypeVar("Function", bound=Callable[..., Tensor])
_PLAIN = (Tensor, torch.nn.Parameter)


class Kept(NamedTuple):
    """Kept elements become ``input * scale + shift``, dropped ones ``fill``.

    Without a scale, it is one over the probability that is realised for an element to be kept.
    """

    scale: float | None = None
    shift: float = 0.0
    fill: float = 0.0


INVERTED = Kept()
UNSCALED = Kept(scale=1.0)


def overridable(function: Function) -> Function:
    """Lets tensor-like arguments and active modes take the call over (``__torch_function__``)."""

    @functools.wraps(function)
    def wrapper(input: Tensor, *args: Any, **kwargs: Any) -> Any:
        if has_torch_function_unary(input):
            return handle_torch_function(wrapper, (input,), input, *args, **kwargs)
        return function(input, *args, **kwargs)

    return wrapper  # type: ignore[return-value]


def unchanged(input: Tensor) -> Tensor:
    """What is dropped from is a tensor, also where nothing is dropped."""
    check_tensor(input)
    return input


def apply(
    input: Tensor,
    p: float,
    inplace: bool,
    generator: Generator | None,
    rng_state: Tensor | None,
    kept: Kept = INVERTED,
    broadcast_dims: int | Sequence[int] = (),
    shard: Shard | None = None,
) -> Tensor:
    """Draws unless there is a state, and applies; ``p`` has been checked."""
    if generator is not None:
        check_generator(generator, input, rng_state)
        if not torch.compiler.is_compiling():
            warn_if_checkpointed(generator)
    if rng_state is not None:
        check_rng_state(rng_state)
    if type(input) not in _PLAIN:
        check_tensor(input)
        if _dtensor.is_dtensor(input):
            local = functools.partial(apply, p=p, kept=kept, broadcast_dims=broadcast_dims)
            return _dtensor.apply(local, input, inplace, generator, rng_state, shard)
        if input.is_nested:
            shared = isinstance(broadcast_dims, int) or len(broadcast_dims) > 0
            per_element = not shared and shard is None
            return _jagged(input, p, inplace, generator, rng_state, kept, per_element)
    if broadcast_dims == () and shard is None:
        strides, base = None, 0
    else:
        strides, base = index_map(input.shape, broadcast_dims, shard)
    if torch.compiler.is_compiling():
        return _traced(input, p, inplace, generator, rng_state, strides, base, kept)
    if generator is None and rng_state is None and strides is None and kept is INVERTED:
        return _C.plain_dropout(input, p, inplace)
    return _C.dropout(input, p, inplace, generator, rng_state, strides, base, *kept)


def _jagged(
    input: Any,
    p: float,
    inplace: bool,
    generator: Generator | None,
    rng_state: Tensor | None,
    kept: Kept,
    per_element: bool,
) -> Tensor:
    """A nested tensor of jagged layout: the mask index is the position in its packed values."""
    if inplace or not per_element:
        what = "done in place" if inplace else "shared or sharded"
        raise RuntimeError(
            f"dropout: of a nested tensor cannot be {what}; apply it to the tensor's values()"
        )
    values = apply(input.values(), p, False, generator, rng_state, kept)
    nested: Tensor = torch.nested.nested_tensor_from_jagged(
        values,
        input.offsets(),
        input.lengths(),
        jagged_dim=input._ragged_idx,
        min_seqlen=input._maybe_min_seqlen,
        max_seqlen=input._maybe_max_seqlen,
    )
    return nested


def _traced(
    input: Tensor,
    p: float,
    inplace: bool,
    generator: Generator | None,
    rng_state: Tensor | None,
    mask_strides: list[int] | None,
    mask_base: int,
    kept: Kept,
) -> Tensor:
    """The two operators that ``_C.dropout`` fuses, apart.

    Compilers may compute a pure operator again in the backward pass, but never a draw.
    """
    if rng_state is None:
        rng_state = traced_draw(input, generator)
    op = torch.ops.dropout_ext.dropout_ if inplace else torch.ops.dropout_ext.dropout
    # Numbers that are written here are constants to Dynamo; those of a global are inputs to it.
    if kept is INVERTED:
        linear = {}
    elif kept is UNSCALED:
        linear = {"scale": 1.0}
    else:
        linear = kept._asdict()
    result: Tensor = op(
        input, p, rng_state, mask_strides=mask_strides, mask_base=mask_base, **linear
    )
    return result
