"""One compiled graph for many probabilities.

Dynamo makes a symbol of a number that changes between calls, an argument or an attribute of a
module. An operator that takes a float would make a constant of it again, and compile for each; one
that takes a tensor without dimensions does not.
"""

from typing import Any

import torch
from torch import SymFloat, Tensor

from dropout_ext.integration.torch_private import (
    TransformType,
    assume_constant_result,
    has_static_value,
    interpreter_stack,
)

_op = torch.ops.dropout_ext.dropout_p


def is_symbol(p: Any) -> bool:
    """Whether Dynamo traces this number as a symbol."""
    return isinstance(p, float | SymFloat) and not has_static_value(p)


@assume_constant_result
def is_transformed() -> bool:
    """Whether torch.func differentiates what is traced: the operator has no rule for that."""
    of = TransformType.Grad, TransformType.Jvp
    return any(level.key() in of for level in interpreter_stack() or ())


def as_tensor(p: float) -> Tensor:
    """In the arithmetic of tensors, which Inductor's pass for symbols understands."""
    return torch.zeros((), dtype=torch.float64, device="cpu") + p


def _save(
    ctx: Any, inputs: tuple[Any, ...], keyword_only_inputs: dict[str, Any], output: Any
) -> None:
    _, p, rng_state = inputs
    ctx.save_for_backward(p, rng_state)
    # The map and the factor, without what is added: dropout is linear but for that.
    ctx.linear = {
        name: keyword_only_inputs[name] for name in ("mask_strides", "mask_base", "scale")
    }


def _backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
    p, rng_state = ctx.saved_tensors
    return _op(gradient, p, rng_state, **ctx.linear), None, None


def register(library: torch.library.Library) -> None:
    """Registers the derivative for as long as the library lives."""
    torch.library.register_autograd(
        "dropout_ext::dropout_p", _backward, setup_context=_save, lib=library
    )
