"""Dropout for self-normalizing networks."""

from torch import Tensor, nn

from dropout_ext import functional as F
from dropout_ext.integration.fx import leaf
from dropout_ext.modules.base import TorchDropout


class AlphaDropout(TorchDropout, nn.AlphaDropout):
    """Drop-in for :class:`torch.nn.AlphaDropout`; see :func:`dropout_ext.functional.alpha_dropout`.

    Args:
        p: probability of an element to be dropped, in [0, 1].
        inplace: accepted, shown and, as by its namesake, not acted upon: a network that works with
            the one keeps working with the other. The functional form acts on it.
        generator: takes the place of the default generator of the input's device.

    Shape:
        Input and output: any, the same.

    Raises:
        ValueError: if p is not a number in [0, 1].
    """

    @leaf
    def forward(self, input: Tensor, *, rng_state: Tensor | None = None) -> Tensor:
        return F.alpha_dropout(
            input,
            self.p,
            self.training,
            generator=self.generator if rng_state is None else None,
            rng_state=rng_state,
        )


class FeatureAlphaDropout(TorchDropout, nn.FeatureAlphaDropout):
    """Drop-in for :class:`torch.nn.FeatureAlphaDropout`.

    See :func:`dropout_ext.functional.feature_alpha_dropout`.

    Args:
        p: probability of a channel to be dropped, in [0, 1].
        inplace, generator: as in :class:`AlphaDropout`.

    Shape:
        Input and output: (N, C, ...), the same.

    Raises:
        ValueError: if p is not a number in [0, 1].
    """

    @leaf
    def forward(self, input: Tensor, *, rng_state: Tensor | None = None) -> Tensor:
        return F.feature_alpha_dropout(
            input,
            self.p,
            self.training,
            generator=self.generator if rng_state is None else None,
            rng_state=rng_state,
        )
