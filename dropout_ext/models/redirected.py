"""Modules whose forward calls torch's dropout as a function, in a class that redirects it."""

from __future__ import annotations

import functools
from typing import Any

from torch import Generator, nn

from dropout_ext.functional.attention_choice import Attention
from dropout_ext.models.redirect import redirect_torch_dropout


class Redirected:
    """The mark of such a class, whose other base is the class of the module."""

    dropout_generator: Generator | None = None
    dropout_attention: Attention = "auto"


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
        with redirect_torch_dropout(
            generator=self.dropout_generator, attention=self.dropout_attention
        ):
            return cls.forward(self, *args, **kwargs)

    def __reduce_ex__(self: Any, protocol: Any) -> Any:
        make, args, *state = super(made, self).__reduce_ex__(protocol)
        if args[:1] != (made,):  # a way of its own
            return make, args, *state
        return _unpickle, (make, cls, *args[1:]), *state

    namespace = {
        "forward": forward,
        "__reduce_ex__": __reduce_ex__,
        "__module__": cls.__module__,
        "__qualname__": cls.__qualname__,
        "__doc__": cls.__doc__,
    }
    made: type[nn.Module] = type(cls.__name__, (Redirected, cls), namespace)
    return made


def _unpickle(make: Any, cls: type[nn.Module], *rest: Any) -> Any:
    return make(redirected(cls), *rest)


def without_redirection(cls: type[nn.Module]) -> type[nn.Module]:
    """The class that :func:`redirected` was made from."""
    _, base = cls.__bases__
    return base
