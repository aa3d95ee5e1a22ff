"""The state a mask is drawn from."""

import operator

import torch


def rng_state(
    seed: int, offset: int = 0, *, device: torch.device | str | int | None = "cpu"
) -> torch.Tensor:
    """The state that makes dropout a pure function.

    Args:
        seed: any integer of 64 bits, signed or unsigned.
        offset: likewise; states of one seed give independent masks if their offsets differ by two
            or more (a call uses ``offset`` and ``offset + 1``).
        device: where the tensors are that it will be used with.

    Returns:
        int64 tensor of shape [2]: seed and offset modulo 2^64, in two's complement.

    Raises:
        ValueError: if seed or offset do not fit 64 bits.
        TypeError: if they are not integers.
    """
    words = [_as_int64("seed", seed), _as_int64("offset", offset)]
    return torch.tensor(words, dtype=torch.int64, device=device)


def _as_int64(name: str, value: int) -> int:
    number = operator.index(value)
    if not -(2**63) <= number < 2**64:
        raise ValueError(f"rng_state: {name} must be an integer of 64 bits, but got {number}")
    return number - 2**64 if number >= 2**63 else number
