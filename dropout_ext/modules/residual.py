"""Stochastic depth."""

from torch import Generator, Tensor

from dropout_ext import functional as F
from dropout_ext.functional.checks import check_depth, either_name
from dropout_ext.integration.fx import leaf
from dropout_ext.modules.base import DropoutModule


class DropPath(DropoutModule):
    """Drop-in for timm's ``DropPath``; see :func:`dropout_ext.functional.drop_path`.

    Args:
        p: probability of a sample to be zeroed, in [0, 1].
        scale_by_keep: scale the other samples by ``1 / (1 - p)``.
        generator: takes the place of the default generator of the input's device.
        drop_prob: timm's name of ``p``; also an attribute.

    Shape:
        Input and output: (N, ...), the same.

    Raises:
        ValueError: if p is not a number in [0, 1], or given by both names.
    """

    def __init__(
        self,
        p: float = 0.0,
        scale_by_keep: bool = True,
        *,
        generator: Generator | None = None,
        drop_prob: float | None = None,
    ) -> None:
        super().__init__(either_name(p, drop_prob), generator)
        self.scale_by_keep = scale_by_keep

    @property
    def drop_prob(self) -> float:
        return self.p

    @drop_prob.setter
    def drop_prob(self, p: float) -> None:
        self.p = p

    @leaf
    def forward(self, input: Tensor, *, rng_state: Tensor | None = None) -> Tensor:
        return F.drop_path(
            input,
            self.p,
            self.training,
            self.scale_by_keep,
            generator=self.generator if rng_state is None else None,
            rng_state=rng_state,
        )

    def extra_repr(self) -> str:
        return f"drop_prob={round(self.p, 3):0.3f}"


class StochasticDepth(DropoutModule):
    """Drop-in for ``torchvision.ops.StochasticDepth``.

    See :func:`dropout_ext.functional.stochastic_depth`.

    Args:
        p: probability to be zeroed, in [0, 1].
        mode: ``"row"``: each sample of the batch by itself, ``"batch"``: all or none.
        generator: takes the place of the default generator of the input's device.

    Shape:
        Input and output: (N, ...), the same.

    Raises:
        ValueError: if p is not a number in [0, 1], or for another mode.
    """

    def __init__(self, p: float, mode: str, *, generator: Generator | None = None) -> None:
        check_depth(p, mode)
        super().__init__(p, generator)
        self.mode = mode

    @leaf
    def forward(self, input: Tensor, *, rng_state: Tensor | None = None) -> Tensor:
        return F.stochastic_depth(
            input,
            self.p,
            self.mode,
            self.training,
            generator=self.generator if rng_state is None else None,
            rng_state=rng_state,
        )

    def extra_repr(self) -> str:
        return f"p={self.p}, mode={self.mode}"
