"""The eager call in place with every argument that the operators have.

The public functions lead there with the arguments that they make; the tests of the loops need any
index map and any rule. There is no operator in place: what is not plain eager code goes through
`input.copy_(dropout(input))`.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from dropout_ext import _C


def dropout_(
    input: torch.Tensor,
    p: float,
    rng_state: torch.Tensor,
    *,
    mask_strides: Sequence[int] | None = None,
    mask_base: int = 0,
    scale: float | None = None,
    shift: float = 0.0,
    fill: float = 0.0,
) -> torch.Tensor:
    """`torch.ops.dropout_ext.dropout`, written into its input."""
    strides = None if mask_strides is None else list(mask_strides)
    return _C.dropout(input, p, True, None, rng_state, strides, mask_base, scale, shift, fill)
