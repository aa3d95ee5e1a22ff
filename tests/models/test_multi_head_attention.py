"""Our multi_head_attention_forward against torch's, with nothing dropped and with the same mask.

Catches: an option that is ignored or mixed up (static keys, learned ones, zeros, masks of every
kind and shape, separate projections, unbatched inputs); another error than torch's; weights that
are returned as they were before dropout; gradients that miss an argument.
"""

from __future__ import annotations

import inspect
import itertools
import warnings
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.testing._internal.common_modules import module_db

import dropout_ext
from dropout_ext import functional as F

L, S, N, E, H = 5, 6, 3, 8, 2
theirs = nn.functional.multi_head_attention_forward
ours = F.multi_head_attention_forward


def tensors(*sizes: int, seed: int = 0) -> Tensor:
    return torch.randn(*sizes, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def arguments(
    batched: bool = True,
    separate: bool = False,
    bias: bool = True,
    learned: bool = False,
    zeros: bool = False,
    same: str = "none",
    **options: Any,
) -> dict[str, Any]:
    """Named arguments of a call; ``same`` says which of query, key and value are one tensor."""
    rows = (N,) if batched else ()
    kdim, vdim = (7, 4) if separate else (E, E)
    query, key = tensors(L, *rows, E, seed=1), tensors(S, *rows, kdim, seed=2)
    value = tensors(S, *rows, vdim, seed=3)
    if same == "key, value":
        value = key
    elif same == "all":
        query = value = key
    weights = {
        "use_separate_proj_weight": separate,
        "in_proj_weight": None if separate else tensors(3 * E, E, seed=4),
        "q_proj_weight": tensors(E, E, seed=5) if separate else None,
        "k_proj_weight": tensors(E, kdim, seed=6) if separate else None,
        "v_proj_weight": tensors(E, vdim, seed=7) if separate else None,
        "in_proj_bias": tensors(3 * E, seed=8) if bias else None,
        "bias_k": tensors(1, 1, E, seed=9) if learned else None,
        "bias_v": tensors(1, 1, E, seed=10) if learned else None,
        "out_proj_weight": tensors(E, E, seed=11),
        "out_proj_bias": tensors(E, seed=12) if bias else None,
    }
    given = {"embed_dim_to_check": E, "num_heads": H, "add_zero_attn": zeros, "dropout_p": 0.0}
    return {"query": query, "key": key, "value": value, **given, **weights, **options}


def masks(kind: str, batched: bool, keys: int = S) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(20)
    samples = (N if batched else 1) * H
    shape = (L, keys) if "2-D" in kind else (samples, L, keys)
    forbidden = torch.rand(shape, generator=generator) < 0.3
    forbidden[..., 0] = False
    padding = torch.rand((N, keys) if batched else (keys,), generator=generator) < 0.3
    padding[..., 0] = False
    found: dict[str, Any] = {}
    if "attn" in kind:
        found["attn_mask"] = forbidden
    if "padding" in kind:
        found["key_padding_mask"] = padding
    if "float" in kind:
        found = {name: m.double() * -1.5 for name, m in found.items()}
    return found


MASKS = [
    "", "attn 2-D", "attn 3-D", "padding", "attn 2-D padding", "attn 3-D padding",
    "float attn 2-D", "float attn 3-D", "float padding", "float attn 3-D padding",
]  # fmt: skip


def assert_equal(call: dict[str, Any]) -> None:
    """Outputs, weights and the gradient of every tensor."""
    results = []
    for function in (theirs, ours):
        leaves = {
            name: value.detach().clone().requires_grad_()
            for name, value in call.items()
            if isinstance(value, Tensor) and value.is_floating_point()
        }
        for one, other in (("value", "key"), ("query", "key")):
            if call[one] is call[other]:  # one tensor remains one
                leaves[one] = leaves[other]
        output, weights = function(**{**call, **leaves})
        loss = output.sin().sum() + (0 if weights is None else weights.cos().sum())
        gradients = torch.autograd.grad(loss, list(leaves.values()), allow_unused=True)
        results.append((output, weights, *gradients))
    for found, expected in zip(results[1], results[0], strict=True):
        assert (found is None) == (expected is None)
        if expected is not None:
            torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("need_weights", [True, False])
@pytest.mark.parametrize("batched", [True, False])
@pytest.mark.parametrize("mask", MASKS)
def test_masks(mask: str, batched: bool, need_weights: bool) -> None:
    for learned, zeros in itertools.product([False, True], repeat=2):
        options = {"learned": learned, "zeros": zeros, "need_weights": need_weights}
        assert_equal(arguments(batched, **options, **masks(mask, batched)))


@pytest.mark.parametrize("need_weights", [True, False])
@pytest.mark.parametrize("batched", [True, False])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("projection", ["separate", "none", "key, value", "all"])
def test_projections(projection: str, bias: bool, batched: bool, need_weights: bool) -> None:
    separate = projection == "separate"
    same = "none" if separate else projection
    options = {"need_weights": need_weights, "average_attn_weights": False}
    assert_equal(arguments(batched, separate, bias, same=same, **options))


@pytest.mark.parametrize("need_weights", [True, False])
@pytest.mark.parametrize("zeros", [True, False])
def test_static_keys_and_values(zeros: bool, need_weights: bool) -> None:
    """They may be of another length than those they replace."""
    static = {name: tensors(N * H, 9, E // H, seed=30) for name in ("static_k", "static_v")}
    padding = masks("padding", True, keys=9)
    for more in ({}, padding):
        assert_equal(arguments(zeros=zeros, need_weights=need_weights, **static, **more))


@pytest.mark.parametrize("need_weights", [True, False])
@pytest.mark.parametrize("padded", [True, False])
def test_causal_hint(padded: bool, need_weights: bool) -> None:
    square = {"attn_mask": torch.ones(S, S, dtype=torch.bool).triu(1), "is_causal": True}
    call = arguments(same="all", need_weights=need_weights, **square)
    if padded:
        call |= masks("padding", True)
    assert_equal(call)


WRONG: dict[str, dict[str, Any]] = {
    "query 4-D": {"query": tensors(1, 2, 3, E)},
    "key unbatched": {"key": tensors(S, E)},
    "value batched": {"query": tensors(L, E), "key": tensors(S, E)},
    "padding 3-D": {"key_padding_mask": torch.ones(1, N, S, dtype=torch.bool)},
    "padding of other sizes": {"key_padding_mask": torch.zeros(N, S + 1, dtype=torch.bool)},
    "padding of integers": {"key_padding_mask": torch.zeros(N, S, dtype=torch.int64)},
    "mask 4-D": {"attn_mask": torch.ones(1, 1, L, S, dtype=torch.bool)},
    "mask 2-D of other sizes": {"attn_mask": torch.ones(L, S + 1, dtype=torch.bool)},
    "mask 3-D of other sizes": {"attn_mask": torch.ones(N, L, S, dtype=torch.bool)},
    "mask of integers": {"attn_mask": torch.ones(L, S, dtype=torch.int64)},
    "causal without mask": {"is_causal": True},
    "embedding": {"embed_dim_to_check": E + 1},
    "heads": {"num_heads": 3},
    "key and value": {"value": tensors(S + 1, N, E)},
    "no weight": {"in_proj_weight": None},
    "no separate weight": {"use_separate_proj_weight": True},
    "one learned": {"bias_k": tensors(1, 1, E)},
    "the other learned": {"bias_v": tensors(1, 1, E)},
    "static samples": {"static_k": tensors(N, S, E // H)},
    "static head": {"static_v": tensors(N * H, S, E)},
    "static and learned": {
        "static_k": tensors(N * H, S, E // H),
        "bias_k": tensors(1, 1, E),
        "bias_v": tensors(1, 1, E),
    },
    "separate query": {
        "use_separate_proj_weight": True,
        **{f"{name}_proj_weight": tensors(E, E + 1) for name in "qkv"},
    },
    "separate lengths": {
        "use_separate_proj_weight": True,
        "value": tensors(S + 1, N, E),
        **{f"{name}_proj_weight": tensors(E, E) for name in "qkv"},
    },
    "separate bias": {
        "use_separate_proj_weight": True,
        "in_proj_bias": tensors(3 * E + 3),
        **{f"{name}_proj_weight": tensors(E, E) for name in "qkv"},
    },
    "unbatched mask": {
        "query": tensors(L, E),
        "key": tensors(S, E),
        "value": tensors(S, E),
        "attn_mask": torch.ones(H + 1, L, S, dtype=torch.bool),
    },
}


@pytest.mark.parametrize("name", WRONG)
def test_errors_are_torchs(name: str) -> None:
    call = arguments() | WRONG[name]
    with pytest.raises((AssertionError, RuntimeError)) as expected:
        theirs(**call)
    before = torch.get_rng_state()
    with pytest.raises((AssertionError, RuntimeError)) as found:
        ours(**call | {"dropout_p": 0.5})
    assert torch.equal(torch.get_rng_state(), before)
    assert found.type is expected.type
    assert str(found.value) == str(expected.value)


def test_two_types_of_masks_are_deprecated() -> None:
    call = arguments(**masks("padding", True), attn_mask=torch.zeros(L, S, dtype=torch.float64))
    for function in (theirs, ours):
        with pytest.warns(UserWarning, match="Support for mismatched key_padding_mask"):
            function(**call)


def test_signature_is_torchs() -> None:
    """And the generator and the state after it."""
    expected = inspect.signature(theirs).parameters
    found = dict(inspect.signature(ours).parameters)
    for name in ("generator", "rng_state"):
        assert found.pop(name).kind is inspect.Parameter.KEYWORD_ONLY
    assert list(found) == list(expected)
    assert [p.default for p in found.values()] == [p.default for p in expected.values()]


@pytest.mark.parametrize("need_weights", [True, False])
@pytest.mark.parametrize("mask", ["", "attn 2-D", "float attn 3-D padding"])
def test_dropout_of_the_weights(mask: str, need_weights: bool) -> None:
    """Its mask is that of the weights tensor; the weights that are returned have been dropped."""
    call = arguments(need_weights=need_weights, **masks(mask, True))
    _, plain = theirs(**call | {"need_weights": True, "average_attn_weights": False})
    generator = torch.Generator().manual_seed(1)
    output, weights = ours(
        **call | {"dropout_p": 0.4, "average_attn_weights": False}, generator=generator
    )
    dropped = F.dropout(plain, 0.4, generator=generator.manual_seed(1))
    if need_weights:
        torch.testing.assert_close(weights, dropped, rtol=1e-12, atol=1e-12)
    _, _, v = call["in_proj_weight"].chunk(3)
    v = nn.functional.linear(call["value"], v, call["in_proj_bias"].chunk(3)[2])
    v = v.view(S, N, H, E // H).permute(1, 2, 0, 3)
    joined = (dropped @ v).permute(2, 0, 1, 3).reshape(L, N, E)
    expected = nn.functional.linear(joined, call["out_proj_weight"], call["out_proj_bias"])
    torch.testing.assert_close(output, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("need_weights", [True, False])
def test_a_state_has_one_mask(need_weights: bool) -> None:
    """That of a call which draws it; and nothing is drawn then."""
    call = arguments(need_weights=need_weights) | {"dropout_p": 0.4}
    torch.manual_seed(1)
    expected = ours(**call)[0]
    torch.manual_seed(1)
    rng_state = dropout_ext.draw_rng_state()
    before = torch.get_rng_state()
    assert torch.equal(ours(**call, rng_state=rng_state)[0], expected)
    assert torch.equal(torch.get_rng_state(), before)
    with pytest.raises(ValueError, match="both"):
        ours(**call, rng_state=rng_state, generator=torch.Generator())


def test_evaluation_drops_nothing() -> None:
    before = torch.get_rng_state()
    call = arguments()
    assert_close = torch.testing.assert_close
    assert_close(ours(**call | {"dropout_p": 0.5, "training": False}), theirs(**call))
    assert torch.equal(torch.get_rng_state(), before)


(INFO,) = (info for info in module_db if info.module_cls is nn.MultiheadAttention)
SAMPLES = INFO.module_inputs_func(
    INFO, device="cpu", dtype=torch.float64, requires_grad=False, training=True
)


@pytest.mark.parametrize("index", range(len(SAMPLES)))
def test_torchs_own_samples(index: int) -> None:
    """The module, with a p that drops nothing but is not 0, on the inputs that torch tests."""
    sample = SAMPLES[index]
    make, call = sample.constructor_input, sample.forward_input
    options = {**make.kwargs, "dropout": 1e-12, "dtype": torch.float64}
    module = nn.MultiheadAttention(*make.args, **options)
    if module.bias_k is not None and module.bias_v is not None:
        nn.init.normal_(module.bias_k)
        nn.init.normal_(module.bias_v)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # masks of two types
        expected = module(*call.args, **call.kwargs)
        converted = dropout_ext.convert_dropout(module)
        assert type(converted) is dropout_ext.MultiheadAttention
        found = converted(*call.args, **call.kwargs)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


def test_no_samples() -> None:
    module = dropout_ext.MultiheadAttention(E, H, dropout=0.5)
    output, weights = module(torch.ones(L, 0, E), torch.ones(S, 0, E), torch.ones(S, 0, E))
    assert output.shape == (L, 0, E) and weights.shape == (0, L, S)


@pytest.mark.parametrize("need_weights", [True, False])
def test_meta_tensors(need_weights: bool) -> None:
    module = dropout_ext.MultiheadAttention(E, H, dropout=0.5, device="meta")
    x = torch.ones(L, N, E, device="meta")
    assert module(x, x, x, need_weights=need_weights)[0].shape == (L, N, E)


def test_two_masks_are_not_held_for_each_head() -> None:
    """Without weights, what a call saves is less than the weights, of N * H * L * L numbers."""
    length = 64
    module = dropout_ext.MultiheadAttention(E, H, dropout=0.5)
    x = torch.ones(length, N, E, requires_grad=True)
    saved: list[int] = []

    def save(tensor: torch.Tensor) -> torch.Tensor:
        saved.append(tensor.numel())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(save, lambda tensor: tensor):
        module(
            x, x, x, need_weights=False,
            attn_mask=torch.ones(length, length, dtype=torch.bool).triu(1),
            key_padding_mask=torch.zeros(N, length, dtype=torch.bool),
        )  # fmt: skip
    assert max(saved) <= N * length * max(length, 3 * E)


def test_a_state_that_torchs_attention_does_not_take() -> None:
    module = dropout_ext.MultiheadAttention(E, H, dropout=0.5, attention=False)
    x = torch.ones(L, N, E)
    with pytest.raises(ValueError, match="rng_state is that of our dropout, but with attention="):
        module(x, x, x, rng_state=dropout_ext.rng_state(1))
    module.eval()(x, x, x, rng_state=dropout_ext.rng_state(1))


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")  # torch's own call
def test_nested_tensors_stay_torchs_where_nobody_asked() -> None:
    """By redirection; attention=True asks for ours, and is an error."""
    parts = [torch.ones(2, 2, 8), torch.ones(3, 2, 8)]
    q = torch.nested.nested_tensor(parts, layout=torch.jagged).transpose(1, 2)
    attend = nn.functional.scaled_dot_product_attention
    with dropout_ext.redirect_torch_dropout():
        assert attend(q, q, q, dropout_p=0.5).is_nested
    with (
        dropout_ext.redirect_torch_dropout(attention=True),
        pytest.raises(RuntimeError, match="must not be nested tensors"),
    ):
        attend(q, q, q, dropout_p=0.5)


def test_nested_tensors_are_refused_as_by_torch() -> None:
    module = dropout_ext.MultiheadAttention(E, H, dropout=0.5, batch_first=True)
    x = torch.nested.nested_tensor([torch.ones(2, E), torch.ones(3, E)], layout=torch.jagged)
    with pytest.raises(AssertionError, match="does not support NestedTensor"):
        module(x, x, x)


def test_redirection_of_the_function() -> None:
    """torch's function, called inside the mode, is ours with the mode's generator."""
    call = arguments(dropout_p=0.5)
    generator = torch.Generator().manual_seed(3)
    expected = ours(**call, generator=generator)
    with dropout_ext.redirect_torch_dropout(generator=generator.manual_seed(3)):
        found = theirs(**call)
    for one, other in zip(found, expected, strict=True):
        assert torch.equal(one, other)
