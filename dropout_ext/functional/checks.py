"""Argument checks that eager and traced calls share; the operators check the rest."""

from typing import Any

from torch import Tensor

UPSCALE, DOWNSCALE = MODES = "upscale_in_train", "downscale_in_infer"
"""When the scale is applied, in Paddle's terms."""


def check_probability(p: Any, argument: str = "dropout(): argument 'p' (position 2)") -> Any:
    """The number that p is; in the words of torch.nn.Dropout an error unless it is in [0, 1].

    A tensor without dimensions is read. ``argument`` names it where it has another type.

    Raises:
        ValueError: p is no number in [0, 1].
        TypeError: p is a tensor that requires grad, or has dimensions.
    """
    number = _read(p, argument) if isinstance(p, Tensor) else p
    dims = None if type(number) is float else getattr(number, "shape", None)
    if dims == ():
        number = number.item()  # of NumPy, which is for no operator of a graph
    try:
        valid = 0.0 <= number <= 1.0 and not dims
    except (TypeError, ValueError):
        valid = False
    if not valid:
        raise ValueError(f"dropout probability has to be between 0 and 1, but got {p!r}")
    return number


def _read(p: Tensor, argument: str) -> Any:
    """torch's words for a tensor that is no number, and why it is none."""
    if p.requires_grad or p.dim() != 0:
        why = (
            "it requires grad, which no mask has with respect to p; pass p.detach()"
            if p.requires_grad
            else f"it has the shape {list(p.shape)}"
        )
        raise TypeError(f"{argument} must be float, not Tensor: {why}")
    return p.item()


def check_mode(mode: Any) -> None:
    """ValueError unless mode names when the scale is applied."""
    if mode not in MODES:
        raise ValueError(f"dropout: mode must be {UPSCALE!r} or {DOWNSCALE!r}, but got {mode!r}")


def check_depth(p: Any, mode: Any) -> Any:
    """As :func:`check_probability`, and mode is row or batch; in the words of torchvision."""
    try:
        number = check_probability(p)
    except ValueError:
        raise ValueError(f"drop probability has to be between 0 and 1, but got {p!r}") from None
    if mode not in ("batch", "row"):
        raise ValueError(f"mode has to be either 'batch' or 'row', but got {mode}")
    return number


def either_name(p: float, drop_prob: float | None) -> float:
    """The probability, which timm calls drop_prob."""
    if drop_prob is None:
        return p
    if p != 0.0:
        raise ValueError(f"p and drop_prob are two names of one, but got {p!r} and {drop_prob!r}")
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
