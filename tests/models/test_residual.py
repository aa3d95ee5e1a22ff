"""DropPath and StochasticDepth are timm's and torchvision's; what torch.nn lacks shows in repr.

Catches: a decision shared along the wrong dimensions; a name, default or message that differs.
"""

from __future__ import annotations

import pytest
import torch
import torch._dynamo

import dropout_ext
from dropout_ext import functional as F
from tests.helpers.compare import shared_dims


def test_drop_path_is_timms() -> None:
    x = torch.ones(400, 2, 3)
    y = dropout_ext.DropPath(0.25)(x)
    assert shared_dims(y) == [False, True, True]
    assert set(y.unique().tolist()) == {0.0, torch.tensor(4 / 3).item()}
    y = dropout_ext.DropPath(0.25, scale_by_keep=False)(x)
    assert set(y.unique().tolist()) == {0.0, 1.0}
    module = dropout_ext.DropPath(0.12345)
    assert repr(module) == "DropPath(drop_prob=0.123)"
    assert module.drop_prob == module.p == 0.12345
    module.drop_prob = 0.0
    assert module(x) is x
    assert dropout_ext.DropPath()(x) is x
    assert dropout_ext.DropPath(drop_prob=0.25).p == 0.25
    torch.manual_seed(0)
    expected = F.drop_path(x, 0.25, training=True)
    torch.manual_seed(0)
    assert torch.equal(F.drop_path(x, drop_prob=0.25, training=True), expected)
    with pytest.raises(ValueError, match="two names of one"):
        dropout_ext.DropPath(0.25, drop_prob=0.5)
    assert F.drop_path(x, 0.5) is x
    with pytest.raises(IndexError, match="0-D"):
        F.drop_path(torch.ones(()), 0.5, True)


def test_stochastic_depth_is_torchvisions() -> None:
    x = torch.ones(400, 2, 3)
    assert shared_dims(dropout_ext.StochasticDepth(0.5, "row")(x)) == [False, True, True]
    assert shared_dims(dropout_ext.StochasticDepth(0.5, "batch")(x)) == [True, True, True]
    module = dropout_ext.StochasticDepth(0.2, mode="row")
    assert repr(module) == "StochasticDepth(p=0.2, mode=row)"
    assert module.eval()(x) is x
    message = "mode has to be either 'batch' or 'row', but got column"
    with pytest.raises(ValueError, match=message):
        F.stochastic_depth(x, 0.5, "column")
    with pytest.raises(ValueError, match="drop probability has to be between 0 and 1, but got 2"):
        F.stochastic_depth(x, 2, "row")


def test_repr_of_what_torch_does_not_have() -> None:
    module = dropout_ext.Dropout(0.1, broadcast_dims=-2, mode="downscale_in_infer")
    expected = "Dropout(p=0.1, inplace=False, broadcast_dims=(-2,), mode=downscale_in_infer)"
    assert repr(module) == expected
    assert dropout_ext.Dropout(broadcast_dims=[0, 1]).broadcast_dims == (0, 1)
