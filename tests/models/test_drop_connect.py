"""DropConnect: dropout of a parameter.

Catches: one mask for all steps; a mask in evaluation; a gradient through dropped weights; a
checkpoint that only fits a model with DropConnect; a parameter lost on removal.
"""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import dropout_ext
from dropout_ext import functional as F


def linear(p: float = 0.5, seed: int = 1) -> nn.Linear:
    return dropout_ext.drop_connect(
        nn.Linear(30, 20), p, generator=torch.Generator().manual_seed(seed)
    )


def original(module: nn.Module, name: str = "weight") -> nn.Parameter:
    parameter = module.get_parameter(f"parametrizations.{name}.original")
    assert isinstance(parameter, nn.Parameter)
    return parameter


def test_training_forward_masks_weights_and_gradient() -> None:
    module, x = linear(), torch.randn(8, 30)
    y = module(x)
    # The draw of that call, made again.
    seed = torch.ops.dropout_ext.draw(x, generator=torch.Generator().manual_seed(1))
    weight = F.dropout(original(module), 0.5, rng_state=seed)
    torch.testing.assert_close(y, nn.functional.linear(x, weight, module.bias))
    y.sum().backward()
    gradient = original(module).grad
    assert gradient is not None
    assert torch.equal(gradient == 0, weight == 0)
    expected = F.dropout(x.sum(0).expand(20, 30), 0.5, rng_state=seed)
    torch.testing.assert_close(gradient, expected)
    assert not torch.equal(module(x), y)


def test_evaluation_is_the_bare_module() -> None:
    module, x = linear(), torch.randn(8, 30)
    bare = nn.Linear(30, 20)
    bare.load_state_dict(module.state_dict())
    assert torch.equal(module.eval()(x), bare(x))


def test_state_dict_is_that_of_the_bare_module() -> None:
    """In a model as well, both ways, keys in their order."""
    bare = nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 2))
    model = copy.deepcopy(bare)
    dropout_ext.drop_connect(model[0])
    dropout_ext.drop_connect(model[1], name="bias")
    dropout_ext.drop_connect(model[1])
    assert list(model.state_dict()) == list(bare.state_dict())
    other = nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 2))
    model.load_state_dict(other.state_dict())
    bare.load_state_dict(model.state_dict())
    for one, two in zip(bare.parameters(), other.parameters(), strict=True):
        assert torch.equal(one, two)
    again = copy.deepcopy(model)
    assert list(again.state_dict()) == list(bare.state_dict())
    with pytest.raises(RuntimeError, match="Missing"):
        model.load_state_dict({"0.bias": torch.zeros(3)})


def test_removal_gives_the_parameter_back() -> None:
    module = linear()
    value = original(module)
    kept = value.detach().clone()
    assert dropout_ext.remove_drop_connect(module) is module
    assert type(module) is nn.Linear
    assert torch.equal(module.weight, kept)
    assert isinstance(module.weight, nn.Parameter)
    assert list(module.state_dict()) == ["weight", "bias"]
    with pytest.raises(ValueError, match="no DropConnect"):
        dropout_ext.remove_drop_connect(module)
    dropout_ext.drop_connect(module)
    assert list(module.state_dict()) == ["weight", "bias"]


def test_removal_leaves_nothing() -> None:
    """The order of parameters is the bare module's again, also with more than one."""
    module = nn.Linear(3, 2)
    bare = pickle.dumps(module)
    for name in ("weight", "bias"):
        dropout_ext.drop_connect(module, name=name)
    for name in ("weight", "bias"):
        dropout_ext.remove_drop_connect(module, name)
    assert [name for name, _ in module.named_parameters()] == ["weight", "bias"]
    assert vars(module).keys() == vars(pickle.loads(bare)).keys()
    assert b"dropout_ext" not in pickle.dumps(module)


def test_beside_another_parametrization() -> None:
    module = nn.utils.parametrizations.weight_norm(nn.Linear(30, 20))
    dropout_ext.drop_connect(module)
    keys = list(module.state_dict())
    module.load_state_dict(module.state_dict())
    x = torch.randn(4, 30)
    assert not torch.equal(module(x), module(x))
    dropout_ext.remove_drop_connect(module)
    assert torch.equal(module(x), module(x))
    assert list(module.state_dict()) == keys


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU])
def test_recurrent_weights(kind: type[nn.RNNBase]) -> None:
    """One mask for all time steps (Merity et al.), the gradient only where it keeps."""
    module = dropout_ext.drop_connect(kind(4, 5), 0.5, "weight_hh_l0")
    x = torch.randn(7, 2, 4)
    y = module(x)[0]
    y.sum().backward()
    gradient = original(module, "weight_hh_l0").grad
    assert gradient is not None
    assert 0.2 < (gradient == 0).float().mean() < 0.8
    assert not torch.equal(module(x)[0], y)
    module.eval()
    assert torch.equal(module(x)[0], module(x)[0])


def test_follows_generator_and_repeats() -> None:
    x = torch.randn(3, 30)
    one, two = linear(seed=4), linear(seed=4)
    two.load_state_dict(one.state_dict())
    assert torch.equal(one(x), two(x))


def test_registration_draws_nothing() -> None:
    module = nn.Linear(3, 3)
    before = torch.get_rng_state()
    dropout_ext.drop_connect(module)
    assert torch.equal(torch.get_rng_state(), before)


def test_compiled_draws_at_each_call() -> None:
    module, x = dropout_ext.drop_connect(nn.Linear(30, 20)), torch.randn(3, 30)
    function = torch.compile(module, backend="aot_eager", fullgraph=True)
    torch.manual_seed(1)
    expected = [module(x), module(x)]
    torch.manual_seed(1)
    assert torch.equal(function(x), expected[0])
    assert torch.equal(function(x), expected[1])
    torch._dynamo.reset()


# Copies.


@pytest.mark.parametrize("first", ["original", "copy"])
def test_removal_from_a_copy_and_from_the_original(first: str) -> None:
    """torch's class of the module is shared by copies; each keeps what it has."""
    module, x = linear(), torch.randn(8, 30)
    copied = copy.deepcopy(module)
    one, other = (module, copied) if first == "original" else (copied, module)
    value = original(other).detach().clone()
    dropout_ext.remove_drop_connect(one)
    assert type(one) is nn.Linear and isinstance(one.weight, nn.Parameter)
    assert not torch.equal(other(x), other(x))
    assert list(other.state_dict()) == ["weight", "bias"]
    assert torch.equal(other.state_dict()["weight"], value)
    other.load_state_dict(one.state_dict())
    dropout_ext.remove_drop_connect(other)
    assert type(other) is nn.Linear
    assert torch.equal(one.weight, other.weight) and one.weight is not other.weight


def test_another_parameter_of_a_copy() -> None:
    module, x = linear(), torch.randn(8, 30)
    copied = copy.deepcopy(module)
    dropout_ext.drop_connect(copied, name="bias")
    assert isinstance(module.bias, nn.Parameter)
    assert module(x).shape == copied(x).shape
    dropout_ext.remove_drop_connect(copied)
    assert not torch.equal(copied(x), copied(x)), "its bias still drops"
    assert not torch.equal(module(x), module(x))


def test_moving_average_of_a_model() -> None:
    """What trainers do: a deep copy that is updated, and bare modules at the end."""
    model = nn.Sequential(linear(), nn.Linear(20, 3))
    average = torch.optim.swa_utils.AveragedModel(model)
    average.update_parameters(model)
    dropout_ext.remove_drop_connect(model[0])
    dropout_ext.remove_drop_connect(average.module[0])
    assert torch.equal(average.module[0].weight, model[0].weight)


# What reads or writes the parameter past the module.


def test_pickle_is_an_error_that_says_what_to_use() -> None:
    before = torch.get_rng_state()
    model = nn.Sequential(dropout_ext.drop_connect(nn.Linear(3, 2)))
    before = torch.get_rng_state()
    with pytest.raises(RuntimeError, match=r"only supported through state_dict\(\)"):
        pickle.dumps(model)
    assert torch.equal(torch.get_rng_state(), before)


def test_distributed_checkpoint_reads_the_parameter() -> None:
    """Under its bare name, both ways, and no mask is drawn for it."""
    checkpoint = pytest.importorskip("torch.distributed.checkpoint.state_dict")
    model = nn.Sequential(dropout_ext.drop_connect(nn.Linear(3, 2)), nn.Linear(2, 2))
    dropout_ext.drop_connect(model[0], name="bias")
    other = nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 2))
    before = torch.get_rng_state()
    found = checkpoint.get_model_state_dict(model)
    assert list(found) == ["0.weight", "0.bias", "1.weight", "1.bias"]
    assert torch.equal(found["0.weight"], original(model[0]))
    values = checkpoint.get_model_state_dict(other)
    checkpoint.set_model_state_dict(model, values)
    assert torch.equal(original(model[0]), other[0].weight)
    assert torch.equal(original(model[0], "bias"), other[0].bias)
    assert torch.equal(torch.get_rng_state(), before)
    dropout_ext.remove_drop_connect(model[0])
    dropout_ext.remove_drop_connect(model[0], "bias")
    assert list(checkpoint.get_model_state_dict(model)) == list(found)


WRITES: dict[str, Callable[[nn.Module], Any]] = {
    "normal_": lambda m: nn.init.normal_(m.weight),
    "constant_": lambda m: nn.init.constant_(tensor=m.weight, val=1.0),
    "kaiming_uniform_": lambda m: nn.init.kaiming_uniform_(m.weight),
    "orthogonal_": lambda m: nn.init.orthogonal_(m.weight),
    "trunc_normal_": lambda m: nn.init.trunc_normal_(m.weight),
    "zeros_": lambda m: nn.init.zeros_(m.weight),
    "data": lambda m: m.weight.data.normal_(),
    "detach": lambda m: m.weight.detach().zero_(),
    "a row": lambda m: m.weight[0].zero_(),
    "an item": lambda m: m.weight.__setitem__(0, 0.0),
    "a chunk": lambda m: m.weight.chunk(2)[1].fill_(1.0),
    "copy_": lambda m: m.weight.copy_(torch.zeros(20, 30)),
    "+=": lambda m: m.weight.__iadd__(1.0),
    "out": lambda m: torch.zeros(20, 30, out=m.weight),
    "set data": lambda m: setattr(m.weight, "data", torch.zeros(20, 30)),
}


@pytest.mark.parametrize("name", WRITES)
def test_writes_are_refused_or_kept(name: str) -> None:
    """In training they would go into a temporary; in evaluation they reach the parameter."""
    module = linear()
    before = original(module).detach().clone()
    with torch.no_grad(), pytest.raises(RuntimeError, match=r"parametrizations\.<name>\.original"):
        WRITES[name](module)
    assert torch.equal(original(module), before)
    module.eval()
    with torch.no_grad():
        WRITES[name](module)
    assert not torch.equal(original(module), before)


def test_what_is_computed_is_plain() -> None:
    """The guard costs no result its type, and reading is what it was."""
    module, x = linear(), torch.randn(8, 30)
    weight = module.weight
    assert isinstance(weight, Tensor) and weight.shape == (20, 30) and weight.requires_grad
    for result in (
        module(x),
        weight + 1,
        weight @ x.t(),
        weight.clone(),
        weight.sum(),
        x @ weight.t(),
    ):
        assert type(result) is Tensor
    module(x).sum().backward()
    assert type(original(module).grad) is Tensor


def test_transforms() -> None:
    """vmap over samples with a mask each, and the gradient of each."""
    module, batch = dropout_ext.drop_connect(nn.Linear(30, 20)), torch.randn(4, 30)
    parameters = dict(module.named_parameters())

    def loss(values: dict[str, Tensor], x: Tensor) -> Tensor:
        return torch.func.functional_call(module, values, x).square().sum()

    gradients = torch.func.vmap(torch.func.grad(loss), (None, 0), randomness="different")(
        parameters, batch
    )
    dropped = gradients["parametrizations.weight.original"] == 0
    assert 0.4 < dropped.float().mean() < 0.6
    assert not torch.equal(dropped[0], dropped[1])


def test_errors() -> None:
    with pytest.raises(ValueError, match=r"no parameter 'wait'.*\['weight', 'bias'\]"):
        dropout_ext.drop_connect(nn.Linear(2, 2), name="wait")
    with pytest.raises(ValueError, match="already"):
        dropout_ext.drop_connect(dropout_ext.drop_connect(nn.Linear(2, 2)))
    with pytest.raises(ValueError, match="between 0 and 1, but got 2"):
        dropout_ext.drop_connect(nn.Linear(2, 2), 2)
