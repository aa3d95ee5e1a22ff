"""Modules whose forward calls torch's dropout as a function, in a class that redirects it."""

from __future__ import annotations

import functools
import inspect
from typing import Any, NamedTuple

from torch import Generator, nn

from dropout_ext.functional.attention_choice import Attention
from dropout_ext.models.redirect import redirect_torch_dropout


class Options(NamedTuple):
    """The arguments of the redirection: see :class:`redirect_torch_dropout`."""

    generator: Generator | None = None
    attention: Attention = "auto"


class Redirected:
    """The mark of such a class, whose other base is the class of the module."""

    dropout_ext = Options()

    def __init_subclass__(cls, **_: Any) -> None:
        """Not that of the module's class, which may keep a list of its subclasses."""


_made: dict[type[nn.Module], type[nn.Module]] = {}


def redirected(cls: type[nn.Module]) -> type[nn.Module]:
    """The subclass whose forward, in training, runs under :class:`redirect_torch_dropout`.

    There is one of each class. It goes by the name of its base, for libraries that look at names,
    and pickles as one.
    """
    return _made.get(cls) or _made.setdefault(cls, _make(cls))


def _make(cls: type[nn.Module]) -> type[nn.Module]:
    @functools.wraps(cls.forward)
    def forward(self: Any, *args: Any, **kwargs: Any) -> Any:
        if not self.training:
            return cls.forward(self, *args, **kwargs)
        with redirect_torch_dropout(**self.dropout_ext._asdict()):
            return cls.forward(self, *args, **kwargs)

    del forward.__wrapped__  # libraries call what it names, to undo what they wrapped
    forward.__signature__ = inspect.signature(cls.forward)  # type: ignore[attr-defined]

    def __reduce_ex__(self: Any, protocol: Any) -> Any:
        make, args, *state = super(made, self).__reduce_ex__(protocol)
        if make is made:
            return _unpickle, (cls, None, args), *state
        if args[:1] == (made,):
            return _unpickle, (cls, make, args[1:]), *state
        return make, args, *state

    namespace = {
        "forward": forward,
        "__reduce_ex__": __reduce_ex__,
        "__module__": cls.__module__,
        "__qualname__": cls.__qualname__,
        "__doc__": cls.__doc__,
    }
    made: type[nn.Module] = type(cls.__name__, (Redirected, cls), namespace)
    return made


def _unpickle(cls: type[nn.Module], make: Any, args: tuple[Any, ...]) -> Any:
    if make is not None:
        return make(redirected(cls), *args)
    module = cls(*args)
    module.__class__ = redirected(cls)
    return module


def without_redirection(cls: type[nn.Module]) -> type[nn.Module] | None:
    """The class that :func:`redirected` made this one from; None if another made it from that."""
    return next((theirs for theirs, ours in _made.items() if ours is cls), None)
