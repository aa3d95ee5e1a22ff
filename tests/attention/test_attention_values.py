"""Output and gradients, compared with the composition in float64 that has the same mask.

Catches: errors larger than twice those of the composition in the same dtype; a mask of attention
that is taken for another row, head or batch; gradients of what is masked; NaN of empty rows.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from dropout_ext import functional as F
from tests.attention.composition import composed, leaves, random, rng_state

pytestmark = pytest.mark.thorough

P = 0.2


def run(function: Any, tensors: list[Tensor], **arguments: Any) -> list[Tensor]:
    """The output and the gradients of all tensors, and of a floating mask."""
    output = function(*tensors, dropout_p=P, rng_state=rng_state(), **arguments)
    grad = random(*output.shape, seed=9, dtype=output.dtype)
    mask = arguments.get("attn_mask")
    wanted = tensors if mask is None or not mask.requires_grad else [*tensors, mask]
    return [output.detach(), *torch.autograd.grad(output, wanted, grad)]


def in_dtype(mask: Tensor | None, dtype: torch.dtype) -> Tensor | None:
    if mask is None or mask.dtype == torch.bool:
        return mask
    return leaves(mask, dtype=dtype)[0]


def check(tensors: list[Tensor], dtype: torch.dtype, **arguments: Any) -> None:
    mask = arguments.pop("attn_mask", None)
    narrow = [t.to(dtype) for t in tensors]
    narrow_mask = in_dtype(mask, dtype)

    def results(function: Any, to: torch.dtype) -> list[Tensor]:
        return run(
            function,
            leaves(*narrow, dtype=to),
            attn_mask=in_dtype(narrow_mask, to),
            **arguments,
        )

    exact = results(composed, torch.float64)
    plain = results(composed, dtype)
    ours = results(F.scaled_dot_product_attention, dtype)
    for name, truth, theirs, found in zip(
        ("output", "query", "key", "value", "mask"), exact, plain, ours, strict=False
    ):
        assert found.dtype == dtype and found.shape == truth.shape, name
        if truth.numel() == 0:
            continue
        error = (found.double() - truth).abs().max().item()
        allowed = (theirs.double() - truth).abs().max().item()
        # Where the composition is the truth itself, in float64, or happens to round to it: with
        # one key, or a mask that shifts all scores of a row, the exact gradient is 0.
        compute = torch.float64 if dtype == torch.float64 else torch.float32
        floor = 100 * torch.finfo(compute).eps * max(1.0, truth.abs().max().item())
        assert error <= 2 * allowed + floor, f"{name}: {error} > 2 * {allowed}"


@pytest.mark.parametrize("causal", [False, True])
def test_sizes(cpu_path: torch.device, causal: bool) -> None:
    for queries, keys in ((70, 70), (33, 530), (530, 33), (1, 1), (1, 600), (600, 1)):
        tensors = [
            random(1, 2, queries, 16),
            random(1, 2, keys, 16, seed=1),
            random(1, 2, keys, 24, seed=2),
        ]
        check(tensors, torch.float32, is_causal=causal)


@pytest.mark.parametrize("causal", [False, True])
def test_dtypes(cpu_path: torch.device, dtype: torch.dtype, causal: bool) -> None:
    tensors = [random(2, 3, 150, 16, seed=seed) for seed in range(3)]
    check(tensors, dtype, is_causal=causal)


@pytest.mark.parametrize("half", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("causal", [False, True])
def test_half_precision_is_rounded_once(
    cpu_path: torch.device, half: torch.dtype, causal: bool
) -> None:
    """Against float64, where the composition of half precision rounds at every step."""
    tensors = [random(2, 3, 150, 16, seed=seed, dtype=half) for seed in range(3)]
    found = run(F.scaled_dot_product_attention, leaves(*tensors), is_causal=causal)
    exact = run(composed, leaves(*tensors, dtype=torch.float64), is_causal=causal)
    for name, ours, truth in zip(("output", "query", "key", "value"), found, exact, strict=True):
        error = (ours.double() - truth).abs().max().item()
        allowed = torch.finfo(half).eps * truth.abs().max().item()
        assert error <= allowed, f"{name}: {error} > {allowed}"


# Sizes that oneDNN's products take and those that they do not, and a mask shared by all queries.
@pytest.mark.filterwarnings("ignore:TF32 acceleration")
@pytest.mark.parametrize("mkldnn", [False, True])
@pytest.mark.parametrize(("queries", "keys", "width"), [(64, 64, 16), (72, 97, 24), (70, 33, 9)])
def test_products(mkldnn: bool, queries: int, keys: int, width: int) -> None:
    shapes = (1, 2, queries, width), (1, 2, keys, width), (1, 2, keys, 2 * width)
    tensors = [random(*shape, seed=seed) for seed, shape in enumerate(shapes)]
    with torch.backends.mkldnn.flags(enabled=mkldnn):
        check(tensors, torch.float32, attn_mask=random(keys, seed=4))


def test_several_splits() -> None:
    """Long enough for the gradient of the queries to be a sum of parts."""
    tensors = [random(1, 1, 1300, 8, seed=seed) for seed in range(3)]
    for causal in (False, True):
        check(tensors, torch.float32, is_causal=causal)


MASKS = [
    (70, 530),
    (1, 530),
    (70, 1),
    (1, 1),
    (530,),
    (),
    (4, 70, 530),
    (4, 1, 1),
    (2, 1, 1, 530),
    (2, 4, 70, 530),
    (1, 4, 70, 1),
    (2, 1, 70, 1),
]


@pytest.mark.parametrize("shape", MASKS)
@pytest.mark.parametrize("kind", ["bool", "float", "transposed"])
def test_masks(shape: tuple[int, ...], kind: str) -> None:
    tensors = [
        random(2, 4, 70, 8),
        random(2, 4, 530, 8, seed=1),
        random(2, 4, 530, 8, seed=2),
    ]
    mask = random(*shape, seed=3)
    if kind == "bool":
        mask = mask < 0.5
    if kind == "transposed" and mask.dim() > 1:
        mask = mask.mT.contiguous().mT
    check(tensors, torch.float32, attn_mask=mask)


@pytest.mark.parametrize("shape", [(70, 530), (4, 1, 530), (2, 1, 1, 530)])
def test_masks_of_grouped_heads(shape: tuple[int, ...]) -> None:
    tensors = [
        random(2, 4, 70, 8),
        random(2, 2, 530, 8, seed=1),
        random(2, 2, 530, 8, seed=2),
    ]
    check(tensors, torch.float32, attn_mask=random(*shape, seed=3), enable_gqa=True)


@pytest.mark.parametrize("least", [-1e12, torch.finfo(torch.float32).min])
def test_masks_that_hide_all_keys_of_a_row_by_large_numbers(
    cpu_path: torch.device, dtype: torch.dtype, least: float
) -> None:
    """The weights of such a row are all alike; beside its scores their sum would be lost."""
    mask = torch.zeros(40, 70, dtype=torch.float64)
    mask[:, 20:] = mask[::3] = max(least, torch.finfo(dtype).min)
    check([random(2, 3, n, 16, seed=n) for n in (40, 70, 70)], dtype, attn_mask=mask)


def test_float_mask_of_half_precision() -> None:
    """As torch has it, a mask of float32 may go with half precision; it keeps its own."""
    tensors = [random(1, 2, 9, 8, seed=seed, dtype=torch.bfloat16) for seed in range(3)]
    masks = leaves(random(9, 9), random(9, 9))
    ours = run(F.scaled_dot_product_attention, leaves(*tensors), attn_mask=masks[0])
    exact = run(composed, leaves(*tensors, dtype=torch.float64), attn_mask=masks[1])
    assert ours[4].dtype == torch.float32
    for a, b in zip(ours, exact, strict=True):
        torch.testing.assert_close(a.double(), b.double(), atol=1e-2, rtol=1e-2)


def test_keys_and_values_of_different_groups() -> None:
    tensors = [random(2, heads, 9, 8, seed=heads) for heads in (4, 2, 1)]
    found = run(F.scaled_dot_product_attention, leaves(*tensors), enable_gqa=True)
    repeated = [t.repeat_interleave(4 // t.size(-3), -3) for t in tensors]
    expected = run(composed, leaves(*repeated))
    for ours, truth, tensor in zip(found[1:], expected[1:], tensors, strict=True):
        summed = truth.unflatten(1, (tensor.size(1), -1)).sum(2)
        torch.testing.assert_close(ours, summed)
    torch.testing.assert_close(found[0], expected[0])


@pytest.mark.parametrize("causal", [False, True])
def test_grouped_heads(causal: bool) -> None:
    tensors = [
        random(2, 6, 70, 8),
        random(2, 2, 530, 8, seed=1),
        random(2, 2, 530, 8, seed=2),
    ]
    check(tensors, torch.float32, enable_gqa=True, is_causal=causal)


def test_scale() -> None:
    tensors = [random(1, 2, 30, 8, seed=seed) for seed in range(3)]
    check(tensors, torch.float32, scale=0.7)


def test_layouts() -> None:
    packed = random(2, 70, 3, 4, 8)
    heads = [packed[:, :, k].transpose(1, 2) for k in range(3)]
    columns = [t.contiguous().mT.contiguous().mT for t in heads]
    for tensors in (heads, columns):
        check(list(tensors), torch.float32)


def test_heads_that_are_expanded() -> None:
    given = [random(2, 4, 70, 8), random(2, 1, 70, 8, seed=1), random(2, 1, 70, 8, seed=2)]

    def expanded(function: Any) -> Any:
        def call(query: Tensor, key: Tensor, value: Tensor, **arguments: Any) -> Tensor:
            return function(query, key.expand_as(query), value.expand_as(query), **arguments)

        return call

    ours = run(expanded(F.scaled_dot_product_attention), leaves(*given))
    for a, b in zip(ours, run(expanded(composed), leaves(*given)), strict=True):
        torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-4)


def test_gradient_that_is_expanded() -> None:
    tensors = [random(1, 2, 70, 8, seed=seed) for seed in range(3)]
    found = []
    for function in (F.scaled_dot_product_attention, composed):
        given = leaves(*tensors)
        output = function(*given, dropout_p=P, rng_state=rng_state())
        found.append(torch.autograd.grad(output.sum(), given))
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b)


def test_broadcast_batches() -> None:
    tensors = [random(2, 4, 9, 8), random(4, 9, 8, seed=1), random(1, 1, 9, 8, seed=2)]
    check(tensors, torch.float32)


@pytest.mark.parametrize("shape", [(0, 3), (3, 0), (0, 0)])
@pytest.mark.parametrize("causal", [False, True])
def test_empty(shape: tuple[int, int], causal: bool) -> None:
    queries, keys = shape
    given = leaves(random(2, 3, queries, 8), random(2, 3, keys, 8), random(2, 3, keys, 5))
    output = F.scaled_dot_product_attention(
        *given, dropout_p=P, is_causal=causal, rng_state=rng_state()
    )
    assert torch.equal(output, torch.zeros(2, 3, queries, 5))
    for gradient in torch.autograd.grad(output.sum(), given):
        assert torch.equal(gradient, torch.zeros_like(gradient))


def test_no_features(capfd: pytest.CaptureFixture[str]) -> None:
    """All scores are 0; and BLAS, which would complain of it on the console, is not asked."""
    tensors = [random(1, 2, 5, 0), random(1, 2, 6, 0), random(1, 2, 6, 4)]
    check(tensors, torch.float32, scale=1.0)
    check([random(1, 2, 5, 3), random(1, 2, 6, 3), random(1, 2, 6, 0)], torch.float32)
    assert capfd.readouterr() == ("", "")


def test_no_features_of_sizes_that_onednn_takes() -> None:
    check([random(1, 2, 8, 0), random(1, 2, 8, 0), random(1, 2, 8, 8)], torch.float32, scale=1.0)
    check([random(1, 2, 8, 8), random(1, 2, 8, 8), random(1, 2, 8, 0)], torch.float32)


def test_no_heads_of_queries() -> None:
    given = leaves(random(2, 0, 3, 4), random(2, 2, 5, 4), random(2, 2, 5, 3))
    with torch.random.fork_rng():
        torch.use_deterministic_algorithms(True)  # fills fresh memory with NaN
        try:
            output = F.scaled_dot_product_attention(*given, dropout_p=P, enable_gqa=True)
            gradients = torch.autograd.grad(output.sum(), given)
        finally:
            torch.use_deterministic_algorithms(False)
    assert all(torch.equal(g, torch.zeros_like(g)) for g in gradients)


@pytest.mark.parametrize("shape", [(0, 3), (2, 0)])
def test_no_batch(shape: tuple[int, int]) -> None:
    given = leaves(*(random(*shape, 4, 8) for _ in range(3)))
    output = F.scaled_dot_product_attention(*given, dropout_p=P)
    assert output.shape == (*shape, 4, 8)
    assert all(g.shape == (*shape, 4, 8) for g in torch.autograd.grad(output.sum(), given))


@pytest.mark.parametrize("kind", [torch.bool, torch.float32])
def test_a_query_that_attends_to_nothing(cpu_path: torch.device, kind: torch.dtype) -> None:
    """Zeros, and zero gradients; the other rows are as ever."""
    mask = torch.ones(600, dtype=torch.bool).repeat(70, 1)
    mask[3] = mask[69] = False
    mask[5, :599] = False
    if kind != torch.bool:
        mask = torch.zeros(70, 600).masked_fill(~mask, float("-inf"))
    tensors = [random(1, 2, 70, 8), random(1, 2, 600, 8, seed=1), random(1, 2, 600, 8, seed=2)]
    given = leaves(*tensors)
    output = F.scaled_dot_product_attention(
        *given, attn_mask=mask, dropout_p=P, rng_state=rng_state()
    )
    gradients = torch.autograd.grad(output.square().sum(), given)
    for row in (3, 69):
        assert output[:, :, row].eq(0).all() and gradients[0][:, :, row].eq(0).all()
    expected = composed(*tensors, attn_mask=mask, dropout_p=P, rng_state=rng_state())
    torch.testing.assert_close(output, expected)
    assert all(gradient.isfinite().all() for gradient in gradients)


def test_everything_is_dropped() -> None:
    given = leaves(*(random(1, 2, 9, 8, seed=seed) for seed in range(3)))
    output = F.scaled_dot_product_attention(*given, dropout_p=1.0)
    assert output.eq(0).all()
    assert all(g.eq(0).all() for g in torch.autograd.grad(output.sum(), given))


def test_large_scores(cpu_path: torch.device) -> None:
    """Exponentials are relative to the largest score, over several blocks of keys."""
    tensors = [random(1, 2, 70, 8) * 100, random(1, 2, 1100, 8, seed=1) * 10]
    tensors.append(random(1, 2, 1100, 8, seed=2))
    check(tensors, torch.float32)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_not_finite(cpu_path: torch.device, value: float) -> None:
    """A row whose scores are not finite is NaN, and no other."""
    query = random(1, 1, 4, 8)
    query[0, 0, 1, 0] = value
    key = random(1, 1, 70, 8, seed=1).abs()
    output = F.scaled_dot_product_attention(query, key, key, dropout_p=P, rng_state=rng_state())
    assert output[0, 0, 1].isnan().all()
    assert output[0, 0, [0, 2, 3]].isfinite().all()
