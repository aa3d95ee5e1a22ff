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
    "one dimension": ({"query": X[0, 0, 0]}, RuntimeError, "must have shapes"),
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


def test_operator_refuses_strides_it_cannot_take() -> None:
    op = torch.ops.dropout_ext.attention
    with pytest.raises(ValueError, match="last of the mask_strides must be 1, but got 2"):
        op(X, X, X, None, 0.5, rng_state(), mask_strides=[1, 1, 1, 2])
    with pytest.raises(ValueError, match="one entry for each of the 4"):
        op(X, X, X, None, 0.5, rng_state(), mask_strides=[1])
    with pytest.raises(ValueError, match="rng_state must have shape"):
        op(X, X, X, None, 0.5, rng_state().repeat(3, 1))
