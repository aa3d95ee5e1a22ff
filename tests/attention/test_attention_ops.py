"""Attention where torch's other machines meet it: compilers, transforms, checkpoint, autocast.

Catches: a fake kernel that promises another shape or stride; a batch rule that takes a sample for
another; a compiled graph whose bits differ from eager's; a recomputation with another mask.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch._dynamo import compiled_autograd
from torch.func import functionalize, grad, jacrev, jvp, vmap
from torch.library import opcheck
from torch.utils.checkpoint import checkpoint

import dropout_ext
from dropout_ext import functional as F
from tests.attention.composition import composed, leaves, random, rng_state

pytestmark = pytest.mark.thorough

ops = torch.ops.dropout_ext
P = 0.4


def tensors(*, batch: tuple[int, ...] = (2,), dtype: torch.dtype = torch.float32) -> list[Tensor]:
    shapes = (*batch, 2, 6, 8), (*batch, 2, 9, 8), (*batch, 2, 9, 4)
    return [random(*shape, seed=k, dtype=dtype) for k, shape in enumerate(shapes)]


def drop(query: Tensor, key: Tensor, value: Tensor, **arguments: Any) -> Tensor:
    return F.scaled_dot_product_attention(
        query, key, value, dropout_p=P, rng_state=rng_state(), **arguments
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("kind", ["plain", "causal", "mask", "grouped", "layout", "map"])
def test_opcheck(dtype: torch.dtype, kind: str) -> None:
    query, key, value = tensors(dtype=dtype)
    mask = None
    arguments: dict[str, Any] = {}
    if kind == "causal":
        arguments["is_causal"] = True
    elif kind == "mask":
        mask = random(6, 9, dtype=dtype).requires_grad_()
    elif kind == "grouped":
        key, value = key[:, :1], value[:, :1]
    elif kind == "layout":
        query = query.transpose(1, 2).contiguous().transpose(1, 2)
    elif kind == "map":
        arguments |= {"mask_strides": [200, 54, 9, 1], "mask_base": 3, "scale": 0.3}
    given = leaves(query, key, value)
    opcheck(ops.attention.default, (*given, mask, P, rng_state()), arguments)
    output, softmax = ops.attention(*given, mask, P, rng_state(), **arguments)
    grads = (random(*output.shape, dtype=dtype), *(t.detach() for t in given))
    wanted = {"attn_mask_gradient": mask is not None}
    opcheck(
        ops.attention_backward.default,
        (*grads, mask, output.detach(), softmax, P, rng_state()),
        arguments | wanted,
        test_utils=("test_schema", "test_autograd_registration", "test_faketensor"),
    )


@pytest.mark.parametrize("in_dims", [(0, 0, 0), (1, 0, 2), (0, None, None), (None, 0, 1)])
def test_vmap_is_a_loop(in_dims: tuple[int | None, ...]) -> None:
    """With one state for all; forward, and gradients within."""

    def gradients(*sample: Tensor) -> tuple[Tensor, ...]:
        return grad(lambda *t: drop(*t).square().sum(), argnums=(0, 1, 2))(*sample)

    whole = tensors(batch=(3, 2))
    given = [
        t[0] if d is None else t.movedim(0, d).contiguous()
        for t, d in zip(whole, in_dims, strict=True)
    ]
    for function in (drop, gradients):
        found = vmap(function, in_dims=in_dims)(*given)
        for k in range(3):
            sample = [
                t if d is None else t.select(d, k) for t, d in zip(given, in_dims, strict=True)
            ]
            expected = function(*sample)
            for a, b in zip(
                [found] if isinstance(found, Tensor) else found,
                [expected] if isinstance(expected, Tensor) else expected,
                strict=True,
            ):
                torch.testing.assert_close(a[k], b)


def test_vmap_of_masks() -> None:
    query, key, value = tensors()

    def gradients(mask: Tensor, query: Tensor) -> tuple[Tensor, ...]:
        return grad(lambda m, q: drop(q, key, value, attn_mask=m).square().sum(), argnums=(0, 1))(
            mask, query
        )

    masks = random(3, 6, 9, seed=4)
    queries = torch.stack([query, query * 2, query * 3])
    for in_dims in ((0, None), (0, 0), (None, 0)):
        given = (masks if in_dims[0] == 0 else masks[0], queries if in_dims[1] == 0 else query)
        found = vmap(gradients, in_dims=in_dims)(*given)
        for k in range(3):
            sample = [t if d is None else t[k] for t, d in zip(given, in_dims, strict=True)]
            for a, b in zip(found, gradients(*sample), strict=True):
                torch.testing.assert_close(a[k], b)


def test_vmap_draws_as_a_loop() -> None:
    given = tensors(batch=(3, 2))

    def call(*sample: Tensor) -> Tensor:
        return F.scaled_dot_product_attention(*sample, dropout_p=P)

    torch.manual_seed(1)
    found = vmap(call, randomness="different")(*given)
    torch.manual_seed(1)
    expected = torch.stack([call(*(t[k] for t in given)) for k in range(3)])
    torch.testing.assert_close(found, expected)
    torch.manual_seed(1)
    found = vmap(call, randomness="same")(*given)
    torch.manual_seed(1)
    torch.testing.assert_close(found[0], expected[0])
    with pytest.raises(RuntimeError, match="randomness error mode"):
        vmap(call)(*given)


def test_transforms_compose() -> None:
    query, key, value = tensors(batch=())
    jacobian = jacrev(lambda q: drop(q, key, value))(query)
    tangent = random(*query.shape, seed=5)
    primal, pushed = jvp(lambda q: drop(q, key, value), (query,), (tangent,))
    torch.testing.assert_close(primal, drop(query, key, value))
    torch.testing.assert_close(pushed, torch.einsum("abcdef,def->abc", jacobian, tangent))
    torch.testing.assert_close(functionalize(drop)(query, key, value), drop(query, key, value))


@pytest.mark.parametrize("case", ["plain", "causal", "mask", "grouped"])
@pytest.mark.parametrize("drawn", [False, True])
def test_compiled_bits_are_those_of_eager(case: str, drawn: bool) -> None:
    torch.compiler.reset()
    query, key, value = tensors()
    arguments: dict[str, Any] = {"is_causal": case == "causal"}
    extra = leaves(random(6, 9)) if case == "mask" else []
    if case == "grouped":
        key, value, arguments["enable_gqa"] = key[:, :1], value[:, :1], True

    def function(query: Tensor, key: Tensor, value: Tensor, *mask: Tensor) -> Tensor:
        return F.scaled_dot_product_attention(
            query,
            key,
            value,
            *mask,
            dropout_p=P,
            rng_state=None if drawn else rng_state(),
            **arguments,
        )

    found = []
    for call in (function, torch.compile(function, fullgraph=True)):
        torch.manual_seed(2)
        given = leaves(query, key, value)
        output = call(*given, *extra)
        found.append([output, *torch.autograd.grad(output.square().sum(), given + extra)])
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


def test_dynamic_shapes() -> None:
    torch.compiler.reset()
    compiled = torch.compile(drop, fullgraph=True, dynamic=True)
    for length in (5, 9, 70):
        given = leaves(*(random(2, 2, length, 8, seed=k) for k in range(3)))
        expected, found = drop(*given), compiled(*given)
        assert torch.equal(found, expected)
        a = torch.autograd.grad(found.sum(), given)
        b = torch.autograd.grad(expected.sum(), given)
        assert all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


def test_export() -> None:
    class Model(torch.nn.Module):
        def forward(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
            return drop(query, key, value, is_causal=True)

    given = tuple(tensors())
    exported = torch.export.export(Model(), given)
    assert torch.equal(exported.module()(*given), Model()(*given))


def test_compiled_autograd() -> None:
    torch.compiler.reset()
    for mask in (None, random(6, 9).requires_grad_()):
        found = []
        for compiled in (False, True):
            given = leaves(*tensors())
            inputs = given if mask is None else [*given, mask]
            output = drop(*given, attn_mask=mask)
            if compiled:
                with compiled_autograd._enable(torch.compile(backend="aot_eager")):
                    output.square().sum().backward()
            else:
                output.square().sum().backward()
            found.append([t.grad for t in inputs])
            for t in inputs:
                t.grad = None
        for a, b in zip(*found, strict=True):
            assert torch.equal(a, b)


@pytest.mark.parametrize("reentrant", [False, True])
def test_checkpoint(reentrant: bool) -> None:
    def call(*given: Tensor) -> Tensor:
        return F.scaled_dot_product_attention(*given, dropout_p=P)

    found = []
    for wrapped in (False, True):
        torch.manual_seed(4)
        given = leaves(*tensors())
        output = (
            checkpoint(call, *given, use_reentrant=reentrant)  # type: ignore[no-untyped-call]
            if wrapped
            else call(*given)
        )
        output.square().sum().backward()
        found.append([output.detach(), *(t.grad for t in given)])
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


def test_autocast() -> None:
    given = leaves(*tensors())
    with torch.autocast("cpu", torch.bfloat16):
        output = drop(*given)
    narrow = [t.bfloat16() for t in given]
    assert output.dtype == torch.bfloat16
    assert torch.equal(output, drop(*narrow))
    assert torch.autograd.grad(output.sum(), given)[0].dtype == torch.float32


def test_inference_mode() -> None:
    with torch.inference_mode():
        found = drop(*tensors())
    assert torch.equal(found, drop(*tensors()))


@pytest.mark.parametrize("case", ["plain", "causal", "mask", "row mask", "grouped", "bfloat16"])
def test_blocks_of_the_composition(case: str) -> None:
    """What runs on CUDA: composed block by block, here on the CPU; of more than one block."""
    length = 700 if case == "causal" else 300
    query, key, value = (random(4, 12, length, 8, seed=k) for k in range(3))
    mask, arguments = None, {"is_causal": case == "causal"}
    if case == "mask":
        mask = random(length, length)
    elif case == "row mask":
        mask = random(4, 1, 1, length)
    elif case == "grouped":
        key, value = key[:, :3], value[:, :3]
    elif case == "bfloat16":
        query, key, value = query.bfloat16(), key.bfloat16(), value.bfloat16()
    cuda = torch._C.DispatchKey.CUDA
    forward, backward = ops.attention.default, ops.attention_backward.default
    given = (query, key, value, mask, P, rng_state())
    expected = forward(*given, **arguments)
    found = forward._op_dk(cuda, *given, **arguments)
    tolerance = {"atol": 2e-2, "rtol": 2e-2} if case == "bfloat16" else {}
    for a, b in zip(found, expected, strict=True):
        assert a.stride() == b.stride() and a.dtype == b.dtype
        torch.testing.assert_close(a.float(), b.float(), **tolerance)
    output, softmax = expected
    arguments["attn_mask_gradient"] = mask is not None
    given = (random(*output.shape, dtype=output.dtype), *given[:4], output, softmax, *given[4:])
    for a, b in zip(
        backward._op_dk(cuda, *given, **arguments), backward(*given, **arguments), strict=True
    ):
        assert a.stride() == b.stride()
        torch.testing.assert_close(a, b, **(tolerance or {"atol": 1e-4, "rtol": 1e-4}))


def test_the_composition_is_the_plain_one() -> None:
    given = tensors()
    torch.testing.assert_close(drop(*given), composed(*given, dropout_p=P, rng_state=rng_state()))
    assert dropout_ext.build_info()["cpu_path"] in dropout_ext.build_info()["cpu_paths"]
