"""Dropout as a drop-in for torch.nn.Dropout: both go through the same checks.

Catches: anything a program notices when it swaps one for the other: arguments, their names, repr,
identity in eval, pickling, state_dict, hooks, errors.
"""

from __future__ import annotations

import copy
import io
import pickle
from typing import Any

import pytest
import torch

import dropout_ext
from dropout_ext import functional as F
from tests.helpers.compare import state

Class = Any
BOTH = [torch.nn.Dropout, dropout_ext.Dropout]


@pytest.fixture(params=BOTH, ids=["nn", "ours"])
def cls(request: pytest.FixtureRequest) -> Class:
    return request.param


def test_is_a_module(cls: Class) -> None:
    module = cls()
    assert isinstance(module, torch.nn.Module)
    assert [module.p, module.inplace, module.training] == [0.5, False, True]
    assert list(module.parameters()) == list(module.buffers()) == []
    assert list(module.state_dict()) == []


@pytest.mark.parametrize("p", [0, 1, 0.0, 0.25, 1 / 3, 1.0, True])
@pytest.mark.parametrize("inplace", [False, True])
def test_repr(p: float, inplace: bool) -> None:
    ours, theirs = dropout_ext.Dropout(p, inplace), torch.nn.Dropout(p, inplace)
    assert repr(ours) == repr(theirs)
    assert ours.extra_repr() == theirs.extra_repr()
    assert (ours.p, ours.inplace) == (p, inplace)


@pytest.mark.parametrize("p", [-0.1, 1.1, 2, -1, float("inf"), -float("inf")])
def test_p_errors_agree(p: float) -> None:
    messages = []
    for make in BOTH:
        with pytest.raises(ValueError, match="probability") as error:
            make(p)
        messages.append(str(error.value))
    assert messages[0] == messages[1]


@pytest.mark.parametrize("p", [float("nan"), "a half", None, [0.5], 1j])
def test_p_is_a_number(p: Any) -> None:
    with pytest.raises(ValueError, match="has to be between 0 and 1, but got ") as error:
        dropout_ext.Dropout(p)
    assert str(p) in str(error.value)


@pytest.mark.parametrize("inplace", [False, True])
@pytest.mark.parametrize("requires_grad", [False, True])
def test_eval_gives_the_input_itself(cls: Class, inplace: bool, requires_grad: bool) -> None:
    x = torch.randn(5, requires_grad=requires_grad)
    module = cls(0.5, inplace).eval()
    before = torch.get_rng_state()
    assert module(x) is x
    assert x._version == 0
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("inplace", [False, True])
def test_ours_gives_the_input_itself_at_p_zero(inplace: bool) -> None:
    x = torch.randn(5)
    assert dropout_ext.Dropout(0.0, inplace)(x) is x
    assert F.dropout(x, 0.0, inplace=inplace) is x
    assert F.dropout(x, 0, inplace=inplace) is x
    assert F.dropout(x, 0.0, rng_state=state((1, 2))) is x


def test_train_and_eval_switch(cls: Class) -> None:
    module, x = cls(0.5), torch.ones(100)
    assert module.train()(x).eq(0).any()
    assert module.eval()(x) is x
    assert module.train()(x).eq(0).any()


def test_output_of_training(cls: Class) -> None:
    x = torch.ones(10, 20, dtype=torch.float64)
    y = cls(0.75)(x)
    assert y is not x
    assert y.shape == x.shape
    assert set(y.unique().tolist()) == {0.0, 4.0}


def test_inplace(cls: Class) -> None:
    x = torch.ones(100)
    assert cls(0.5, inplace=True)(x) is x
    assert set(x.tolist()) == {0.0, 2.0}
    assert x._version == 1


def test_p_and_inplace_can_be_changed(cls: Class) -> None:
    module, x = cls(0.5), torch.ones(100)
    module.p = 1.0
    assert not module(x).any()
    module.inplace = True
    assert module(x) is x


def test_empty_and_scalar(cls: Class) -> None:
    assert cls()(torch.empty(0, 3)).shape == (0, 3)
    assert cls()(torch.ones(())).item() in (0.0, 2.0)


def test_manual_seed_repeats(cls: Class) -> None:
    x = torch.ones(200)
    torch.manual_seed(4)
    first = cls()(x)
    torch.manual_seed(4)
    assert torch.equal(cls()(x), first)


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
def test_pickle(cls: Class, protocol: int) -> None:
    again = pickle.loads(pickle.dumps(cls(0.3, True).eval(), protocol))
    assert type(again) is cls
    assert (again.p, again.inplace, again.training) == (0.3, True, False)
    assert again.train()(torch.ones(50)).eq(0).any()


def test_save_and_load(cls: Class) -> None:
    buffer = io.BytesIO()
    torch.save(cls(0.3), buffer)
    buffer.seek(0)
    assert torch.load(buffer, weights_only=False).p == 0.3


def test_deepcopy(cls: Class) -> None:
    model = torch.nn.Sequential(torch.nn.Linear(3, 3), cls(0.3))
    again = copy.deepcopy(model)
    assert repr(again) == repr(model)
    assert again(torch.ones(2, 3)).shape == (2, 3)


def test_state_dict_passes_between_both() -> None:
    def model(kind: Class) -> torch.nn.Module:
        return torch.nn.Sequential(torch.nn.Linear(3, 3), kind(0.3), torch.nn.Linear(3, 2))

    ours, theirs = model(dropout_ext.Dropout), model(torch.nn.Dropout)
    assert list(ours.state_dict()) == list(theirs.state_dict())
    ours.load_state_dict(theirs.state_dict())
    theirs.load_state_dict(ours.state_dict())


def test_moves_and_casts(cls: Class) -> None:
    module = cls(0.5).to(torch.bfloat16).double().requires_grad_(False)
    assert module(torch.ones(4, dtype=torch.float16)).dtype == torch.float16


def test_hooks(cls: Class) -> None:
    seen = []
    module = cls(0.5)
    module.register_forward_hook(lambda _module, args, out: seen.append((args[0].shape, out.shape)))
    module(torch.ones(7))
    assert seen == [((7,), (7,))]


def test_gradient(cls: Class) -> None:
    x = torch.ones(200, requires_grad=True)
    y = cls(0.5)(x)
    y.sum().backward()
    assert x.grad is not None
    assert torch.equal(x.grad, y.detach())


def test_autocast(cls: Class) -> None:
    with torch.autocast("cpu", torch.bfloat16):
        assert cls()(torch.ones(9)).dtype == torch.float32
        assert cls()(torch.ones(9, dtype=torch.bfloat16)).dtype == torch.bfloat16


def test_unsupported_dtype_in_eval_is_let_through(cls: Class) -> None:
    x = torch.arange(5)
    assert cls().eval()(x) is x


def test_parameter_in_tensor_out(cls: Class) -> None:
    y = cls()(torch.nn.Parameter(torch.ones(9)))
    assert type(y) is torch.Tensor
    assert y.requires_grad


class Tagged(torch.Tensor):
    """A subclass that only wants to survive operations."""


def test_subclass_survives(cls: Class) -> None:
    assert type(cls()(torch.ones(9).as_subclass(Tagged))) is Tagged


# Generator.


def test_generator_is_keyword_only() -> None:
    with pytest.raises(TypeError):
        dropout_ext.Dropout(0.5, False, torch.Generator())  # type: ignore[call-arg]


def test_generator_repeats(device: torch.device) -> None:
    generator = torch.Generator(device).manual_seed(8)
    module, x = dropout_ext.Dropout(0.5, generator=generator), torch.ones(500, device=device)
    first, second = module(x), module(x)
    generator.manual_seed(8)
    assert torch.equal(module(x), first)
    assert torch.equal(module(x), second)
    assert not torch.equal(first, second)


def test_modules_share_a_generator() -> None:
    """Two layers with one generator draw one after the other, never the same."""
    generator, x = torch.Generator().manual_seed(8), torch.ones(500)
    one, two = (dropout_ext.Dropout(0.5, generator=generator) for _ in range(2))
    found = [one(x), two(x)]
    alone = dropout_ext.Dropout(0.5, generator=torch.Generator().manual_seed(8))
    assert torch.equal(found[0], alone(x))
    assert torch.equal(found[1], alone(x))


def test_copies_of_a_module_with_a_generator() -> None:
    module, x = dropout_ext.Dropout(generator=torch.Generator().manual_seed(8)), torch.ones(500)
    deep, pickled = copy.deepcopy(module), pickle.loads(pickle.dumps(module))
    expected = module(x)
    assert torch.equal(deep(x), expected)
    assert torch.equal(pickled(x), expected)


def test_generator_must_be_one() -> None:
    with pytest.raises(TypeError, match=r"generator must be a torch\.Generator, but got 7"):
        dropout_ext.Dropout(generator=7)(torch.ones(3))  # type: ignore[arg-type]
