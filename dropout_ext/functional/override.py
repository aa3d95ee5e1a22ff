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

from dropout_ext.integration import fx

Function = TypeVar("Function", bound=Callable[..., Any])


def overridden(function: Callable[..., Any], input: Any, *args: Any, **kwargs: Any) -> Any:
    """A call as what overrides its input has it."""
    state = kwargs.get("rng_state")
    call = fx.module_call(input, **({} if state is None else {"rng_state": state}))
    if call is not None:
        return call
    return handle_torch_function(function, (input,), input, *args, **kwargs)


def overridable(function: Function) -> Function:
    """Lets the first argument override the function."""

    @functools.wraps(function)
    def wrapper(input: Tensor, *args: Any, **kwargs: Any) -> Any:
        if has_torch_function_unary(input):
            return overridden(wrapper, input, *args, **kwargs)
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
