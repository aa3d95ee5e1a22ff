"""convert_dropout of modules that call torch's dropout as a function.

Catches: a way of writing such a call that is not seen, and so stays torch's without a word; a class
that does not survive what models go through; a module that is changed without need.
"""

from __future__ import annotations

import copy
import functools
import io
import math
import pickle
import warnings
from collections.abc import Callable
from threading import Thread
from typing import Any

import pytest
import torch
import torch.nn.functional
import torch.nn.functional as TF
from torch import Tensor, nn
from torch.nn.functional import dropout as renamed
from torch.nn.functional import scaled_dot_product_attention
from torch.utils.checkpoint import checkpoint

import dropout_ext

Function = Callable[..., Any]


def helper(x: Tensor, training: bool) -> Tensor:
    return deeper(x, training)


def deeper(x: Tensor, training: bool) -> Tensor:
    return renamed(x, 0.3, training)


def decorated(function: Function) -> Function:
    @functools.wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs)

    return wrapper


def undeclared(function: Function) -> Function:
    return lambda *args: function(*args)


class Base(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(6, 6)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x)  # type: ignore[no-any-return]


class ByModule(Base):
    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.dropout(super().forward(x), 0.3, self.training)


class ByAlias(Base):
    def forward(self, x: Tensor) -> Tensor:
        return TF.alpha_dropout(super().forward(x), 0.3, self.training)


class ByName(Base):
    def forward(self, x: Tensor) -> Tensor:
        return renamed(super().forward(x), 0.3, self.training)


class ByTorch(Base):
    def forward(self, x: Tensor) -> Tensor:
        return torch.dropout(super().forward(x), 0.3, self.training)


class ByHelper(Base):
    def forward(self, x: Tensor) -> Tensor:
        return helper(super().forward(x), self.training)


class ByMethod(Base):
    def forward(self, x: Tensor) -> Tensor:
        return self._drop(super().forward(x))

    def _drop(self, x: Tensor) -> Tensor:
        return nn.functional.dropout(x, 0.3, self.training)


class Inherited(ByMethod):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) * 2


class Decorated(Base):
    @decorated
    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.dropout(super().forward(x), 0.3, self.training)


def after_linear(self: Base, x: Tensor) -> Tensor:
    return nn.functional.dropout(Base.forward(self, x), 0.3, self.training)


class Undeclared(Base):
    forward = undeclared(after_linear)


class InClosure(Base):
    def forward(self, x: Tensor) -> Tensor:
        return (lambda t: nn.functional.dropout(t, 0.3, self.training))(super().forward(x))


class OnTheObject(Base):
    def __init__(self) -> None:
        super().__init__()
        self.drop = nn.functional.dropout

    def forward(self, x: Tensor) -> Tensor:
        return self.drop(super().forward(x), 0.3, self.training)


class Attending(Base):
    def forward(self, x: Tensor) -> Tensor:
        x = super().forward(x)
        p = 0.3 if self.training else 0.0
        return scaled_dot_product_attention(x, x, x, dropout_p=p)


class Checkpointing(Base):
    """The checkpoint is of a function that no module's forward is around when it runs again."""

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = checkpoint(deeper, super().forward(x), self.training, use_reentrant=False)
        return y


class Static(Base):
    @staticmethod
    def drop(x: Tensor, training: bool) -> Tensor:
        return nn.functional.dropout(x, 0.3, training)

    def forward(self, x: Tensor) -> Tensor:
        return self.drop(super().forward(x), self.training)


class AsProperty(Base):
    @property
    def drop(self) -> Function:
        return lambda x: nn.functional.dropout(x, 0.3, self.training)

    def forward(self, x: Tensor) -> Tensor:
        return self.drop(super().forward(x))  # type: ignore[no-any-return]


class Partial(Base):
    def __init__(self) -> None:
        super().__init__()
        self.drop = functools.partial(nn.functional.dropout, p=0.3)

    def forward(self, x: Tensor) -> Tensor:
        return self.drop(super().forward(x), training=self.training)


class ByImport(Base):
    def forward(self, x: Tensor) -> Tensor:
        from torch.nn.functional import dropout

        return dropout(super().forward(x), 0.3, self.training)


class ByDefault(Base):
    def forward(self, x: Tensor, drop: Function = nn.functional.dropout) -> Tensor:
        return drop(super().forward(x), 0.3, self.training)  # type: ignore[no-any-return]


class MadeThere(Base):
    def forward(self, x: Tensor) -> Tensor:
        return nn.Dropout(0.3).train(self.training)(super().forward(x))  # type: ignore


class Callable_:
    def __call__(self, x: Tensor, training: bool) -> Tensor:
        return nn.functional.dropout(x, 0.3, training)


class ByObject(Base):
    def __init__(self) -> None:
        super().__init__()
        self.drop = Callable_()

    def forward(self, x: Tensor) -> Tensor:
        return self.drop(super().forward(x), self.training)


class Sub(nn.Dropout):
    pass


class Loud(nn.Dropout):
    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input) * 2


class OwnAttention(nn.MultiheadAttention):
    def __init__(self) -> None:
        super().__init__(6, 2, dropout=0.3)

    def forward(self, x: Tensor) -> Tensor:  # type: ignore[override]
        return super().forward(x, x, x)[0]


CALLERS: list[Function] = [
    ByModule, ByAlias, ByName, ByTorch, ByHelper, ByMethod, Inherited, Decorated, Undeclared,
    InClosure, OnTheObject, Static, AsProperty, Partial, ByImport, ByDefault, MadeThere, ByObject,
    Attending, Checkpointing, functools.partial(Sub, 0.3),
    functools.partial(Loud, 0.3), OwnAttention,
]  # fmt: skip


def name_of(make: Any) -> str:
    return str(getattr(make, "func", make).__name__)


def step(model: nn.Module, seed: int = 3) -> list[Tensor]:
    x = torch.randn(2, 7, 6, generator=torch.Generator().manual_seed(1)).requires_grad_()
    torch.manual_seed(seed)
    y = model(x)
    y.square().sum().backward()
    assert x.grad is not None
    return [y.detach(), x.grad]


def equal(one: list[Tensor], other: list[Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize("make", CALLERS, ids=name_of)
def test_the_call_is_ours(make: Function) -> None:
    """In training, from the given generator alone, with the masks of an enclosing redirection."""
    plain = make()
    model, generator = copy.deepcopy(plain), torch.Generator()
    report = dropout_ext.ConversionReport()
    dropout_ext.convert_dropout(model, generator=generator.manual_seed(3), report=report)
    assert set(report.changed) == {""}
    assert "redirects" in report.notes[""]
    found = step(model, seed=8)
    untouched = torch.Generator().manual_seed(8).get_state()
    assert torch.equal(torch.get_rng_state(), untouched), "drew from torch's default generator"
    with dropout_ext.redirect_torch_dropout(generator=generator.manual_seed(3)):
        expected = step(plain, seed=8)
    assert equal(found, expected)


@pytest.mark.parametrize("make", CALLERS, ids=name_of)
def test_evaluation_state_dict_and_the_way_back(make: Function) -> None:
    model = make().eval()
    x, cls, attributes = torch.randn(2, 7, 6), type(model), set(vars(model))
    expected, keys = model(x), list(model.state_dict())
    dropout_ext.convert_dropout(model)
    assert isinstance(model, cls) and type(model).__name__ == cls.__name__
    assert torch.equal(model(x), expected)
    assert list(model.state_dict()) == keys
    dropout_ext.revert_dropout(model)
    assert type(model) is cls and set(vars(model)) == attributes


@pytest.mark.parametrize("make", [ByModule, Inherited, Checkpointing], ids=name_of)
def test_copies(make: Function) -> None:
    """Catches: a class without a name that pickle finds, a copy that drops by torch."""
    model = dropout_ext.convert_dropout(nn.Sequential(make(), nn.Dropout(0.2)))
    expected, saved = step(model), io.BytesIO()
    torch.save(model, saved)
    saved.seek(0)
    copies = {
        "deepcopy": copy.deepcopy(model),
        "torch.save": torch.load(saved, weights_only=False),
        **{str(n): pickle.loads(pickle.dumps(model, n)) for n in range(2, 6)},
    }
    for how, one in copies.items():
        assert equal(expected, step(one)), how
        assert type(dropout_ext.revert_dropout(one)[0]) is make


@pytest.mark.parametrize("reentrant", [False, True])
def test_checkpoints(reentrant: bool) -> None:
    model = dropout_ext.convert_dropout(ByMethod(), generator=torch.Generator())

    def again(x: Tensor) -> Tensor:
        return checkpoint(model, x, use_reentrant=reentrant)  # type: ignore[no-any-return]

    found = []
    for function in (model, again):
        model.dropout_ext.generator.manual_seed(3)
        x = torch.ones(50, 6, requires_grad=True)
        function(x).square().sum().backward()
        found.append(x.grad)
    assert torch.equal(*found)


def test_threads() -> None:
    """As in nn.DataParallel: the module redirects in whatever thread runs it."""
    generator = torch.Generator()
    models = [dropout_ext.convert_dropout(ByModule(), generator=generator) for _ in range(2)]
    before = torch.get_rng_state()
    outputs: list[Tensor] = []
    threads = [Thread(target=lambda m=m: outputs.append(m(torch.ones(99, 6)))) for m in models]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(outputs) == 2
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.thorough
@pytest.mark.parametrize("make", [ByHelper, Attending, OwnAttention], ids=name_of)
def test_compiled(make: Function) -> None:
    torch._dynamo.reset()
    model = dropout_ext.convert_dropout(make())
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
    for eager, found in zip(step(model), step(compiled), strict=True):
        torch.testing.assert_close(eager, found)  # gradients are added in another order
    torch._dynamo.reset()


class Quiet(Base):
    """No call of a dropout, though many names come near one."""

    def __init__(self) -> None:
        super().__init__()
        self.dropout = nn.Identity()
        self.drop_rate = 0.0

    def forward(self, x: Tensor) -> Tensor:
        return self.dropout(super().forward(x).relu() * math.pi)  # type: ignore[no-any-return]


def test_others_are_left_alone() -> None:
    model = nn.Sequential(Quiet(), nn.LSTM(6, 6, 1), Base())
    classes = [type(module) for module in model.modules() if not isinstance(module, nn.Dropout)]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        dropout_ext.convert_dropout(model)
    kept = [type(module) for module in model.modules() if not isinstance(module, nn.Dropout)]
    assert kept == classes


class Numbers(Base):
    """Drops by random numbers of its own."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) * x.new_empty(x.shape).bernoulli_(0.5)


class Rate(Base):
    def __init__(self) -> None:
        super().__init__()
        self.layer_drop = 0.25


class DropBlock(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x


class Elsewhere(Base):
    def encode(self, x: Tensor) -> Tensor:
        return nn.functional.dropout(x)


class ByCall(Base):
    def __call__(self, x: Tensor) -> Tensor:
        return nn.functional.dropout(self.forward(x), 0.3, self.training)


def test_what_is_not_understood_is_said() -> None:
    model = nn.ModuleDict({
        "numbers": Numbers(), "rate": Rate(), "block": DropBlock(), "elsewhere": Elsewhere(),
        "by_call": ByCall(),
    })  # fmt: skip
    report = dropout_ext.ConversionReport()
    dropout_ext.convert_dropout(model, report=report)
    assert report.not_understood == {
        "numbers": "Numbers calls bernoulli_ of torch",
        "rate.layer_drop": "0.25 in Rate, which calls no dropout of torch",
        "block": "DropBlock is named like a dropout",
        "elsewhere.encode": "a method of Elsewhere that calls torch's dropout outside of forward",
        "by_call.__call__": "a method of ByCall that calls torch's dropout outside of forward",
    }
    assert "rate.layer_drop: not understood, 0.25 in Rate" in str(report)
    with pytest.warns(UserWarning, match="numbers: not understood, Numbers calls bernoulli_"):
        dropout_ext.convert_dropout(model)


def test_a_forward_on_the_object_is_said() -> None:
    """Libraries put one there, and the class's is not called any more."""
    model = nn.Sequential(ByModule(), nn.Dropout(0.5))
    for module in model:
        module.forward = module.forward
    report = dropout_ext.ConversionReport()
    dropout_ext.convert_dropout(model, report=report)
    assert set(report.unchanged) == {"0", "1"}
    assert "is replaced on the object" in report.unchanged["0"]


def test_attention_false_keeps_torchs() -> None:
    report = dropout_ext.ConversionReport()
    model = nn.ModuleDict({"attending": Attending(), "own": OwnAttention(), "drop": ByModule()})
    dropout_ext.convert_dropout(model, attention=False, report=report)
    assert set(report.unchanged) == {"attending", "own"}
    assert set(report.changed) == {"drop"}


def test_attention_auto_is_in_the_report() -> None:
    report = dropout_ext.ConversionReport()
    model = nn.ModuleDict({"a": Attending(), "b": nn.MultiheadAttention(6, 2, dropout=0.3)})
    dropout_ext.convert_dropout(model, report=report)
    assert all("attention on the CPU alone" in note for note in report.notes.values())
    assert set(report.notes) == {"a", "b"}
    assert model["b"].attention == model["a"].dropout_ext.attention == "auto"
    with pytest.raises(ValueError, match="attention must be True, False or"):
        dropout_ext.convert_dropout(model, attention=1.5)  # type: ignore[arg-type]


def test_ours_are_given_the_generator() -> None:
    """And are in the report: catches those that a conversion would leave to the default one."""
    linear = dropout_ext.drop_connect(nn.Linear(4, 4), 0.5)

    class OfOurs(dropout_ext.Dropout):
        pass

    ours = [dropout_ext.DropPath(0.1), dropout_ext.StochasticDepth(0.1, "row"), OfOurs(0.1)]
    generator, report = torch.Generator(), dropout_ext.ConversionReport()
    dropout_ext.convert_dropout(nn.Sequential(linear, *ours), generator=generator, report=report)
    assert set(report.changed) == {"0.parametrizations.weight.0", "1", "2", "3"}
    assert all(module.generator is generator for module in ours)
    assert linear.parametrizations.weight[0].generator is generator  # type: ignore


def test_a_module_of_a_torch_class_with_a_module_for_a_number() -> None:
    """Catches: a comparison of a module with 0."""
    attention, lstm = nn.MultiheadAttention(4, 2), nn.LSTM(4, 4)
    attention.dropout = lstm.dropout = nn.Dropout(0.1)  # type: ignore[assignment]
    model = nn.ModuleList([attention, lstm])
    dropout_ext.convert_dropout(model)
    assert type(attention.dropout) is type(lstm.dropout) is dropout_ext.Dropout


def test_scripted_modules_are_said() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        scripted = torch.jit.script(nn.Sequential(nn.Dropout(0.5)))
    report = dropout_ext.ConversionReport()
    dropout_ext.convert_dropout(nn.Sequential(scripted), report=report)
    assert "TorchScript" in report.unchanged["0"]


def test_revert_names_a_subclass_of_ours() -> None:
    class Ours(dropout_ext.MultiheadAttention):
        pass

    report = dropout_ext.ConversionReport()
    dropout_ext.revert_dropout(nn.Sequential(Ours(4, 2, dropout=0.1)), report=report)
    assert "Ours" in report.unchanged["0"]


def test_no_mode_in_evaluation() -> None:
    """It costs, and torch leaves its fused inference for any mode."""
    modes: list[int] = []

    class Looking(ByModule):
        def forward(self, x: Tensor) -> Tensor:
            modes.append(len(torch.overrides._get_current_function_mode_stack()))
            return super().forward(x)

    model = dropout_ext.convert_dropout(Looking())
    for training in (True, False):
        model.train(training)(torch.ones(2, 6))
    assert modes == [1, 0]


class Clashing(ByModule):
    """Names that a conversion might take for its own."""

    def __init__(self) -> None:
        super().__init__()
        self.dropout_attention = 0.3
        self.attention, self.generator = nn.Linear(6, 6), nn.Linear(6, 6)


def test_names_of_the_module_stay_its_own() -> None:
    model = dropout_ext.convert_dropout(Clashing(), report=dropout_ext.ConversionReport())
    step(model)
    dropout_ext.revert_dropout(model)
    assert model.dropout_attention == 0.3
    assert isinstance(model.attention, nn.Linear) and isinstance(model.generator, nn.Linear)


class WithRate(ByModule):
    def __init__(self) -> None:
        super().__init__()
        self.dropout = 0.1


def test_twice() -> None:
    """The second conversion takes the new choice, and finds nothing to complain of."""
    model = nn.Sequential(WithRate(), Sub(0.3), nn.MultiheadAttention(6, 2), nn.Dropout(0.1))
    dropout_ext.convert_dropout(model)
    classes = [type(module) for module in model]
    report = dropout_ext.ConversionReport()
    dropout_ext.convert_dropout(model, report=report)
    assert str(report) == "no dropout found"
    dropout_ext.convert_dropout(model, attention=True, report=report)
    assert [type(module) for module in model] == classes
    assert set(report.changed) == {"0", "1", "2"}
    assert model[0].dropout_ext.attention is model[2].attention is True


def test_parametrized_before_and_after() -> None:
    """torch takes the class apart when it removes one; ours must not be in between."""
    after = dropout_ext.convert_dropout(ByLinear(6, 6))
    nn.utils.parametrizations.weight_norm(after)
    report = dropout_ext.ConversionReport()
    dropout_ext.revert_dropout(after, report=report)
    assert "revert before that" in report.unchanged[""]
    nn.utils.parametrize.remove_parametrizations(after, "weight")
    assert type(dropout_ext.revert_dropout(after)) is ByLinear
    before = nn.utils.parametrizations.weight_norm(ByLinear(6, 6))
    dropout_ext.convert_dropout(before, report=report)
    assert "convert before it" in report.unchanged[""]
    nn.utils.parametrize.remove_parametrizations(before, "weight")


class ByLinear(nn.Linear):
    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.dropout(super().forward(x), 0.3, self.training)


REGISTRY: dict[str, type] = {}


class Registered(ByModule):
    def __init_subclass__(cls, *, tag: str) -> None:
        REGISTRY[tag] = cls


class ByReduce(ByModule):
    def __reduce__(self) -> Any:
        return self.__class__, ()


def test_hooks_of_classes() -> None:
    """A class that keeps a list of its subclasses, or pickles by its own rule."""
    dropout_ext.convert_dropout(Registered())
    assert not REGISTRY
    copied = pickle.loads(pickle.dumps(dropout_ext.convert_dropout(ByReduce())))
    assert type(copied) is type(dropout_ext.convert_dropout(ByReduce()))
    assert type(dropout_ext.revert_dropout(copied)) is ByReduce
