"""Argument checks that eager and traced calls share; the operators check the rest."""

from typing import Any

from torch import Tensor

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
