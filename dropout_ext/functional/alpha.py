"""Dropout for self-normalizing networks."""

import functools

import torch
from torch import Generator, Tensor

from dropout_ext import _C
from dropout_ext.functional.apply import apply, unchanged
from dropout_ext.functional.channels import apply_to_channels
from dropout_ext.functional.checks import check_probability
from dropout_ext.functional.mask import Kept, Mask
from dropout_ext.functional.override import overridable
from dropout_ext.functional.state import source_of
from dropout_ext.integration.torch_private import assume_constant_result


@overridable
def alpha_dropout(
    input: Tensor,
    p: float = 0.5,
    training: bool = False,
    inplace: bool = False,
    *,
    generator: Generator | None = None,
    rng_state: Tensor | None = None,
) -> Tensor:
    """Alpha dropout; a drop-in for :func:`torch.nn.functional.alpha_dropout`, in one pass.

    Klambauer et al., "Self-normalizing neural networks", 2017: dropped elements are set to
    ``alpha' = -1.7580993408473766``, the limit of SELU at minus infinity, and all are mapped by
    ``a x + b``, with ``a = ((1 - p)(1 + p alpha'^2))^(-1/2)`` and ``b = -a p alpha'``, so that an
    input of mean 0 and variance 1 keeps both; ``p`` is the realised probability, see
    :func:`dropout`. Multiplication and addition are rounded one after the other.

    Args:
        input: float64, float32, bfloat16 or float16 tensor of any shape and strides.
        p: probability of an element to be dropped, in [0, 1]; at 1 all is 0.
        training: if False, as by default, the input itself is returned.
        inplace, generator, rng_state: as in :func:`dropout`.

    Returns:
        A tensor like ``input``; ``input`` itself if ``training`` is False or ``p`` is 0.

    Raises:
        ValueError, TypeError, RuntimeError: as :func:`dropout`.
    """
    p = check_probability(p)
    if not training or p == 0.0:
        return unchanged(input)
    return apply(input, inplace, _mask(float(p)), source_of(input, generator, rng_state))


@overridable
def feature_alpha_dropout(
    input: Tensor,
    p: float = 0.5,
    training: bool = False,
    inplace: bool = False,
    *,
    generator: Generator | None = None,
    rng_state: Tensor | None = None,
) -> Tensor:
    """Alpha dropout of whole channels; see :func:`torch.nn.functional.feature_alpha_dropout`.

    Args:
        input: tensor of shape (N, C, ...), two dimensions or more.
        p, training, inplace, generator, rng_state: as in :func:`alpha_dropout`.

    Returns:
        As :func:`alpha_dropout`.

    Raises:
        RuntimeError: ``input`` has fewer than two dimensions.
        ValueError, TypeError, RuntimeError: as :func:`dropout`.
    """
    p = check_probability(p)
    if not training or p == 0.0:
        return unchanged(input)
    mask = _mask(float(p))
    return apply_to_channels(input, inplace, mask, source_of(input, generator, rng_state))


@assume_constant_result
def _coefficients(p: float) -> tuple[float, float, float]:
    return _C.alpha_coefficients(p)


def _traced_mask(p: float) -> Mask:
    # Dynamo may take p for a symbol (dynamic=True); what is hashed, it makes a constant of.
    (constant,) = {p}
    return Mask(constant, Kept(*_coefficients(constant)))


_eager_mask = functools.lru_cache(maxsize=64)(_traced_mask)


def _mask(p: float) -> Mask:
    return _traced_mask(p) if torch.compiler.is_compiling() else _eager_mask(p)
