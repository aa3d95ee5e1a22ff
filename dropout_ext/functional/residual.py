"""Stochastic depth: one decision for a whole sample, or for the whole batch."""

from torch import Generator, Tensor

from dropout_ext.functional.apply import apply, unchanged
from dropout_ext.functional.checks import check_depth, check_probability, either_name
from dropout_ext.functional.mask import Kept, Mask
from dropout_ext.functional.override import overridable
from dropout_ext.functional.state import source_of


@overridable
def drop_path(
    input: Tensor,
    p: float = 0.0,
    training: bool = False,
    scale_by_keep: bool = True,
    *,
    inplace: bool = False,
    generator: Generator | None = None,
    rng_state: Tensor | None = None,
    drop_prob: float | None = None,
) -> Tensor:
    """Zeroes whole samples, those of a residual branch; a drop-in for timm's ``drop_path``.

    Stochastic depth (Huang et al., "Deep networks with stochastic depth", ECCV 2016) by sample.

    Args:
        input: tensor of shape (N, ...).
        p: probability of a sample to be zeroed, in [0, 1].
        training: if False, as by default, the input itself is returned.
        scale_by_keep: scale the other samples by ``1 / (1 - p)``.
        inplace, generator, rng_state: as in :func:`dropout`.
        drop_prob: timm's name of ``p``.

    Returns:
        A tensor like ``input``; ``input`` itself if ``training`` is False or ``p`` is 0.

    Raises:
        ValueError: both ``p`` and ``drop_prob`` are given.
        ValueError, TypeError, RuntimeError: as :func:`dropout`.
        IndexError: ``input`` is a scalar.
    """
    p = either_name(p, drop_prob)
    p = check_probability(p)
    if not training or p == 0.0:
        return unchanged(input)
    kept = None if scale_by_keep else Kept(scale=1.0, shift=0.0, fill=0.0)
    mask = Mask(p, kept, _row_dims(input))
    return apply(input, inplace, mask, source_of(input, generator, rng_state))


@overridable
def stochastic_depth(
    input: Tensor,
    p: float,
    mode: str,
    training: bool = True,
    *,
    inplace: bool = False,
    generator: Generator | None = None,
    rng_state: Tensor | None = None,
) -> Tensor:
    """Zeroes samples or the batch; a drop-in for ``torchvision.ops.stochastic_depth``.

    Args:
        input: tensor of shape (N, ...).
        p: probability to be zeroed, in [0, 1].
        mode: ``"row"``: each sample of the batch by itself, ``"batch"``: all or none.
        training, inplace, generator, rng_state: as in :func:`dropout`.

    Returns:
        A tensor like ``input``; ``input`` itself if ``training`` is False or ``p`` is 0.

    Raises:
        ValueError: another ``mode``; ``p`` outside [0, 1], in torchvision's words.
        ValueError, TypeError, RuntimeError: as :func:`dropout`.
        IndexError: ``mode`` is ``"row"`` and ``input`` a scalar.
    """
    p = check_depth(p, mode)
    if not training or p == 0.0:
        return unchanged(input)
    dims = _row_dims(input) if mode == "row" else tuple(range(input.dim()))
    return apply(input, inplace, Mask(p, None, dims), source_of(input, generator, rng_state))


def _row_dims(input: Tensor) -> tuple[int, ...]:
    if input.dim() == 0:
        raise IndexError("dropout: input must have a batch dimension to drop samples, but got 0-D")
    return tuple(range(1, input.dim()))
