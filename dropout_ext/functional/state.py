"""Which state a call takes: the only place that decides it."""

import operator
from typing import Any, NamedTuple

import torch
from torch import Generator, Tensor
from torch.overrides import handle_torch_function, has_torch_function_unary

from dropout_ext.integration.checkpoint import repeatable
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
    words = [_as_int64("rng_state", "seed", seed), _as_int64("rng_state", "offset", offset)]
    return torch.tensor(words, dtype=torch.int64, device=device)


def draw_rng_state(
    generator: Generator | None = None, *, device: torch.device | str | int = "cpu"
) -> Tensor:
    """The state that a dropout would draw now, drawn: the generator moves on by that one call.

    So a call with the state has the mask that a call in the place of this one would have had.

    Args:
        generator: to draw from; None for the default one of the device.
        device: of the tensors to be dropped from.

    Returns:
        int64 tensor of shape [2] on the device. Under :func:`torch.func.vmap` one for each sample,
        if its randomness is "different".

    Raises:
        TypeError, RuntimeError: the generator is no torch.Generator, or on another device.
    """
    input = torch.empty(0, device=device)
    return state_of(input, source_of(input, generator, None))


def fold_in(state: Tensor, number: int | Tensor) -> Tensor:
    """The state that a state has for a number: a mask of its own for each layer or step.

    The 128 bits of a Philox4x32-10 call whose key and upper counter words are those of a call of
    ``state`` that no mask makes, and whose lower counter words are the number. So different numbers
    give different states, their masks are independent of each other and of those of ``state``, and
    the result may be folded again: ``fold_in(fold_in(state, layer), step)``. Nothing is drawn, and
    on CUDA nothing waits for the device.

    Args:
        state: (seed, offset) as of :func:`rng_state`; an int64 tensor of shape [2] on any device.
        number: any integer of 64 bits, signed or unsigned, or an int64 tensor without dimensions on
            the device of the state.

    Returns:
        int64 tensor of shape [2] on the device of the state.

    Raises:
        ValueError: the number does not fit 64 bits; a tensor of another shape.
        TypeError: the number is no integer, the state no int64 tensor.
        RuntimeError: a number on another device.
    """
    if has_torch_function_unary(state):
        return handle_torch_function(fold_in, (state,), state, number)
    check_rng_state(state, "fold_in: state")
    if not isinstance(number, Tensor):
        value = _as_int64("fold_in", "number", number)
        number = torch.full((), value, dtype=torch.int64, device=state.device)
    folded: Tensor = torch.ops.dropout_ext.fold_in(state, number)
    return folded


def _as_int64(function: str, name: str, value: int) -> int:
    number = value if type(value) is int else operator.index(value)  # the latter is no symbol's
    if not -(2**63) <= number < 2**64:
        raise ValueError(f"{function}: {name} must be an integer of 64 bits, but got {number}")
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
    repeated = repeatable_source(input, source).rng_state
    return _draw(input, source.generator) if repeated is None else repeated


def repeatable_source(input: Tensor, source: Source) -> Source:
    """In a checkpointed function, the state that its recomputation will take too.

    ``torch.utils.checkpoint`` restores the default generators, not one that a call names.

    Warns:
        UserWarning: a checkpoint will not repeat the draw.
    """
    generator = source.generator
    if generator is None:
        return source
    state = repeatable(generator, lambda: _draw(input, generator))
    return source if state is None else Source(rng_state=state)


def _draw(input: Tensor, generator: Generator | None) -> Tensor:
    state: Tensor = torch.ops.dropout_ext.draw(input.detach(), generator=generator)
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
    """
    if generator is not None:
        _check_generator(generator, input, rng_state)
    if rng_state is not None:
        check_rng_state(rng_state)


def check_rng_state(state: Any, name: str = "dropout: rng_state") -> None:
    """An error unless it is one state; the operators take a batch too, for vmap."""
    if not isinstance(state, Tensor):
        raise TypeError(f"{name} must be a Tensor, but got {state!r}")
    if state.dim() != 1:
        raise ValueError(
            f"{name} must have shape [2] (seed, offset), but got shape {list(state.shape)}"
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
