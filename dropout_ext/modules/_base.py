"""What the modules have in common."""

from torch import Generator, nn

from dropout_ext._checks import check_probability


class DropoutModule(nn.Module):
    """Every dropout of this package is one.

    Attributes:
        p: probability to be dropped, in [0, 1].
        generator: takes the place of the default generator of the input's device. A default of
            the class, so that a module of torch.nn can become one of these.
    """

    p: float
    generator: Generator | None = None

    def __init__(self, p: float, generator: Generator | None) -> None:
        check_probability(p)
        super().__init__()
        self.p = p
        if generator is not None:
            self.generator = generator


class TorchDropout(DropoutModule):
    """The arguments that all dropouts of torch.nn share.

    Each is also an instance of its namesake, for the sake of code that looks for dropouts.
    """

    inplace: bool

    def __init__(
        self, p: float = 0.5, inplace: bool = False, *, generator: Generator | None = None
    ) -> None:
        super().__init__(p, generator)
        self.inplace = inplace

    def extra_repr(self) -> str:
        return f"p={self.p}, inplace={self.inplace}"
