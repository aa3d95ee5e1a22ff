"""Dropout in evaluation, for the uncertainty of predictions."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from typing import Any, Literal, NamedTuple, overload

import torch
from torch import Generator, Tensor, nn

from dropout_ext.integration.torch_private import pytree
from dropout_ext.models.counterparts import dropouts
from dropout_ext.models.namesakes import looks_like_dropout
from dropout_ext.models.redirected import Options


class Prediction(NamedTuple):
    """What :func:`mc_predict` returns.

    Attributes:
        mean: over the passes, of the type and shapes of the model's output.
        std: likewise, with Bessel's correction.
    """

    mean: Any
    std: Any


class SampledPrediction(NamedTuple):
    """What :func:`mc_predict` returns with ``return_samples=True``.

    Attributes:
        mean, std: as of :class:`Prediction`.
        samples: of the type of the model's output, its tensors with the passes as a first dimension
            more.
    """

    mean: Any
    std: Any
    samples: Any


@contextmanager
def mc_dropout(model: nn.Module) -> Iterator[nn.Module]:
    """While it is active, the dropouts of a model drop, whatever its training flag.

    Monte Carlo dropout (Gal and Ghahramani, "Dropout as a Bayesian approximation", ICML 2016).
    Switched on are the modules of this package and of torch.nn: dropouts, DropConnect, and the
    modules with a dropout of their own, nn.MultiheadAttention, nn.RNN, nn.LSTM and nn.GRU; and the
    dropouts of other libraries, known by the names of their classes: DropPath, StochasticDepth,
    DropBlock2d, PatchDropout. All others, batch normalization for one, stay as they are. The fused
    inference of nn.TransformerEncoderLayer, which leaves dropout out, is switched off meanwhile.

    A dropout that a forward calls as a function follows the flag of its own module. That is set too
    if :func:`convert_dropout` found the call, and with it whatever else that forward does in
    training, such as to skip layers; else such a dropout stays off.

    Every flag is restored at the end, also after an error. The training flags belong to the model
    and the switch of the fused inference to the process: threads that share them see the change.

    Args:
        model: any module.

    Yields:
        ``model``.

    Warns:
        UserWarning: there is no dropout to be switched on.
    """
    if next(_switched(model), None) is None:
        warnings.warn(
            f"mc_dropout: {type(model).__name__} has no dropout that could be switched on. {_WHY}",
            stacklevel=3,
        )
    with _flags(model, evaluate_others=False):
        yield model


_WHY = (
    "A dropout that a forward calls as a function, as torch.nn.functional.dropout, follows the "
    "training flag of the module around it: convert_dropout finds these modules"
)


@overload
def mc_predict(
    model: Callable[..., Any],
    *args: Any,
    samples: int = ...,
    vmapped: bool = ...,
    chunk_size: int | None = ...,
    generator: Generator | None = ...,
    return_samples: Literal[False] = ...,
    model_kwargs: Mapping[str, Any] | None = ...,
    **kwargs: Any,
) -> Prediction: ...


@overload
def mc_predict(
    model: Callable[..., Any],
    *args: Any,
    samples: int = ...,
    vmapped: bool = ...,
    chunk_size: int | None = ...,
    generator: Generator | None = ...,
    return_samples: Literal[True],
    model_kwargs: Mapping[str, Any] | None = ...,
    **kwargs: Any,
) -> SampledPrediction: ...


def mc_predict(
    model: Callable[..., Any],
    *args: Any,
    samples: int = 20,
    vmapped: bool = False,
    chunk_size: int | None = None,
    generator: Generator | None = None,
    return_samples: bool = False,
    model_kwargs: Mapping[str, Any] | None = None,
    **kwargs: Any,
) -> Prediction | SampledPrediction:
    """Mean and standard deviation over stochastic passes of a model with its dropouts on.

    Without gradient, and with all but its dropouts in evaluation; every flag is restored. Looped,
    the passes draw the masks of successive calls of the model; vmapped, each layer draws for all
    passes before the next layer does.

    Args:
        model: a module whose output is a tensor, or a tree of them as :mod:`torch.utils._pytree`
            knows it: tuples, lists, dicts, named tuples, the outputs of transformers. See
            :func:`mc_dropout` for what drops.
        args, kwargs: of the model.
        samples: number of passes, at least 2.
        vmapped: all passes as one batched call, with ``samples`` times the memory, instead of one
            after the other. It needs a model that :func:`torch.func.vmap` can run.
        chunk_size: with ``vmapped``, how many passes are one call.
        generator: takes the place of the default generator of its device, for all that draws
            meanwhile, torch's dropouts too. That one is left as it was.
        return_samples: also return the outputs of all passes.
        model_kwargs: keyword arguments of the model too, for those whose names are taken here.

    Returns:
        ``(mean, std)``, or ``(mean, std, samples)``, each of the type of the output. ``std`` has
        Bessel's correction. Both are accumulated in float32 for float16 and bfloat16 and returned
        in the dtype of the output; integers and booleans become float32. What is no tensor must be
        the same in all passes and stays in the mean, or is None there if it cannot be compared; in
        ``std`` it is None.

    Raises:
        ValueError: ``samples`` is below 2, ``chunk_size`` below 1 or without ``vmapped``.
        TypeError: ``model`` is no module, or does not return tensors; ``model_kwargs`` and
            ``kwargs`` share a name.
        RuntimeError: the passes return different trees or shapes.

    Warns:
        UserWarning: no random number was drawn, so that all passes are one.
    """
    if samples < 2:
        raise ValueError(f"mc_predict: samples must be 2 or more, but got {samples}")
    if chunk_size is not None and (chunk_size < 1 or not vmapped):
        raise ValueError(
            f"mc_predict: chunk_size must be 1 or more, and is for vmapped=True; but got "
            f"{chunk_size} and vmapped={vmapped}"
        )
    if not isinstance(model, nn.Module):
        raise TypeError(f"mc_predict: model must be a torch.nn.Module, but got {model!r}")
    twice = sorted(set(model_kwargs or ()) & set(kwargs))
    if twice:
        raise TypeError(f"mc_predict: given by model_kwargs and by keyword: {', '.join(twice)}")
    kwargs = {**kwargs, **(model_kwargs or {})}
    place = nullcontext() if generator is None else _in_place_of_the_default(generator)
    statistics, layout = _Statistics(return_samples), _Layout()
    with torch.no_grad(), _flags(model, evaluate_others=True), place:
        before = _generator_states(model)

        def once(_: object = None) -> list[Tensor]:
            return layout.tensors(model(*args, **kwargs))

        if vmapped:
            size = chunk_size or samples
            for done in range(0, samples, size):
                passes = torch.empty(min(size, samples - done), 0)
                statistics.add(torch.func.vmap(once, randomness="different")(passes))
        else:
            for _ in range(samples):
                statistics.add([tensor.unsqueeze(0) for tensor in once()])
        if _same(before, _generator_states(model)):
            on = sum(1 for _ in _switched(model))
            warnings.warn(
                f"mc_predict: the passes of {type(model).__name__} drew no random number, so its "
                f"standard deviation is 0; dropout modules that were switched on: {on or 'none'}. "
                f"{_WHY}",
                stacklevel=2,
            )
    mean, std = layout.like(statistics.mean()), layout.like(statistics.std(), constants=False)
    if not return_samples:
        return Prediction(mean, std)
    return SampledPrediction(mean, std, layout.like(statistics.samples()))


def _switched(model: nn.Module) -> Iterator[nn.Module]:
    known = set(dropouts(model))
    return (module for module in model.modules() if module in known or looks_like_dropout(module))


@contextmanager
def _flags(model: nn.Module, evaluate_others: bool) -> Iterator[None]:
    """Flags alone: ``train()`` and ``eval()`` of a module may do more."""
    flags = [(module, module.training) for module in model.modules()]
    on = list(_switched(model))
    fast_path = torch.backends.mha.get_fastpath_enabled()
    try:
        if evaluate_others:
            for module, _ in flags:
                module.training = False
        for module in on:
            module.training = True
        torch.backends.mha.set_fastpath_enabled(False)
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast_path)
        for module, training in flags:
            module.training = training


# Generators.


@contextmanager
def _in_place_of_the_default(generator: Generator) -> Iterator[None]:
    default = torch.default_generator
    if generator.device.type != "cpu":
        torch.cuda.init()
        index = generator.device.index
        default = torch.cuda.default_generators[
            torch.cuda.current_device() if index is None else index
        ]
    state = default.get_state()
    default.set_state(generator.get_state())
    try:
        yield
    finally:
        generator.set_state(default.get_state())
        default.set_state(state)


def _generator_states(model: nn.Module) -> list[Tensor]:
    """Of all generators that a dropout may draw from."""
    generators = [torch.default_generator]
    if torch.cuda.is_initialized():
        generators += torch.cuda.default_generators
    for module in model.modules():
        options = vars(module).get("dropout_ext", Options())
        own = vars(module).get("generator"), options.generator
        generators += [one for one in own if isinstance(one, Generator) and one not in generators]
    return [generator.get_state() for generator in generators]


def _same(before: list[Tensor], after: list[Tensor]) -> bool:
    return all(torch.equal(*states) for states in zip(before, after, strict=True))


# Statistics.


_PLAIN = (bool, int, float, complex, str, bytes, type(None))


class _Layout:
    """The tree of the outputs, which must be one for all passes, and what is no tensor in it."""

    def __init__(self) -> None:
        self._tree: Any = None
        self._leaves: list[Any] = []

    def tensors(self, output: Any) -> list[Tensor]:
        leaves, tree = pytree.tree_flatten(output)
        found = [leaf for leaf in leaves if isinstance(leaf, Tensor)]
        if not found:
            raise TypeError(
                "mc_predict: the model must return a tensor or a tree of tensors, but got "
                f"{type(output).__name__}"
            )
        constants = [self._constant(leaf) for leaf in leaves]
        if self._tree is None:
            self._tree, self._leaves = tree, constants
        elif tree != self._tree or constants != self._leaves:
            raise RuntimeError(
                "mc_predict: all passes must return one tree of tensors and the same in the place "
                f"of what is no tensor, but got {self._leaves} in {self._tree} and then "
                f"{constants} in {tree}"
            )
        return found

    def _constant(self, leaf: Any) -> Any:
        if isinstance(leaf, Tensor):
            return Tensor
        return leaf if isinstance(leaf, _PLAIN) else None

    def like(self, tensors: list[Tensor], constants: bool = True) -> Any:
        """The tree with these tensors."""
        rest = iter(tensors)
        leaves = [
            next(rest) if leaf is Tensor else leaf if constants else None for leaf in self._leaves
        ]
        return pytree.tree_unflatten(leaves, self._tree)


class _Statistics:
    """Mean and sum of squared deviations of each tensor, whatever the number of passes.

    Chan, Golub and LeVeque, "Updating formulae and a pairwise algorithm for computing sample
    variances", 1979; with one pass at a time it is Welford's.
    """

    def __init__(self, keep: bool) -> None:
        self._count = 0
        self._means: list[Tensor] = []
        self._squares: list[Tensor] = []
        self._dtypes: list[torch.dtype] = []
        self._samples: list[list[Tensor]] | None = [] if keep else None

    def add(self, outputs: list[Tensor]) -> None:
        """Outputs of some passes, which are the first dimension."""
        if self._samples is not None:
            self._samples.append(outputs)
        values = [output.to(_accumulator(output.dtype)) for output in outputs]
        count, means = len(values[0]), [value.mean(0) for value in values]
        squares = [_square(value - mean).sum(0) for value, mean in zip(values, means, strict=True)]
        if self._count == 0:
            self._means, self._squares = means, squares
            self._dtypes = [output.dtype for output in outputs]
        else:
            self._merge(count, means, squares)
        self._count += count

    def _merge(self, count: int, means: list[Tensor], squares: list[Tensor]) -> None:
        total = self._count + count
        for k, (mean, square) in enumerate(zip(means, squares, strict=True)):
            if mean.shape != self._means[k].shape:
                raise RuntimeError(
                    "mc_predict: all passes must return the same shapes, but got "
                    f"{list(self._means[k].shape)} and then {list(mean.shape)}"
                )
            difference = mean - self._means[k]
            self._means[k] = self._means[k] + difference * (count / total)
            self._squares[k] = (
                self._squares[k] + square + _square(difference) * (self._count * count / total)
            )

    def mean(self) -> list[Tensor]:
        return [
            mean.to(dtype if dtype.is_floating_point or dtype.is_complex else mean.dtype)
            for mean, dtype in zip(self._means, self._dtypes, strict=True)
        ]

    def std(self) -> list[Tensor]:
        return [
            (square / (self._count - 1))
            .sqrt()
            .to(dtype if dtype.is_floating_point else square.dtype)
            for square, dtype in zip(self._squares, self._dtypes, strict=True)
        ]

    def samples(self) -> list[Tensor]:
        assert self._samples is not None
        return [torch.cat(tensors) for tensors in zip(*self._samples, strict=True)]


def _accumulator(dtype: torch.dtype) -> torch.dtype:
    wide = dtype in (torch.float32, torch.float64) or dtype.is_complex
    return dtype if wide else torch.float32


def _square(value: Tensor) -> Tensor:
    return value.abs().square()
