"""Dropout of elements, and of whatever dimensions are named to share a decision."""

from collections.abc import Sequence

import torch
from torch import Generator, Tensor
from torch.overrides import has_torch_function_unary

from dropout_ext import _C
from dropout_ext.functional.apply import PLAIN, apply, unchanged
from dropout_ext.functional.checks import UPSCALE, check_floating, check_mode, check_probability
from dropout_ext.functional.index_map import NO_DIMS, Shard, dimensions
from dropout_ext.functional.mask import Kept, Mask, mask_indices
from dropout_ext.functional.override import overridden
from dropout_ext.functional.state import check_rng_state, repeatable_source, source_of


def dropout(
    input: Tensor,
    p: float = 0.5,
    training: bool = True,
    inplace: bool = False,
    *,
    generator: Generator | None = None,
    rng_state: Tensor | None = None,
    broadcast_dims: int | Sequence[int] = (),
    shard: Shard | None = None,
    mode: str = UPSCALE,
) -> Tensor:
    """Zeroes elements with probability ``p`` and scales the others by ``1 / (1 - p)``.

    Element i, counted in row-major order whatever the strides, is dropped if a 32-bit number that
    Philox4x32-10 (Salmon et al., SC'11) gives for (seed, offset, i) is below ``round(p * 2^32)``.
    The scale is that of the realised probability (inverted dropout, Srivastava et al., JMLR 15,
    2014), applied in float32 (float64 for float64) and rounded once, so that the expectation of
    the output is the input. A dropped element becomes +0, even if it was Inf or NaN.

    The mask is never stored; backward recomputes it from 16 bytes.

    Args:
        input: float64, float32, bfloat16 or float16 tensor of any shape and strides; or a nested
            tensor of jagged layout, whose elements are counted as its values stand.
        p: probability of an element to be zeroed, in [0, 1].
        training: if False, the input itself is returned.
        inplace: write the result into ``input``.
        generator: takes the place of the default generator of the input's device. A call with
            ``p > 0`` draws once, whatever the size of the input.
        rng_state: (seed, offset) as of :func:`dropout_ext.rng_state`, on the device of the input;
            nothing is drawn then, and the result is a pure function.
        broadcast_dims: dimensions along which one decision is shared (Flax's term; the dimensions
            of size 1 in Keras' noise_shape). May be negative.
        shard: ``(global_shape, start)`` if ``input`` is the piece of a larger tensor that begins
            at the coordinates ``start``: it then gets that piece of the larger tensor's mask.
            A DTensor needs none: it knows its shards.
        mode: ``"upscale_in_train"``, or ``"downscale_in_infer"`` for the classic form (Srivastava
            et al.): training masks without scaling, evaluation multiplies by ``1 - p``.

    Returns:
        A tensor of the shape, dtype and memory format of ``input``; ``input`` itself if
        ``p`` is 0 or, unless downscaled, ``training`` is False.

    Raises:
        ValueError: ``p`` outside [0, 1], NaN or not a number; ``generator`` and ``rng_state`` both
            given; ``rng_state`` of another shape; a ``shard`` outside its global shape;
            another ``mode``.
        TypeError: ``input`` of another dtype or layout; ``rng_state`` not int64.
        IndexError: ``broadcast_dims`` out of range.
        RuntimeError: ``generator`` or ``rng_state`` on another device; ``inplace`` on a leaf that
            requires grad or on memory that overlaps itself; a CUDA tensor in a build without CUDA;
            a DTensor that is a pending sum (Partial); a nested tensor in place or with shared
            decisions.
    """
    # What `overridable` does, without the time of a second call.
    if has_torch_function_unary(input):
        return overridden(  # type: ignore[no-any-return]
            dropout,
            input,
            p,
            training,
            inplace,
            generator=generator,
            rng_state=rng_state,
            broadcast_dims=broadcast_dims,
            shard=shard,
            mode=mode,
        )
    if type(p) is not float or not 0.0 <= p <= 1.0:  # a call saved where p is right
        p = check_probability(p)
    if mode == UPSCALE:
        if not training or p == 0.0:
            return unchanged(input)
        kept = None
    else:
        check_mode(mode)
        if p == 0.0:
            return unchanged(input)
        if not training:
            check_floating(input)
            return input.mul_(1 - p) if inplace else input * (1 - p)
        kept = Kept(scale=1.0, shift=0.0, fill=0.0)
    if (
        not torch.compiler.is_compiling()
        and kept is None
        and broadcast_dims is NO_DIMS
        and shard is None
        and type(input) in PLAIN
    ):  # what apply comes to, in less time
        if generator is None and rng_state is None:
            return _C.plain_dropout(input, p, inplace)
        source = source_of(input, generator, rng_state)
        generator, rng_state = repeatable_source(input, source)
        return _C.dropout(input, p, inplace, generator, rng_state, None, 0, None, 0.0, 0.0)
    source = source_of(input, generator, rng_state)
    return apply(input, inplace, Mask(p, kept, dimensions(broadcast_dims), shard), source)


def dropout_mask(
    shape: int | Sequence[int],
    p: float = 0.5,
    *,
    rng_state: Tensor,
    broadcast_dims: int | Sequence[int] = (),
    shard: Shard | None = None,
    device: torch.device | str | int | None = None,
) -> Tensor:
    """The mask that :func:`dropout` applies to a tensor of this shape.

    Args:
        shape: of the mask; a single size for one dimension.
        p: probability of an element to be dropped, in [0, 1].
        rng_state: (seed, offset) as of :func:`dropout_ext.rng_state`.
        broadcast_dims: as in :func:`dropout`.
        shard: as in :func:`dropout`.
        device: of the mask; by default that of ``rng_state``.

    Returns:
        Boolean tensor, True = kept.

    Raises:
        ValueError, TypeError, IndexError: as :func:`dropout`.
    """
    p = check_probability(p)
    check_rng_state(rng_state)
    shape = (shape,) if isinstance(shape, int) else shape
    strides, base = mask_indices(Mask(p, None, dimensions(broadcast_dims), shard), shape)
    state = rng_state if device is None else rng_state.to(device)
    mask: Tensor = torch.ops.dropout_ext.dropout_mask(
        shape, p, state, mask_strides=strides, mask_base=base
    )
    return mask
