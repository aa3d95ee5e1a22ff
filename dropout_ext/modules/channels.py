"""Dropout of whole feature maps."""

from torch import Tensor, nn

from dropout_ext import functional as F
from dropout_ext.integration.fx import leaf
from dropout_ext.modules.base import TorchDropout


class Dropout1d(TorchDropout, nn.Dropout1d):
    """Drop-in for :class:`torch.nn.Dropout1d`; see :func:`dropout_ext.functional.dropout1d`.

    Args:
        p: probability of a channel to be zeroed, in [0, 1].
        inplace: write the result into the input.
        generator: takes the place of the default generator of the input's device.

    Shape:
        Input and output: (N, C, L) or (C, L), the same.

    Raises:
        ValueError: if p is not a number in [0, 1].
    """

    @leaf
    def forward(self, input: Tensor, *, rng_state: Tensor | None = None) -> Tensor:
        return F.dropout1d(
            input,
            self.p,
            self.training,
            self.inplace,
            generator=self.generator if rng_state is None else None,
            rng_state=rng_state,
        )


class Dropout2d(TorchDropout, nn.Dropout2d):
    """Drop-in for :class:`torch.nn.Dropout2d`; see :func:`dropout_ext.functional.dropout2d`.

    Args:
        p, inplace, generator: as in :class:`Dropout1d`.

    Shape:
        Input and output: (N, C, H, W), or (N, C, L) with a warning, the same.

    Raises:
        ValueError: if p is not a number in [0, 1].
    """

    @leaf
    def forward(self, input: Tensor, *, rng_state: Tensor | None = None) -> Tensor:
        return F.dropout2d(
            input,
            self.p,
            self.training,
            self.inplace,
            generator=self.generator if rng_state is None else None,
            rng_state=rng_state,
        )


class Dropout3d(TorchDropout, nn.Dropout3d):
    """Drop-in for :class:`torch.nn.Dropout3d`; see :func:`dropout_ext.functional.dropout3d`.

    Args:
        p, inplace, generator: as in :class:`Dropout1d`.

    Shape:
        Input and output: (N, C, D, H, W) or (C, D, H, W), the same.

    Raises:
        ValueError: if p is not a number in [0, 1].
    """

    @leaf
    def forward(self, input: Tensor, *, rng_state: Tensor | None = None) -> Tensor:
        return F.dropout3d(
            input,
            self.p,
            self.training,
            self.inplace,
            generator=self.generator if rng_state is None else None,
            rng_state=rng_state,
        )
