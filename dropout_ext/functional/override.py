"""``__torch_function__``: tensor-like arguments and active modes may override a call."""

import functools
from collections.abc import Callable
from typing import Any, TypeVar

from torch import Tensor
from torch.overrides import (
    handle_torch_function,
    has_torch_function,
    has_torch_function_unary,
)

Function = TypeVar("Function", bound=Callable[..., Any])


def overridable(function: Function) -> Function:
    """Lets the first argument override the function."""

    @functools.wraps(function)
    def wrapper(input: Tensor, *args: Any, **kwargs: Any) -> Any:
        if has_torch_function_unary(input):
            return handle_torch_function(wrapper, (input,), input, *args, **kwargs)
        return function(input, *args, **kwargs)

    return wrapper  # type: ignore[return-value]


def overridable_by_any(function: Function) -> Function:
    """Lets any argument override the function."""

    @functools.wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        arguments = (*args, *kwargs.values())
        if has_torch_function(arguments):
            return handle_torch_function(wrapper, arguments, *args, **kwargs)
        return function(*args, **kwargs)

    return wrapper  # type: ignore[return-value]
