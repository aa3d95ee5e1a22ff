"""Bad input: each row of the table of errors, its type, the value it names, and nothing changed.

Catches: an error raised after something was written or drawn; a message that leaves out what was
found; an unsupported dtype that silently takes another path.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

import dropout_ext
from dropout_ext import functional as F
from tests.helpers.compare import state

ops = torch.ops.dropout_ext


@pytest.fixture(params=["eager", "traced"])
def entry(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Both ways into functional.dropout: as called, and as torch.compile traces it."""
    if request.param == "traced":
        monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    name: str = request.param
    return name


BAD_P: list[Any] = [
    *(-0.1, 1.1, 1 + 2.0**-52, -5e-324, float("inf"), float("nan"), "a half", None),
    *(np.array([0.5]), np.array([0.1, 0.2]), np.float32(1.5)),
]


@pytest.mark.parametrize("p", BAD_P)
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("inplace", [True, False])
def test_p(device: torch.device, entry: str, p: Any, training: bool, inplace: bool) -> None:
    if entry == "traced" and not isinstance(p, float):
        pytest.skip("a traced p is a number")
    x = torch.ones(5, device=device)
    with pytest.raises(ValueError, match=r"has to be between 0 and 1, but got ") as error:
        F.dropout(x, p, training, inplace)
    assert repr(p) in str(error.value)
    assert torch.equal(x, torch.ones_like(x))


@pytest.mark.parametrize("p", BAD_P)
def test_p_of_a_mask(p: Any) -> None:
    with pytest.raises(ValueError, match=r"has to be between 0 and 1, but got ") as error:
        F.dropout_mask((3,), p, rng_state=state((1, 2)))
    assert repr(p) in str(error.value)


@pytest.mark.parametrize(("strides", "base"), [([1], -1), ([-1], 4), (None, -7)])
def test_negative_mask_indices(device: torch.device, strides: list[int] | None, base: int) -> None:
    """Devices would disagree on what lies before the first block."""
    mapping = {"mask_strides": strides, "mask_base": base}
    x, rng_state = torch.ones(6, device=device), state((1, 2), device)
    for call in (
        lambda: ops.dropout(x, 0.5, rng_state, **mapping),
        lambda: ops.dropout_mask([6], 0.5, rng_state, **mapping),
    ):
        with pytest.raises(ValueError, match=f"must not be negative, but mask_base {base}"):
            call()
    assert torch.equal(x, torch.ones_like(x))
    assert ops.dropout(x, 0.5, rng_state, mask_strides=[-1], mask_base=5).shape == x.shape


@pytest.mark.parametrize("p", [-0.1, 1.1, float("nan")])
def test_p_of_the_ops(p: float) -> None:
    """Compiled code comes in here, past the Python functions."""
    for call in (
        lambda: ops.dropout(torch.ones(3), p, state((1, 2))),
        lambda: ops.dropout_mask([3], p, state((1, 2))),
    ):
        with pytest.raises((ValueError, RuntimeError), match=r"between 0 and 1, but got"):
            call()


BAD_DTYPES = [
    *(torch.int8, torch.uint8, torch.int16, torch.int32, torch.int64, torch.bool),
    *(torch.complex64, torch.complex128, torch.float8_e4m3fn),
]


@pytest.mark.parametrize("dtype", BAD_DTYPES)
@pytest.mark.parametrize("inplace", [True, False])
def test_dtype(device: torch.device, entry: str, dtype: torch.dtype, inplace: bool) -> None:
    x = torch.ones(5, device=device).to(dtype)
    name = str(dtype).removeprefix("torch.")
    with pytest.raises(TypeError) as error:
        F.dropout(x, 0.5, inplace=inplace)
    assert name in str(error.value) or scalar_type_name(dtype) in str(error.value)
    with pytest.raises(TypeError):
        F.dropout(x, 0.5, inplace=inplace, rng_state=state((1, 2), device))
    with pytest.raises(TypeError):
        ops.dropout(x, 0.5, state((1, 2), device))


def scalar_type_name(dtype: torch.dtype) -> str:
    """As C++ writes it."""
    names = {
        torch.int8: "Char",
        torch.uint8: "Byte",
        torch.int16: "Short",
        torch.int32: "Int",
        torch.int64: "Long",
        torch.bool: "Bool",
        torch.complex64: "ComplexFloat",
        torch.complex128: "ComplexDouble",
        torch.float8_e4m3fn: "Float8_e4m3fn",
    }
    return names[dtype]


@pytest.mark.filterwarnings("ignore:Sparse CSR tensor support is in beta")
@pytest.mark.parametrize("layout", ["coo", "csr", "mkldnn"])
@pytest.mark.parametrize("explicit", [True, False])
def test_layout(layout: str, explicit: bool) -> None:
    dense = torch.eye(4)
    x = {
        "coo": lambda: dense.to_sparse(),
        "csr": lambda: dense.to_sparse_csr(),
        "mkldnn": lambda: dense.to_mkldnn(),
    }[layout]()
    with pytest.raises(TypeError, match=r"(?i)sparse|mkldnn"):
        F.dropout(x, 0.5, rng_state=state((1, 2)) if explicit else None)


def test_input_is_a_tensor() -> None:
    """Also where the input itself would be the result."""
    for x in ([1.0, 2.0], 3.0, None):
        for options in ({}, {"p": 0.0}, {"training": False}):
            with pytest.raises(TypeError):
                F.dropout(x, **options)  # type: ignore[arg-type]
            with pytest.raises(TypeError):
                F.drop_path(x, **options)  # type: ignore[arg-type]


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
def test_strided_nested_tensor() -> None:
    nested = torch.nested.nested_tensor([torch.ones(2, 3), torch.ones(4, 3)])
    default = torch.get_rng_state()
    with pytest.raises(TypeError, match=r"nested.*jagged"):
        F.dropout(nested)
    assert torch.equal(torch.get_rng_state(), default)


def test_mode_is_checked_at_any_p() -> None:
    for p in (0.0, 0.5):
        with pytest.raises(ValueError, match="mode must be"):
            F.dropout(torch.ones(3), p, mode="typo")


def test_classic_form_of_integers() -> None:
    for training in (True, False):
        with pytest.raises(TypeError, match=r"int64|Long"):
            F.dropout(torch.ones(3, dtype=torch.long), training=training, mode="downscale_in_infer")


class Nothing(TorchDispatchMode):
    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore
        return func(*args, **(kwargs or {}))


def test_a_refused_call_draws_nothing() -> None:
    """Under a mode too, where the draw is an operator of its own."""
    leaf = torch.ones(5, requires_grad=True)
    overlapping = torch.ones(1).expand(5)
    default = torch.get_rng_state()
    with Nothing():
        for x in (leaf, overlapping):
            with pytest.raises(RuntimeError, match=r"leaf|single memory location"):
                F.dropout(x, inplace=True)
        with pytest.raises(TypeError, match=r"Long|int64"):
            F.dropout(torch.ones(5, dtype=torch.int64))
    assert torch.equal(torch.get_rng_state(), default)


def test_shard_beyond_all_indices() -> None:
    with pytest.raises(ValueError, match=r"2\^63"):
        F.dropout(torch.ones(2, 2), shard=((2**40, 2**40), (0, 0)))


def test_both_generator_and_rng_state(device: torch.device, entry: str) -> None:
    x = torch.ones(5, device=device)
    with pytest.raises((TypeError, ValueError, RuntimeError)) as error:
        F.dropout(x, generator=torch.Generator(device), rng_state=state((1, 2), device))
    assert "generator" in str(error.value)
    assert "rng_state" in str(error.value)


# Rng_state.

ERRORS = (TypeError, ValueError, RuntimeError)


@pytest.mark.parametrize("dtype", [torch.int32, torch.float64, torch.uint64, torch.bool])
def test_rng_state_dtype(device: torch.device, entry: str, dtype: torch.dtype) -> None:
    wrong = state((1, 2), device).to(dtype)
    with pytest.raises(ERRORS, match=r"rng_state") as error:
        F.dropout(torch.ones(5, device=device), rng_state=wrong)
    message = str(error.value).lower()
    assert "int64" in message or "long" in message
    with pytest.raises(ERRORS, match=r"rng_state"):
        F.dropout_mask((5,), rng_state=wrong)


@pytest.mark.parametrize("shape", [(), (1,), (3,), (0,), (1, 2), (2, 1), (5, 2)])
def test_rng_state_shape(device: torch.device, entry: str, shape: tuple[int, ...]) -> None:
    """A state for each row too: the operators take that, for the batching rules alone."""
    wrong = torch.ones(shape, dtype=torch.int64, device=device)
    with pytest.raises(ERRORS, match=r"rng_state") as error:
        F.dropout(torch.ones(5, 4, device=device), rng_state=wrong)
    assert str(list(shape)) in str(error.value) or str(tuple(shape)) in str(error.value)
    with pytest.raises(ERRORS, match=r"rng_state"):
        F.dropout_mask((5, 4), rng_state=wrong)


def test_rng_state_is_a_tensor() -> None:
    with pytest.raises(TypeError, match="rng_state must be a Tensor"):
        F.dropout(torch.ones(5), rng_state=[1, 2])  # type: ignore[arg-type]


def test_rng_state_of_another_device(entry: str) -> None:
    wrong = torch.empty(2, dtype=torch.int64, device="meta")
    with pytest.raises(ERRORS) as error:
        F.dropout(torch.ones(5), rng_state=wrong)
    assert "meta" in str(error.value)
    assert "cpu" in str(error.value)


@pytest.mark.needs_cuda
@pytest.mark.parametrize(("input_device", "other"), [("cpu", "cuda"), ("cuda", "cpu")])
def test_cpu_and_cuda_do_not_mix(input_device: str, other: str) -> None:
    x = torch.ones(5, device=input_device)
    for kwargs in ({"rng_state": state((1, 2), other)}, {"generator": torch.Generator(other)}):
        for inplace in (False, True):
            with pytest.raises(ERRORS) as error:
                F.dropout(x, inplace=inplace, **kwargs)
            assert "cpu" in str(error.value)
            assert "cuda" in str(error.value)
    assert torch.equal(x, torch.ones_like(x))


# In place.


def test_inplace_on_a_leaf_that_requires_grad(device: torch.device, entry: str) -> None:
    x = torch.ones(5, device=device, requires_grad=True)
    rng_tensor = state((1, 2), device)
    for call in (
        lambda: F.dropout(x, 0.5, inplace=True),
        lambda: F.dropout(x, 0.5, inplace=True, rng_state=rng_tensor),
        lambda: F.dropout(x[1:], 0.5, inplace=True, rng_state=rng_tensor),
    ):
        with pytest.raises(RuntimeError, match=r"leaf"):
            call()
    assert x._version == 0
    assert torch.equal(x.detach(), torch.ones(5, device=device))


@pytest.mark.parametrize("explicit", [True, False])
def test_inplace_on_memory_that_overlaps_itself(
    device: torch.device, entry: str, explicit: bool
) -> None:
    views = [torch.ones(1, device=device).expand(5)]
    if entry == "eager":  # traced code writes with copy_, which sees strides of 0 alone
        views.append(torch.ones(9, device=device).as_strided((3, 3), (2, 1)))
    for x in views:
        with pytest.raises(RuntimeError, match=r"overlap|single memory location"):
            F.dropout(x, 0.5, inplace=True, rng_state=state((1, 2), device) if explicit else None)
        assert torch.equal(x, torch.ones_like(x))


# What a Python caller may pass by mistake.


def test_p_is_shown_as_it_was_given() -> None:
    """Not "but got 0.5", which looks valid."""
    for call in (
        lambda: F.dropout(torch.ones(3), "0.5"),  # type: ignore[arg-type]
        lambda: F.alpha_dropout(torch.ones(3), "0.5", True),  # type: ignore[arg-type]
        lambda: F.stochastic_depth(torch.ones(3), "0.5", "row"),  # type: ignore[arg-type]
        lambda: dropout_ext.Dropout("0.5"),  # type: ignore[arg-type]
        lambda: dropout_ext.drop_connect(torch.nn.Linear(2, 2), "0.5"),  # type: ignore[arg-type]
    ):
        with pytest.raises(ValueError, match=r"has to be between 0 and 1, but got '0\.5'"):
            call()


FUNCTIONS: dict[str, Callable[[torch.Tensor, Any], torch.Tensor]] = {
    "dropout": F.dropout,
    "classic": lambda x, p: F.dropout(x, p, mode="downscale_in_infer"),
    "dropout1d": F.dropout1d,
    "alpha_dropout": lambda x, p: F.alpha_dropout(x, p, True),
    "drop_path": lambda x, p: F.drop_path(x, p, True),
    "stochastic_depth": lambda x, p: F.stochastic_depth(x, p, "row"),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_p_that_requires_grad(name: str) -> None:
    """Refused in torch's words: no gradient reaches it."""
    x, p = torch.ones(2, 3, 4), torch.tensor(0.5, requires_grad=True)
    words = r"argument 'p' \(position 2\) must be float, not Tensor"
    with pytest.raises(TypeError, match=words):
        torch.nn.functional.dropout(x, p)  # type: ignore[arg-type]
    before = torch.get_rng_state()
    for tensor in (p, p * 1):
        with pytest.raises(TypeError, match=words + r": it requires grad.*p\.detach\(\)"):
            FUNCTIONS[name](x, tensor)
    assert torch.equal(torch.get_rng_state(), before)
    with pytest.raises(TypeError, match=words + r": it has the shape \[1\]"):
        FUNCTIONS[name](x, torch.tensor([0.5]))
    torch.manual_seed(1)
    expected = FUNCTIONS[name](x, 0.5)
    torch.manual_seed(1)
    assert torch.equal(FUNCTIONS[name](x, p.detach()), expected)


INDICES: list[Any] = [
    1, np.int64(1), np.array(1), np.array([1]), torch.tensor(1), torch.tensor([1]), [np.int32(1)],
    (torch.tensor(1),), {1}, range(1, 2), -2, np.int8(-2),
]  # fmt: skip


@pytest.mark.parametrize("dims", INDICES, ids=repr)
def test_dimensions_are_whatever_is_an_index(dims: Any) -> None:
    x, rng_state = torch.ones(2, 3, 4), state((1, 2))
    expected = F.dropout(x, rng_state=rng_state, broadcast_dims=(1,))
    assert torch.equal(F.dropout(x, rng_state=rng_state, broadcast_dims=dims), expected)
    mask = F.dropout_mask(x.shape, rng_state=rng_state, broadcast_dims=dims)
    assert torch.equal(mask, expected != 0)
    module = dropout_ext.Dropout(broadcast_dims=dims)
    assert torch.equal(module(x, rng_state=rng_state), expected)
    assert all(type(d) is int for d in module.broadcast_dims)


@pytest.mark.parametrize("dims", [None, (), [], np.array([], dtype=int)], ids=repr)
def test_no_dimensions(dims: Any) -> None:
    x, rng_state = torch.ones(2, 3, 4), state((1, 2))
    expected = F.dropout(x, rng_state=rng_state)
    assert torch.equal(F.dropout(x, rng_state=rng_state, broadcast_dims=dims), expected)
    module = dropout_ext.Dropout(broadcast_dims=dims)
    assert module.broadcast_dims == () and "broadcast_dims" not in repr(module)


@pytest.mark.parametrize("dims", [1.0, "1", [1.5], np.array(1.0), torch.tensor(1.0)], ids=repr)
def test_what_is_no_dimension(dims: Any) -> None:
    """In our words, by repr; nothing is drawn."""
    before = torch.get_rng_state()
    for call in (
        lambda: F.dropout(torch.ones(2, 3), broadcast_dims=dims),
        lambda: F.dropout_mask((2, 3), rng_state=state((1, 2)), broadcast_dims=dims),
        lambda: dropout_ext.Dropout(broadcast_dims=dims),
    ):
        with pytest.raises(TypeError, match="broadcast_dims must be an integer or a sequ") as error:
            call()
        assert str(error.value).endswith(f"but got {dims!r}")
    assert torch.equal(torch.get_rng_state(), before)


BAD_SHARDS: list[Any] = [((4, 3), (0.0, 0)), ((4, "3"), (0, 0)), (4, (0, 0)), ((4, 3),), 5, "abc"]


@pytest.mark.parametrize("shard", BAD_SHARDS, ids=repr)
def test_what_is_no_shard(shard: Any) -> None:
    for call in (
        lambda: F.dropout(torch.ones(2, 3), shard=shard),
        lambda: F.dropout_mask((2, 3), rng_state=state((1, 2)), shard=shard),
    ):
        with pytest.raises(TypeError, match=r"shard must be \(global_shape, start\)") as error:
            call()
        assert str(error.value).endswith(f"but got {shard!r}")


def test_a_shard_of_numpy_integers() -> None:
    x, rng_state = torch.ones(2, 3), state((1, 2))
    expected = F.dropout(x, rng_state=rng_state, shard=((4, 3), (2, 0)))
    shard: Any = (np.array([4, 3]), torch.tensor([2, 0]))
    assert torch.equal(F.dropout(x, rng_state=rng_state, shard=shard), expected)


def test_a_negative_base_alone() -> None:
    words = r"mask indices must not be negative, but mask_base -1 gives -1 for a tensor of shape"
    with pytest.raises(ValueError, match=words):
        ops.dropout(torch.ones(8), 0.5, state((1, 2)), mask_base=-1)
    with pytest.raises(ValueError, match=r"mask_base 1 and mask_strides \[-1\] give -6 for"):
        ops.dropout(torch.ones(8), 0.5, state((1, 2)), mask_base=1, mask_strides=[-1])
