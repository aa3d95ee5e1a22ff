"""Bad input is an error, in torch's words where it has some, before anything is drawn."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from dropout_ext import functional as F
from tests.attention.composition import random, rng_state

X = random(2, 4, 5, 8)
WRONG: dict[str, tuple[dict[str, Any], type[Exception], str]] = {
    "dtype": ({"value": X.double()}, RuntimeError, "to have the same dtype, but got query.dtype"),
    "half": ({"query": X.half()}, RuntimeError, "to have the same dtype, but got query.dtype"),
    "integer": ({"query": X.long(), "key": X.long(), "value": X.long()}, TypeError, "float64"),
    "width": ({"key": X[..., :7]}, RuntimeError, "must have shapes"),
    "keys": ({"value": X[:, :, :4]}, RuntimeError, "must have shapes"),
    "heads": ({"key": X[:, :2], "value": X[:, :2]}, RuntimeError, "broadcast"),
    "groups": (
        {"key": X[:, :3], "value": X[:, :3], "enable_gqa": True},
        RuntimeError,
        "must divide the number of heads in query",
    ),
    "batches": ({"key": X[:1].repeat(3, 1, 1, 1)}, RuntimeError, "broadcast"),
    "one dimension": (
        {"query": X[0, 0, 0]},
        RuntimeError,
        "to all be  at least 2 dimensional, but got query.dim: 1",
    ),
    "no tensor": (
        {"key": None},
        TypeError,
        r"argument 'key' \(position 2\) must be Tensor, not NoneType",
    ),
    "no mask": (
        {"attn_mask": 5},
        TypeError,
        r"argument 'attn_mask' \(position 4\) must be Tensor, not int",
    ),
    "causal by number": ({"is_causal": 1}, TypeError, "'is_causal' must be bool, not int"),
    "scale by name": ({"scale": "a"}, TypeError, "'scale' must be float, not str"),
    "learned scale": (
        {"scale": torch.nn.Parameter(torch.tensor(0.5))},
        TypeError,
        "'scale' must be float, not Parameter",
    ),
    "learned probability": (
        {"dropout_p": torch.tensor(0.5, requires_grad=True)},
        TypeError,
        r"scaled_dot_product_attention\(\): argument 'dropout_p' must be float, not Tensor",
    ),
    "sparse mask": ({"attn_mask": torch.ones(5, 5).to_sparse()}, RuntimeError, "must be strided"),
    "mask dtype": (
        {"attn_mask": torch.ones(5, 5, dtype=torch.uint8)},
        RuntimeError,
        "Expected attn_mask dtype to be bool or float or to match query dtype",
    ),
    "mask shape": (
        {"attn_mask": torch.ones(3, 5, 5, dtype=torch.bool)},
        RuntimeError,
        "must be broadcastable to the weights",
    ),
    "mask dims": (
        {"attn_mask": torch.ones(1, 2, 4, 5, 5, dtype=torch.bool)},
        RuntimeError,
        "must be broadcastable to the weights",
    ),
    "causal and a mask": (
        {"attn_mask": torch.ones(5, 5, dtype=torch.bool), "is_causal": True},
        RuntimeError,
        "Explicit attn_mask should not be set when is_causal=True",
    ),
    "probability": ({"dropout_p": 1.5}, ValueError, "between 0 and 1, but got 1.5"),
    "two sources": (
        {"generator": torch.Generator(), "rng_state": rng_state()},
        ValueError,
        "must not both be given",
    ),
    "state": ({"rng_state": rng_state().float()}, TypeError, "rng_state must be int64"),
    "states": ({"rng_state": rng_state().repeat(2, 1)}, ValueError, "must have shape"),
    "shard": (
        {"shard": ((2, 4, 5, 4), (0, 0, 0, 0))},
        ValueError,
        "does not lie within the global shape",
    ),
    "shard dims": ({"shard": ((5, 5), (0, 0))}, ValueError, "global shape"),
    "device": ({"value": X.to("meta")}, RuntimeError, "same device type"),
}


@pytest.mark.parametrize("name", WRONG)
def test_error_before_anything_is_drawn(name: str) -> None:
    wrong, kind, words = WRONG[name]
    arguments: dict[str, Any] = {"query": X, "key": X, "value": X, "dropout_p": 0.5, **wrong}
    before = torch.get_rng_state()
    with pytest.raises(kind, match=words):
        F.scaled_dot_product_attention(**arguments)
    assert torch.equal(torch.get_rng_state(), before)


def test_inference_tensors_that_autograd_cannot_save() -> None:
    with torch.inference_mode():
        mask = torch.zeros(5, 5)
    before = torch.get_rng_state()
    with pytest.raises(RuntimeError, match="Inference tensors cannot be saved"):
        F.scaled_dot_product_attention(X.clone().requires_grad_(), X, X, mask, dropout_p=0.5)
    assert torch.equal(torch.get_rng_state(), before)
    F.scaled_dot_product_attention(X, X, X, mask, dropout_p=0.5)


def test_scale_of_a_transform() -> None:
    """torch.func hides from the operator that a number is differentiated."""

    def loss(scale: torch.Tensor) -> torch.Tensor:
        return F.scaled_dot_product_attention(X, X, X, dropout_p=0.5, scale=scale).sum()

    with pytest.raises(TypeError, match="'scale' must be float"):
        torch.func.grad(loss)(torch.tensor(0.5))


def test_operator_refuses_gradients_of_other_shapes() -> None:
    op = torch.ops.dropout_ext.attention_backward
    output, softmax = torch.ops.dropout_ext.attention(X, X, X, None, 0.5, rng_state())
    given = {"grad_output": output, "output": output, "softmax": softmax}
    wrong = {
        "grad_output": output[:1, :1],
        "output": output.double(),
        "softmax": softmax[..., :3, :],
    }
    for name, tensor in wrong.items():
        grad, o, s = {**given, name: tensor}.values()
        with pytest.raises(RuntimeError, match=f"attention_backward: {name} must have the shape"):
            op(grad, X, X, X, None, o, s, 0.5, rng_state())
    with pytest.raises(RuntimeError, match="only an attn_mask of floating point has a gradient"):
        op(output, X, X, X, None, output, softmax, 0.5, rng_state(), attn_mask_gradient=True)


def test_operator_refuses_strides_it_cannot_take() -> None:
    op = torch.ops.dropout_ext.attention
    with pytest.raises(ValueError, match="last of the mask_strides must be 1, but got 2"):
        op(X, X, X, None, 0.5, rng_state(), mask_strides=[1, 1, 1, 2])
    with pytest.raises(ValueError, match="one entry for each of the 4"):
        op(X, X, X, None, 0.5, rng_state(), mask_strides=[1])
    with pytest.raises(ValueError, match="rng_state must have shape"):
        op(X, X, X, None, 0.5, rng_state().repeat(3, 1))
