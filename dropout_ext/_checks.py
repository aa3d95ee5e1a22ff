"""Argument checks that eager and traced calls share; the operators check the rest."""

import warnings
from typing import Any

import torch
from torch import Generator, Tensor

UPSCALE, DOWNSCALE = MODES = "upscale_in_train", "downscale_in_infer"
"""When the scale is applied, in Paddle's terms."""


def check_probability(p: Any) -> None:
    """ValueError unless p is a number in [0, 1]; in the words of torch.nn.Dropout."""
    try:
        valid = 0.0 <= p <= 1.0
    except TypeError:
        valid = False
    if not valid:
        raise ValueError(f"dropout probability has to be between 0 and 1, but got {p}")


def check_mode(mode: Any) -> None:
    """ValueError unless mode names when the scale is applied."""
    if mode not in MODES:
        raise ValueError(f"dropout: mode must be {UPSCALE!r} or {DOWNSCALE!r}, but got {mode!r}")


def check_depth(p: Any, mode: Any) -> None:
    """ValueError unless p is in [0, 1] and mode is row or batch; in the words of torchvision."""
    try:
        check_probability(p)
    except ValueError:
        raise ValueError(f"drop probability has to be between 0 and 1, but got {p}") from None
    if mode not in ("batch", "row"):
        raise ValueError(f"mode has to be either 'batch' or 'row', but got {mode}")


def either_name(p: float, drop_prob: float | None) -> float:
    """The probability, which timm calls drop_prob."""
    if drop_prob is None:
        return p
    if p != 0.0:
        raise ValueError(f"p and drop_prob are two names of one, but got {p} and {drop_prob}")
    return drop_prob


def check_tensor(input: Any) -> None:
    """TypeError unless the input is a tensor."""
    if not isinstance(input, Tensor):
        raise TypeError(f"dropout: input must be a Tensor, but got {type(input).__name__}")


def check_floating(input: Any) -> None:
    """TypeError unless the input is a tensor of floating point numbers."""
    check_tensor(input)
    if not input.is_floating_point():
        raise TypeError(
            f"dropout: input must be float64, float32, bfloat16 or float16, but got {input.dtype}"
        )


def check_rng_state(rng_state: Any) -> None:
    """One state: the operators take a batch of them too, which is how vmap calls them."""
    if not isinstance(rng_state, Tensor):
        raise TypeError(f"dropout: rng_state must be a Tensor, but got {rng_state!r}")
    if rng_state.dim() != 1:
        raise ValueError(
            "dropout: rng_state must have shape [2] (seed, offset), but got shape "
            f"{list(rng_state.shape)}"
        )


def warn_if_checkpointed(generator: Generator) -> None:
    """Of a draw from a generator that ``torch.utils.checkpoint`` will not restore.

    It watches what is saved for backward, which is how it is seen here; with ``use_reentrant=True``
    nothing is saved, and nothing seen, nor where other hooks watch too.
    """
    if generator is torch.default_generator or generator in torch.cuda.default_generators:
        return
    hooks = torch._C._autograd._top_saved_tensors_default_hooks(False)
    pack = getattr(hooks[0], "__qualname__", "") if hooks is not None else ""
    if pack.startswith("_checkpoint_hook."):
        warnings.warn(
            "dropout: torch.utils.checkpoint does not restore a generator of its own when it runs "
            "the forward pass again: that pass will have another mask, and the gradients will be "
            "wrong. Pass rng_state instead (or restore the generator by context_fn, and ignore "
            "this warning)",
            stacklevel=4,
        )


def check_generator(generator: Generator, input: Tensor, rng_state: Tensor | None) -> None:
    """The generator is the only source of random numbers, and on the device of the input."""
    if not isinstance(generator, Generator):
        raise TypeError(f"dropout: generator must be a torch.Generator, but got {generator!r}")
    if rng_state is not None:
        raise ValueError(
            "dropout: generator and rng_state must not both be given, as each says which mask to "
            f"take; but got a generator on {generator.device} and rng_state {rng_state}"
        )
    if generator.device.type != input.device.type:
        raise RuntimeError(
            f"dropout: generator must be on the device of the input, {input.device}, "
            f"but got a generator on {generator.device}"
        )
