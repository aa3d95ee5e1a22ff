"""One decision for a whole feature map."""

import warnings

from torch import Generator, Tensor

from dropout_ext.functional.apply import apply, unchanged
from dropout_ext.functional.checks import check_probability
from dropout_ext.functional.mask import Mask
from dropout_ext.functional.override import overridable
from dropout_ext.functional.state import Source, source_of


@overridable
def dropout1d(
    input: Tensor,
    p: float = 0.5,
    training: bool = True,
    inplace: bool = False,
    *,
    generator: Generator | None = None,
    rng_state: Tensor | None = None,
) -> Tensor:
    """Zeroes whole channels; a drop-in for :func:`torch.nn.functional.dropout1d`.

    Spatial dropout (Tompson et al., "Efficient object localization using convolutional networks",
    2015): :func:`dropout` whose decision the positions of a channel share.

    Args:
        input: tensor of shape (N, C, L) or (C, L).
        p: probability of a channel to be zeroed, in [0, 1].
        training, inplace, generator, rng_state: as in :func:`dropout`.

    Returns:
        A tensor like ``input``; ``input`` itself if ``training`` is False or ``p`` is 0.

    Raises:
        RuntimeError: ``input`` has neither 2 nor 3 dimensions.
        ValueError, TypeError, RuntimeError: as :func:`dropout`.
    """
    p = check_probability(p)
    ndim = input.dim()
    if ndim not in (2, 3):
        raise RuntimeError(
            f"dropout1d: Expected 2D or 3D input, but received a {ndim}D input. "
            "Note that dropout1d exists to provide channel-wise dropout on inputs with 1 "
            "spatial dimension, a channel dimension, and an optional batch dimension "
            "(i.e. 2D or 3D inputs)."
        )
    source = source_of(input, generator, rng_state)
    return _channels(input, training, inplace, p, source, batched=ndim == 3)


@overridable
def dropout2d(
    input: Tensor,
    p: float = 0.5,
    training: bool = True,
    inplace: bool = False,
    *,
    generator: Generator | None = None,
    rng_state: Tensor | None = None,
) -> Tensor:
    """Zeroes whole channels; a drop-in for :func:`torch.nn.functional.dropout2d`.

    Args:
        input: tensor of shape (N, C, H, W). Its namesake takes other shapes with a warning, three
            dimensions as (N, C, L); so does this.
        p, training, inplace, generator, rng_state: as in :func:`dropout1d`.

    Returns:
        As :func:`dropout1d`.

    Raises:
        ValueError, TypeError, RuntimeError: as :func:`dropout`; also for fewer than 2 dimensions.
    """
    p = check_probability(p)
    _warn_unless_spatial("dropout2d", input.dim(), spatial=2)
    if input.dim() == 3:
        warnings.warn(
            "dropout2d: Received a 3D input to dropout2d and assuming that channel-wise "
            "1D dropout behavior is desired - input is interpreted as shape (N, C, L), where C "
            "is the channel dim. This behavior will change in a future release to interpret the "
            "input as one without a batch dimension, i.e. shape (C, H, W). To maintain the 1D "
            "channel-wise dropout behavior, please switch to using dropout1d instead.",
            stacklevel=3,
        )
    source = source_of(input, generator, rng_state)
    return _channels(input, training, inplace, p, source, batched=True)


@overridable
def dropout3d(
    input: Tensor,
    p: float = 0.5,
    training: bool = True,
    inplace: bool = False,
    *,
    generator: Generator | None = None,
    rng_state: Tensor | None = None,
) -> Tensor:
    """Zeroes whole channels; a drop-in for :func:`torch.nn.functional.dropout3d`.

    Args:
        input: tensor of shape (N, C, D, H, W) or (C, D, H, W). Its namesake takes other shapes
            with a warning, as without a batch dimension; so does this.
        p, training, inplace, generator, rng_state: as in :func:`dropout1d`.

    Returns:
        As :func:`dropout1d`.

    Raises:
        ValueError, TypeError, RuntimeError: as :func:`dropout`; also for a scalar.
    """
    p = check_probability(p)
    _warn_unless_spatial("dropout3d", input.dim(), spatial=3)
    source = source_of(input, generator, rng_state)
    return _channels(input, training, inplace, p, source, batched=input.dim() == 5)


def _warn_unless_spatial(name: str, ndim: int, spatial: int) -> None:
    if ndim not in (spatial + 1, spatial + 2):
        warnings.warn(
            f"{name}: Received a {ndim}-D input to {name}, which is deprecated "
            "and will result in an error in a future release. To retain the behavior "
            "and silence this warning, please use dropout instead. Note that "
            f"{name} exists to provide channel-wise dropout on inputs with {spatial} spatial "
            "dimensions, a channel dimension, and an optional batch dimension "
            f"(i.e. {spatial + 1}D or {spatial + 2}D inputs).",
            stacklevel=4,
        )


def feature_dropout(
    input: Tensor,
    p: float,
    training: bool,
    inplace: bool = False,
    *,
    generator: Generator | None = None,
) -> Tensor:
    """Zeroes whole channels of (N, C, ...); what ``torch.feature_dropout`` is redirected to."""
    p = check_probability(p)
    return _channels(input, training, inplace, p, source_of(input, generator, None), batched=True)


def _channels(
    input: Tensor, training: bool, inplace: bool, p: float, source: Source, batched: bool
) -> Tensor:
    if not training or p == 0.0:
        return unchanged(input)
    return apply_to_channels(input, inplace, Mask(p), source, batched)


def apply_to_channels(
    input: Tensor, inplace: bool, mask: Mask, source: Source, batched: bool = True
) -> Tensor:
    """Shares each decision along all dimensions after the channels."""
    first = 2 if batched else 1
    if input.dim() < first:
        raise RuntimeError("Feature dropout requires at least 2 dimensions in the input")
    shared = tuple(range(first, input.dim()))
    return apply(input, inplace, Mask(mask.p, mask.kept, shared), source)
