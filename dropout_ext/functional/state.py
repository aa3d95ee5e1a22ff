"""Which state a call takes: the only place that decides it."""

import operator
from typing import Any, NamedTuple

import torch
from torch import Generator, Tensor

from dropout_ext.integration.checkpoint import warn_if_not_restored
from dropout_ext.integration.tracing import traced_draw


def rng_state(
    seed: int, offset: int = 0, *, device: torch.device | str | int | None = "cpu"
) -> torch.Tensor:
    """The state that makes dropout a pure function.

    Args:
        seed: any integer of 64 bits, signed or unsigned.
        offset: likewise; states of one seed give independent masks if their offsets differ by two
            or more (a call uses ``offset`` and ``offset + 1``).
        device: of the tensors to be dropped from.

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


class Source(NamedTuple):
    """Where the state of a call comes from.

    Attributes:
        generator: drawn from once; None for the default generator of the input's device.
        rng_state: taken as it is, and nothing is drawn; excludes ``generator``.
    """

    generator: Generator | None = None
    rng_state: Tensor | None = None


DEFAULT = Source()


def state_of(input: Tensor, source: Source) -> Tensor:
    """The state of one call on ``input``, which is drawn unless it is given.

    Every call whose draw is a step of its own comes here: in compiled code and on distributed
    tensors. Elsewhere the kernel draws by the same rule, in the pass that applies the mask.

    Args:
        input: a plain tensor, the local one of a distributed tensor.
        source: of :func:`source_of`.

    Returns:
        int64 tensor of shape [2] on the device of the input.
    """
    if source.rng_state is not None:
        return source.rng_state
    if torch.compiler.is_compiling():
        return traced_draw(input.detach(), source.generator)
    state: Tensor = torch.ops.dropout_ext.draw(input.detach(), generator=source.generator)
    return state


def source_of(input: Tensor, generator: Generator | None, rng_state: Tensor | None) -> Source:
    """The source that a call names; errors as of :func:`check_source`."""
    if generator is None and rng_state is None:
        return DEFAULT
    check_source(input, generator, rng_state)
    return Source(generator, rng_state)


def check_source(input: Tensor, generator: Generator | None, rng_state: Tensor | None) -> None:
    """An error unless one source at most is given, and fits the input.

    Raises:
        TypeError: the generator or the rng_state is of another type.
        ValueError: both are given; the rng_state is of another shape.
        RuntimeError: the generator is on another device than the input.

    Warns:
        UserWarning: ``torch.utils.checkpoint`` will not restore the generator.
    """
    if generator is not None:
        _check_generator(generator, input, rng_state)
        if not torch.compiler.is_compiling():
            warn_if_not_restored(generator)
    if rng_state is not None:
        check_rng_state(rng_state)


def check_rng_state(state: Any) -> None:
    """An error unless it is one state; the operators take a batch too, for vmap."""
    if not isinstance(state, Tensor):
        raise TypeError(f"dropout: rng_state must be a Tensor, but got {state!r}")
    if state.dim() != 1:
        raise ValueError(
            "dropout: rng_state must have shape [2] (seed, offset), but got shape "
            f"{list(state.shape)}"
        )


def _check_generator(generator: Any, input: Tensor, state: Tensor | None) -> None:
    if not isinstance(generator, Generator):
        raise TypeError(f"dropout: generator must be a torch.Generator, but got {generator!r}")
    if state is not None:
        raise ValueError(
            "dropout: generator and rng_state must not both be given, as each says which mask to "
            f"take; but got a generator on {generator.device} and rng_state {state}"
        )
    if generator.device.type != input.device.type:
        raise RuntimeError(
            f"dropout: generator must be on the device of the input, {input.device}, "
            f"but got a generator on {generator.device}"
        )
