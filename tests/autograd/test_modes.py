"""Modes and subclasses see the call; debugging aids work.

Catches: the eager shortcut taken past somebody who wants to see what is called.
"""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch.overrides import TorchFunctionMode
from torch.profiler import ProfilerActivity, profile
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map

import dropout_ext
from dropout_ext import functional as F
from tests.helpers.compare import state


class SeenFunctions(TorchFunctionMode):
    def __init__(self) -> None:
        super().__init__()
        self.seen: list[Any] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.seen.append(func)
        return func(*args, **(kwargs or {}))


class SeenOperators(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.seen.append(str(func))
        return func(*args, **(kwargs or {}))


def test_function_mode(device: torch.device) -> None:
    x = torch.ones(50, device=device)
    with SeenFunctions() as mode:
        F.dropout(x)
        F.dropout(x, training=False)
    assert mode.seen.count(F.dropout) == 2


@pytest.mark.parametrize("inplace", [False, True])
@pytest.mark.parametrize("grad", [False, True])
def test_dispatch_mode(device: torch.device, inplace: bool, grad: bool) -> None:
    """Forward and backward, and the same bits as without the mode."""
    x = torch.ones(200, device=device, requires_grad=grad)
    torch.manual_seed(3)
    expected = F.dropout(x.clone(), 0.5, inplace=inplace)
    torch.manual_seed(3)
    with SeenOperators() as mode:
        y = F.dropout(x.clone(), 0.5, inplace=inplace)
        if grad:
            y.sum().backward()
    assert torch.equal(y, expected)
    assert mode.seen.count("dropout_ext.draw.default") == 1
    assert sum(name.startswith("dropout_ext.dropout") for name in mode.seen) == 1 + grad


class Wrapper(torch.Tensor):
    """A subclass that holds a tensor, as DTensor and quantised tensors do."""

    inner: torch.Tensor
    seen: list[str] = []  # noqa: RUF012

    @staticmethod
    def __new__(cls, inner: torch.Tensor) -> Any:
        return torch.Tensor._make_wrapper_subclass(
            cls, inner.shape, dtype=inner.dtype, device=inner.device
        )

    def __init__(self, inner: torch.Tensor) -> None:
        self.inner = inner

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        cls.seen.append(str(func))
        plain = tree_map(lambda t: t.inner if isinstance(t, Wrapper) else t, (args, kwargs or {}))
        return tree_map(
            lambda t: Wrapper(t) if isinstance(t, torch.Tensor) else t, func(*plain[0], **plain[1])
        )


def test_wrapper_subclass(device: torch.device) -> None:
    x = torch.ones(200, device=device)
    Wrapper.seen.clear()
    torch.manual_seed(1)
    y = F.dropout(Wrapper(x), 0.5)
    torch.manual_seed(1)
    assert isinstance(y, Wrapper)
    assert torch.equal(y.inner, F.dropout(x, 0.5))
    assert Wrapper.seen == ["dropout_ext.draw.default", "dropout_ext.dropout.default"]


def test_function_subclass(device: torch.device) -> None:
    seen = []

    class Subclass(torch.Tensor):
        @classmethod
        def __torch_function__(
            cls, func: Any, types: Any, args: Any = (), kwargs: Any = None
        ) -> Any:
            seen.append(func)
            return super().__torch_function__(func, types, args, kwargs or {})

    y = dropout_ext.Dropout()(torch.ones(9, device=device).as_subclass(Subclass))
    assert isinstance(y, Subclass)
    assert F.dropout in seen


def test_anomaly_mode(device: torch.device) -> None:
    """It names our node as the one that made a NaN, and where it was called."""
    x = torch.ones(5, device=device, requires_grad=True)
    with (
        pytest.warns(UserWarning, match="Anomaly Detection"),
        torch.autograd.detect_anomaly(),
        pytest.warns(UserWarning, match="Error detected in DropoutBackward.*"),
        pytest.raises(RuntimeError, match="'DropoutBackward' returned nan values"),
    ):
        y = F.dropout(x, 1e-12, rng_state=state((1, 2), device))
        y.backward(torch.full_like(y, float("nan")))


def test_deterministic_algorithms(device: torch.device) -> None:
    x = torch.ones(500, device=device, requires_grad=True)
    torch.use_deterministic_algorithms(True)
    try:
        y = F.dropout(x, 0.5)
        y.sum().backward()
    finally:
        torch.use_deterministic_algorithms(False)
    assert x.grad is not None
    assert torch.equal(x.grad, y.detach())


def test_module_hooks(device: torch.device) -> None:
    seen: list[str] = []
    module = dropout_ext.Dropout(0.5)
    module.register_forward_pre_hook(lambda *_: seen.append("before"))
    module.register_forward_hook(lambda *_: seen.append("after"))
    module.register_full_backward_pre_hook(lambda *_: seen.append("backward"))
    module.register_full_backward_hook(lambda *_: seen.append("gradient"))
    x = torch.ones(50, device=device, requires_grad=True)
    y = module(x)
    y.sum().backward()
    assert seen == ["before", "after", "backward", "gradient"]
    assert x.grad is not None
    assert torch.equal(x.grad, y.detach())


def test_profiler(device: torch.device) -> None:
    with profile(activities=[ProfilerActivity.CPU], acc_events=True) as run:
        F.dropout(torch.ones(50, device=device))
    assert "dropout_ext::dropout" in [event.key for event in run.key_averages()]


def test_default_device_context() -> None:
    """torch.device("meta") as a context is a mode that adds devices to factory calls."""
    with torch.device("meta"):
        y = dropout_ext.Dropout(0.5)(torch.ones(3, 4))
    assert y.is_meta


def test_deferred_init() -> None:
    """A model built without memory, then given some, trains."""
    with torch.device("meta"):
        model = torch.nn.Sequential(torch.nn.Linear(4, 4), dropout_ext.Dropout(0.5))
    model.to_empty(device="cpu")
    for p in model.parameters():
        torch.nn.init.ones_(p)
    y = model(torch.ones(50, 4))
    y.sum().backward()
    assert y.eq(0).any()


def test_autocast_and_grad_scaler(device: torch.device) -> None:
    """A step in mixed precision: the mask of a scaled gradient is the one of the output."""
    scaler = torch.amp.GradScaler(device.type, init_scale=1024.0)
    linear, dropout = torch.nn.Linear(20, 30).to(device), dropout_ext.Dropout(0.5)
    optimizer = torch.optim.SGD(linear.parameters(), lr=0.1)
    with torch.autocast(device.type, torch.bfloat16):
        hidden = linear(torch.ones(8, 20, device=device))
        hidden.retain_grad()
        y = dropout(hidden)
        assert y.dtype == torch.bfloat16
    scaler.scale(y.float().sum()).backward()
    assert torch.equal(hidden.grad, y.ne(0) * torch.full_like(y, 2048.0))
    before = copy.deepcopy(linear.state_dict())
    scaler.step(optimizer)
    scaler.update()
    assert not torch.equal(before["weight"], linear.weight)


def test_weights_only_load(tmp_path: Any) -> None:
    """Checkpoints of weights, and the module itself once its class is declared safe."""
    model = torch.nn.Sequential(torch.nn.Linear(3, 3), dropout_ext.Dropout(0.3))
    torch.save(model.state_dict(), tmp_path / "state")
    model.load_state_dict(torch.load(tmp_path / "state", weights_only=True))
    torch.save(dropout_ext.Dropout(0.3), tmp_path / "module")
    with torch.serialization.safe_globals([dropout_ext.Dropout]):
        assert torch.load(tmp_path / "module", weights_only=True).p == 0.3
