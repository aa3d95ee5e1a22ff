"""Base classes of the modules."""

from torch import Generator, Tensor, nn

from dropout_ext.functional.checks import check_probability


class DropoutModule(nn.Module):
    """The base class of every dropout of this package.

    ``forward(input, *, rng_state=None)`` of each takes the state of the call: it takes the place
    of a draw from any generator, that of the module too.

    Attributes:
        p: probability to be dropped, in [0, 1].
        generator: takes the place of the default generator of the input's device. None is the
            class's, so that a module of torch.nn can change its class to one of these.
    """

    p: float
    generator: Generator | None = None

    def __init__(self, p: float, generator: Generator | None) -> None:
        number = check_probability(p)
        super().__init__()
        self.p = p if isinstance(p, Tensor) else number
        if generator is not None:
            self.generator = generator


class TorchDropout(DropoutModule):
    """The arguments that all dropouts of torch.nn share.

    Each subclass is also one of its namesake, so that code which looks for dropouts finds it.
    """

    inplace: bool

    def __init__(
        self, p: float = 0.5, inplace: bool = False, *, generator: Generator | None = None
    ) -> None:
        super().__init__(p, generator)
        self.inplace = inplace

    def extra_repr(self) -> str:
        return f"p={self.p}, inplace={self.inplace}"
