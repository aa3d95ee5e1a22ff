"""Modules."""

from torch import Generator, Tensor, nn

from dropout_ext import functional as F
from dropout_ext._checks import check_probability

__all__ = ["Dropout"]


class Dropout(nn.Module):
    """Drop-in for :class:`torch.nn.Dropout`; see :func:`dropout_ext.functional.dropout`.

    Args:
        p: probability of an element to be zeroed, in [0, 1].
        inplace: write the result into the input.
        generator: takes the place of the default generator of the input's device.

    Shape:
        Input and output: any, the same.

    Raises:
        ValueError: if p is not a number in [0, 1].
    """

    __constants__ = ["inplace", "p"]
    p: float
    inplace: bool
    generator: Generator | None

    def __init__(
        self, p: float = 0.5, inplace: bool = False, *, generator: Generator | None = None
    ) -> None:
        super().__init__()
        check_probability(p)
        self.p = p
        self.inplace = inplace
        self.generator = generator

    def forward(self, input: Tensor) -> Tensor:
        return F.dropout(
            input, self.p, self.training, self.inplace, generator=self.generator
        )

    def extra_repr(self) -> str:
        return f"p={self.p}, inplace={self.inplace}"
