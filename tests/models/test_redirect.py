"""redirect_torch_dropout: torch's functional dropouts, served by this package while it is active.

Catches: a function of torch that keeps its own masks, by position or by keyword; one that torch has
newly got; an argument lost on the way; a redirection that outlives its context.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

import dropout_ext
from dropout_ext import functional as F

Function = Callable[..., Any]

# torch's name, and the function of this package that serves it.
ELEMENTWISE: dict[str, Function] = {
    "nn.functional.dropout": F.dropout,
    "nn.functional.dropout1d": F.dropout1d,
    "nn.functional.dropout2d": F.dropout2d,
    "nn.functional.dropout3d": F.dropout3d,
    "nn.functional.alpha_dropout": F.alpha_dropout,
    "nn.functional.feature_alpha_dropout": F.feature_alpha_dropout,
    "dropout": F.dropout,
    "dropout_": F.dropout,
    "alpha_dropout": F.alpha_dropout,
    "alpha_dropout_": F.alpha_dropout,
    "feature_dropout": F.dropout2d,  # on images
    "feature_dropout_": F.dropout2d,
    "feature_alpha_dropout": F.feature_alpha_dropout,
    "feature_alpha_dropout_": F.feature_alpha_dropout,
}
ATTENTION = {"nn.functional.scaled_dot_product_attention"}
STAYS_TORCHS = {"native_dropout"}  # returns its mask
SHAPES = {"1d": (4, 5, 6), "3d": (4, 5, 2, 3, 2)}


def function_of_torch(name: str) -> Function:
    function: Function = torch.nn.functional if name.startswith("nn.") else torch  # type: ignore
    return getattr(function, name.rpartition(".")[2])  # type: ignore[no-any-return]


def example(name: str) -> Tensor:
    return torch.randn(SHAPES.get(name[-2:], (4, 5, 3, 2)))


def test_every_dropout_of_torch_is_known() -> None:
    """One that torch adds must be redirected, or named among those that stay torch's."""
    public = {name for name in dir(torch) if "dropout" in name and not name.startswith("_")}
    public |= {f"nn.functional.{name}" for name in dir(nn.functional) if "dropout" in name}
    assert public | ATTENTION == ELEMENTWISE.keys() | ATTENTION | STAYS_TORCHS


@pytest.mark.parametrize("keywords", [False, True])
@pytest.mark.parametrize("name", ELEMENTWISE)
def test_draws_are_ours(name: str, keywords: bool) -> None:
    """The bits of our function, from the given generator alone; torch's own again afterwards."""
    theirs, ours, x = function_of_torch(name), ELEMENTWISE[name], example(name)
    flag = "training" if name.startswith("nn.") else "train"
    args, kwargs = ((), {"p": 0.3, flag: True}) if keywords else ((0.3, True), {})
    redirected, alone = (torch.Generator().manual_seed(3) for _ in range(2))
    default, argument = torch.get_rng_state(), x.clone()
    with dropout_ext.redirect_torch_dropout(generator=redirected):
        y = theirs(argument, *args, **kwargs)
    assert torch.equal(torch.get_rng_state(), default)
    assert torch.equal(y, ours(x, 0.3, True, generator=alone))
    assert (y is argument) == name.endswith("_")
    theirs(x.clone(), *args, **kwargs)
    assert not torch.equal(torch.get_rng_state(), default)


@pytest.mark.parametrize("name", [name for name in ELEMENTWISE if name.startswith("nn.")])
def test_in_place(name: str) -> None:
    x, generator = example(name), torch.Generator().manual_seed(3)
    expected = ELEMENTWISE[name](x, 0.3, True, generator=torch.Generator().manual_seed(3))
    with dropout_ext.redirect_torch_dropout(generator=generator):
        assert function_of_torch(name)(x, 0.3, True, True) is x
    assert torch.equal(x, expected)


@pytest.mark.parametrize("name", ELEMENTWISE)
def test_evaluation_is_the_identity(name: str) -> None:
    x = example(name)
    with dropout_ext.redirect_torch_dropout():
        assert function_of_torch(name)(x, 0.3, False) is x


def test_attention() -> None:
    x, default = torch.randn(2, 3, 5, 8), torch.get_rng_state()
    redirected, alone = (torch.Generator().manual_seed(3) for _ in range(2))
    with dropout_ext.redirect_torch_dropout(generator=redirected):
        y = nn.functional.scaled_dot_product_attention(x, x, x, dropout_p=0.3, is_causal=True)
    expected = F.scaled_dot_product_attention(
        x, x, x, dropout_p=0.3, is_causal=True, generator=alone
    )
    assert torch.equal(y, expected)
    assert torch.equal(torch.get_rng_state(), default)


def test_a_step_of_training() -> None:
    """Draws follow each other as by hand; the backward pass needs no context."""

    def theirs(t: Tensor) -> Tensor:
        return torch.dropout(nn.functional.dropout2d(t.sin(), 0.3).exp(), 0.3, True)

    def ours(t: Tensor) -> Tensor:
        return F.dropout(F.dropout2d(t.sin(), 0.3).exp(), 0.3)

    x = torch.randn(3, 4, 5, 6)
    found = []
    for function in (theirs, ours):
        torch.manual_seed(6)
        leaf = x.clone().requires_grad_()
        with dropout_ext.redirect_torch_dropout():
            y = function(leaf)
        y.sum().backward()
        found.append((y.detach(), leaf.grad))
    assert torch.equal(found[0][0], found[1][0])
    assert torch.equal(found[0][1], found[1][1])


def test_redirection_serves_modules_and_ends_with_an_error() -> None:
    x = torch.ones(50)
    with pytest.raises(KeyError), dropout_ext.redirect_torch_dropout():
        raise KeyError
    torch.manual_seed(1)
    theirs = nn.Dropout()(x)
    torch.manual_seed(1)
    assert torch.equal(nn.functional.dropout(x), theirs)
    torch.manual_seed(1)
    ours = F.dropout(x)
    torch.manual_seed(1)
    with dropout_ext.redirect_torch_dropout():
        assert torch.equal(nn.Dropout()(x), ours)
        assert torch.equal(nn.Dropout().eval()(x), x)


def test_a_decorator() -> None:
    x = torch.randn(40)
    generator = torch.Generator().manual_seed(3)

    @dropout_ext.redirect_torch_dropout(generator=generator)
    def forward() -> Tensor:
        return nn.functional.dropout(x, 0.3)

    assert torch.equal(forward(), F.dropout(x, 0.3, generator=torch.Generator().manual_seed(3)))


def test_generators_and_coroutines_are_refused() -> None:
    """Their bodies run when the redirection has ended."""

    def generating() -> Any:
        yield

    async def coroutine() -> None: ...

    for function in (generating, coroutine):
        with pytest.raises(TypeError, match="generator or coroutine function"):
            dropout_ext.redirect_torch_dropout()(function)


def test_functions_of_ours_keep_their_generator() -> None:
    """The one rule: a redirection's generator is for torch's functions alone."""
    x, generator = torch.ones(40), torch.Generator()
    before = generator.get_state()
    model = dropout_ext.convert_dropout(nn.Sequential(nn.Dropout(0.3)))
    with dropout_ext.redirect_torch_dropout(generator=generator):
        F.dropout(x, 0.3)
        model(x)
        assert torch.equal(generator.get_state(), before)
        nn.functional.dropout(x, 0.3)
    assert not torch.equal(generator.get_state(), before)


@pytest.mark.parametrize("attention", [True, False, "auto"])
def test_attention_is_a_choice(attention: Any) -> None:
    """On the CPU "auto" is yes; a query elsewhere (here: without data) keeps torch's."""
    x, state = torch.randn(2, 3, 5, 8), torch.get_rng_state()
    torch_own = nn.functional.scaled_dot_product_attention(x, x, x, dropout_p=0.3)
    torch.set_rng_state(state)
    ours = F.scaled_dot_product_attention(x, x, x, dropout_p=0.3)
    torch.set_rng_state(state)
    with dropout_ext.redirect_torch_dropout(attention=attention):
        found = nn.functional.scaled_dot_product_attention(x, x, x, dropout_p=0.3)
        called = []
        with pytest.MonkeyPatch.context() as patch:
            functions = dropout_ext.models.redirect.REDIRECTED
            theirs = nn.functional.scaled_dot_product_attention
            patch.setitem(functions, theirs, lambda *_, **__: called.append(1))
            meta = x.to("meta")
            nn.functional.scaled_dot_product_attention(meta, meta, meta, dropout_p=0.3)
    assert torch.equal(found, ours if attention else torch_own)
    assert bool(called) == (attention is True)


def test_another_choice_is_an_error() -> None:
    with pytest.raises(ValueError, match="attention must be True, False or \"auto\", but got 'no'"):
        dropout_ext.redirect_torch_dropout(attention="no")  # type: ignore[arg-type]


def block(x: Tensor) -> Tensor:
    return nn.functional.dropout(nn.functional.dropout(x.sin(), 0.5).exp(), 0.3)


def inner(x: Tensor, reentrant: bool) -> Tensor:
    return nn.functional.dropout(checkpoint(block, x, use_reentrant=reentrant).cos(), 0.2)


@pytest.mark.parametrize("inside", [False, True], ids=["backward outside", "backward inside"])
@pytest.mark.parametrize("reentrant", [False, True])
@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize("own", [False, True], ids=["default generator", "own generator"])
def test_recomputation(inside: bool, reentrant: bool, nested: bool, own: bool) -> None:
    """Catches: a checkpoint whose second forward draws torch's masks, or others of ours."""
    x = torch.randn(200, generator=torch.Generator().manual_seed(1))

    def step(function: Function) -> tuple[Tensor, Tensor]:
        generator = torch.Generator().manual_seed(5) if own else None
        leaf = x.clone().requires_grad_()
        torch.manual_seed(4)
        with dropout_ext.redirect_torch_dropout(generator=generator):
            y = function(leaf * 1)
            if inside:
                y.sum().backward()
        if not inside:
            y.sum().backward()
        assert leaf.grad is not None
        return y.detach(), leaf.grad

    def plain(t: Tensor) -> Tensor:
        return nn.functional.dropout(block(t).cos(), 0.2) if nested else block(t)

    def again(t: Tensor) -> Tensor:
        if nested:
            return checkpoint(inner, t, reentrant, use_reentrant=reentrant)  # type: ignore
        return checkpoint(block, t, use_reentrant=reentrant)  # type: ignore[no-any-return]

    for expected, found in zip(step(plain), step(again), strict=True):
        assert torch.equal(expected, found)


@pytest.mark.thorough
def test_checkpoint_in_compiled_code() -> None:
    """Dynamo leaves the mode for what it checkpoints: it must enter again, or break the graph."""
    torch._dynamo.reset()

    def forward(x: Tensor) -> Tensor:
        return checkpoint(block, x, use_reentrant=False)  # type: ignore[no-any-return]

    x, results = torch.randn(200), []
    for function in (forward, torch.compile(forward, backend="aot_eager")):
        leaf = x.clone().requires_grad_()
        torch.manual_seed(3)
        with dropout_ext.redirect_torch_dropout():
            y = function(leaf)
        y.sum().backward()
        results.append((y.detach(), leaf.grad))
    assert torch.equal(results[0][0], results[1][0])
    assert torch.equal(results[0][1], results[1][1])
    torch._dynamo.reset()


@pytest.mark.thorough
def test_converted_model_in_a_redirection_is_one_graph() -> None:
    torch._dynamo.reset()
    layer = nn.TransformerEncoderLayer(16, 2, 32, 0.1, batch_first=True)
    model = dropout_ext.convert_dropout(nn.TransformerEncoder(layer, 2))
    x, results = torch.randn(2, 5, 16), []
    for function in (model, torch.compile(model, backend="aot_eager", fullgraph=True)):
        torch.manual_seed(3)
        with dropout_ext.redirect_torch_dropout():
            results.append(function(x))
    assert torch.equal(*results)
    torch._dynamo.reset()
