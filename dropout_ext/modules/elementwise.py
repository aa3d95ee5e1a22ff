"""Dropout of elements, and of whatever dimensions are named to share a decision."""

from collections.abc import Sequence

from torch import Generator, Tensor, nn

from dropout_ext import functional as F
from dropout_ext.functional.checks import UPSCALE, check_mode
from dropout_ext.functional.index_map import dimensions
from dropout_ext.integration.fx import leaf
from dropout_ext.modules.base import TorchDropout


class Dropout(TorchDropout, nn.Dropout):
    """Drop-in for :class:`torch.nn.Dropout`; see :func:`dropout_ext.functional.dropout`.

    Args:
        p: probability of an element to be zeroed, in [0, 1].
        inplace: write the result into the input.
        generator: takes the place of the default generator of the input's device.
        broadcast_dims: dimensions along which one decision is shared, for example 0 for one mask
            of the features for all samples, or that of time for variational dropout. May be
            negative.
        mode: ``"upscale_in_train"``, or ``"downscale_in_infer"`` for the classic form: training
            masks without scaling, evaluation multiplies by ``1 - p``.

    Shape:
        Input and output: any, the same.

    Raises:
        ValueError: if p is not a number in [0, 1], or for another mode.
    """

    broadcast_dims: int | Sequence[int] = ()
    mode: str = UPSCALE

    def __init__(
        self,
        p: float = 0.5,
        inplace: bool = False,
        *,
        generator: Generator | None = None,
        broadcast_dims: int | Sequence[int] = (),
        mode: str = UPSCALE,
    ) -> None:
        super().__init__(p, inplace, generator=generator)
        check_mode(mode)
        if dims := dimensions(broadcast_dims):
            self.broadcast_dims = dims
        if mode != UPSCALE:
            self.mode = mode

    @leaf
    def forward(self, input: Tensor, *, rng_state: Tensor | None = None) -> Tensor:
        return F.dropout(
            input,
            self.p,
            self.training,
            self.inplace,
            generator=self.generator if rng_state is None else None,
            rng_state=rng_state,
            broadcast_dims=self.broadcast_dims,
            mode=self.mode,
        )

    def extra_repr(self) -> str:
        words = [super().extra_repr()]
        if self.broadcast_dims != ():
            words.append(f"broadcast_dims={self.broadcast_dims}")
        if self.mode != UPSCALE:
            words.append(f"mode={self.mode}")
        return ", ".join(words)
