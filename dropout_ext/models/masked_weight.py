"""The weights that a module with DropConnect reads in training: made anew at each read."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from dropout_ext.integration.torch_private import DisableTorchFunctionSubclass, is_view

# End like functions that write, and leave the values alone.
_NO_WRITES = {"requires_grad_", "detach_", "share_memory_", "rename_"}


class MaskedWeight(Tensor):
    """Refuses to be written to, as what is written would be lost without a word.

    Itself and what looks into its memory: views, ``detach()`` and ``data``. All else that is
    computed from it is a plain tensor.
    """

    @classmethod
    def __torch_function__(
        cls,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        written = (*args[:1], kwargs.get("out"), kwargs.get("tensor"))  # the latter by nn.init
        name = getattr(func, "__name__", "")
        if _writes(name, kwargs) and any(isinstance(tensor, cls) for tensor in written):
            raise RuntimeError(
                f"DropConnect: {name} would write into masked weights, which are made anew each "
                "time the parameter is read in training, and be lost. Write to "
                "parametrizations.<name>.original of the module under torch.no_grad(), assign to "
                "the parameter, or call eval() before"
            )
        with DisableTorchFunctionSubclass():
            result = func(*args, **kwargs)
        looks_in = func == Tensor.data.__get__ or name == "detach"  # type: ignore[attr-defined]
        return _guarded(result, looks_in)


def _writes(name: str, kwargs: dict[str, Any]) -> bool:
    inplace = name.endswith("_") and not name.endswith("__") and name not in _NO_WRITES
    augmented = name.startswith("__i") and name not in ("__invert__", "__index__", "__int__")
    return inplace or augmented or name in ("__setitem__", "__set__") or "out" in kwargs


def _guarded(result: Any, looks_in: bool) -> Any:
    if type(result) is Tensor:
        return result.as_subclass(MaskedWeight) if looks_in or is_view(result) else result
    if type(result) in (tuple, list):
        return type(result)(_guarded(item, looks_in) for item in result)
    return result


def guard(weight: Tensor) -> Tensor:
    """A plain tensor of eager code as one that refuses to be written to; others as they are."""
    if type(weight) is not Tensor or torch.compiler.is_compiling():
        return weight
    return weight.as_subclass(MaskedWeight)
