"""Dropout in evaluation, for the uncertainty of predictions."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from dropout_ext.models.counterparts import dropouts


class Prediction(NamedTuple):
    """What :func:`mc_predict` returns.

    Attributes:
        mean: over the passes, of the shape of the model's output.
        std: likewise, with Bessel's correction.
    """

    mean: Tensor
    std: Tensor


@contextmanager
def mc_dropout(model: nn.Module) -> Iterator[nn.Module]:
    """While it is active, the dropouts of a model drop, whatever its training flag.

    Monte Carlo dropout (Gal and Ghahramani, "Dropout as a Bayesian approximation", ICML 2016).
    Switched on are the modules of this package and of torch.nn: dropouts, DropConnect, and the
    modules with a dropout of their own, nn.MultiheadAttention, nn.RNN, nn.LSTM and nn.GRU. All
    others, batch normalization for one, stay as they are. The fused inference of
    nn.TransformerEncoderLayer, which leaves dropout out, is switched off meanwhile.

    Every flag is restored at the end, also after an error. The training flags belong to the model
    and the switch of the fused inference to the process: threads that share them see the change.

    Args:
        model: any module.

    Yields:
        ``model``.
    """
    flags = [(module, module.training) for module in dropouts(model)]
    fast_path = torch.backends.mha.get_fastpath_enabled()
    try:
        for module, _ in flags:
            module.training = True
        torch.backends.mha.set_fastpath_enabled(False)
        yield model
    finally:
        torch.backends.mha.set_fastpath_enabled(fast_path)
        for module, training in flags:
            module.training = training


def mc_predict(
    model: Callable[..., Tensor],
    *args: Any,
    samples: int = 20,
    vmapped: bool = False,
    **kwargs: Any,
) -> Prediction:
    """Mean and standard deviation over stochastic passes of a model with its dropouts on.

    Without gradient. Looped, the passes draw the masks of successive calls of the model; vmapped,
    each layer draws for all passes before the next layer does.

    Args:
        model: module that returns one tensor; see :func:`mc_dropout` for what drops.
        args, kwargs: of the model.
        samples: number of passes, at least 2.
        vmapped: all passes as one batched call, with ``samples`` times the memory, instead of one
            after the other. It needs a model that :func:`torch.func.vmap` can run.

    Returns:
        ``(mean, std)``, ``std`` with Bessel's correction.

    Raises:
        ValueError: ``samples`` is below 2.
        TypeError: ``model`` is no module, or does not return a tensor.
    """
    if samples < 2:
        raise ValueError(f"mc_predict: samples must be 2 or more, but got {samples}")
    if not isinstance(model, nn.Module):
        raise TypeError(f"mc_predict: model must be a torch.nn.Module, but got {model!r}")

    def once(_: object = None) -> Tensor:
        output = model(*args, **kwargs)
        if not isinstance(output, Tensor):
            raise TypeError(
                f"mc_predict: the model must return a tensor, but got {type(output).__name__}"
            )
        return output

    with torch.no_grad(), mc_dropout(model):
        if vmapped:
            outputs = torch.func.vmap(once, randomness="different")(torch.empty(samples, 0))
            return Prediction(outputs.mean(0), outputs.std(0))
        return _running(once, samples)


def _running(once: Callable[[], Tensor], samples: int) -> Prediction:
    """Welford's algorithm: two tensors of state, in float32 or wider, however many samples."""
    first = once()
    mean = first.to(torch.promote_types(first.dtype, torch.float32))
    squares = torch.zeros_like(mean)
    for n in range(2, samples + 1):
        output = once()
        deviation = output - mean
        mean = mean + deviation / n
        squares = squares + deviation * (output - mean)
    return Prediction(mean.to(first.dtype), (squares / (samples - 1)).sqrt().to(first.dtype))
