"""``torch.utils.checkpoint``: what a recomputation needs to repeat the masks of the forward pass.

torch restores the default generators. Generators of one's own, and the function modes that were
active, it does not: a checkpointed function remembers both here, wherever backward stands and
whatever thread runs it.
"""

from __future__ import annotations

import functools
import inspect
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import torch
from torch import Generator, Tensor
from torch.overrides import TorchFunctionMode
from torch.utils.checkpoint import CheckpointFunction

from dropout_ext import _C
from dropout_ext.integration.torch_private import (
    active_function_modes,
    checkpoint_entry,
    checkpoint_hook,
    current_graph_task_id,
    top_saved_tensors_hooks,
)


class ReenteredMode(TorchFunctionMode):
    """A function mode that a recomputation enters again, if its forward pass ran under it."""


class _Run:
    """A function that is checkpointed runs: its draws are recorded, or those of before replayed."""

    def __init__(self, states: list[Tensor], replayed: Iterator[Tensor] | None = None) -> None:
        self.states = states
        self.replayed = replayed

    def __enter__(self) -> None:
        # Kept, as torch may leave a forward pass that raised in another thread, and later.
        self.stack = _runs.stack
        self.stack.append(self)

    def __exit__(self, *_: object) -> None:
        self.stack.remove(self)


class _Runs(threading.local):
    """The runs that this thread is in, the innermost last."""

    def __init__(self) -> None:
        self.stack: list[_Run] = []


_runs = _Runs()


class _Checkpointed:
    """What the recomputation of a function takes over from its forward pass, which begins now."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function
        self.states: list[Tensor] = []
        self.modes = [mode for mode in active_function_modes() if isinstance(mode, ReenteredMode)]

    def forward(self) -> _Run:
        return _Run(self.states)

    def recompute(self, *args: Any, **kwargs: Any) -> Any:
        active = active_function_modes()
        with ExitStack() as entered:
            for mode in self.modes:
                if not any(mode is other for other in active):
                    entered.enter_context(mode)
            entered.enter_context(_Run(self.states, iter(self.states)))
            return self.function(*args, **kwargs)


def repeatable(generator: Generator, draw: Callable[[], Tensor]) -> Tensor | None:
    """The state of one call inside a checkpointed function; None outside of them.

    Eager calls ask here, and draws of compiled graphs.

    Args:
        generator: that is drawn from; None is the answer for those that torch restores.
        draw: draws the state, unless this run replays what an earlier one drew.

    Raises:
        RuntimeError: a recomputation draws more often than its forward pass did.

    Warns:
        UserWarning: a checkpoint will not repeat the draw.
    """
    if _is_restored(generator):
        return None
    stack = _runs.stack
    if not stack:
        _warn_if_not_restored()
        return None
    last = max((k for k, run in enumerate(stack) if run.replayed is not None), default=None)
    if last is None:
        state, recording = draw(), stack
    else:
        replayed = next(stack[last].replayed, None)  # type: ignore[arg-type]
        if replayed is None:
            raise RuntimeError(
                "dropout: the recomputation of a checkpointed function draws from a generator more "
                f"often than its forward pass, which did {len(stack[last].states)} times"
            )
        # A checkpoint within the one that is recomputed records what it will replay itself.
        state, recording = replayed, stack[last + 1 :]
    for run in recording:
        run.states.append(state)
    return state


def _is_restored(generator: Generator) -> bool:
    """Whether checkpointing restores a generator by itself: the default ones alone."""
    return generator is torch.default_generator or generator in torch.cuda.default_generators


_PACKED_BY = f"{checkpoint_hook.__qualname__}."


def _level_of_user() -> int:
    """Of the innermost frame that is neither torch's nor ours, for the function that warns."""
    level, frame = 0, inspect.currentframe()
    while frame and frame.f_globals["__name__"].partition(".")[0] in ("dropout_ext", "torch"):
        level, frame = level + 1, frame.f_back
    return level


def _warn_if_not_restored() -> None:
    """UserWarning for a draw, from a generator of one's own, that will not be repeated.

    Such is a draw in a non-reentrant checkpoint that did not come by ``torch.utils.checkpoint``: it
    shows by the hook that packs what is saved for backward, unless other hooks are set inside. And
    a draw in the backward pass, by an autograd.Function that runs its forward pass again.
    """
    hooks = top_saved_tensors_hooks(False)
    pack = getattr(hooks[0], "__qualname__", "") if hooks is not None else ""
    if pack.startswith(_PACKED_BY) or current_graph_task_id() != -1:
        warnings.warn(
            "dropout: what computes a forward pass again here does not restore a generator of "
            "one's own: that pass has another mask, and the gradients are wrong. Pass rng_state "
            "instead, or use torch.utils.checkpoint.checkpoint",
            stacklevel=_level_of_user(),
        )


def register() -> None:
    """From now on, functions that are checkpointed repeat their draws and modes."""
    forward: Callable[..., Any] = CheckpointFunction.forward

    @functools.wraps(checkpoint_entry)
    def without_reentrant(fn: Callable[..., Any], *args: Any, **kwargs: Any) -> Iterator[None]:
        checkpointed = _Checkpointed(fn)
        with checkpointed.forward():
            yield from checkpoint_entry(checkpointed.recompute, *args, **kwargs)

    @functools.wraps(forward)
    def reentrant(ctx: Any, run_function: Callable[..., Any], *args: Any) -> Any:
        checkpointed = _Checkpointed(run_function)
        with checkpointed.forward():
            outputs = forward(ctx, run_function, *args)
        ctx.run_function = checkpointed.recompute
        return outputs

    _C.set_repeat(repeatable)
    setattr(torch.utils.checkpoint, checkpoint_entry.__name__, without_reentrant)
    CheckpointFunction.forward = staticmethod(reentrant)  # type: ignore[method-assign]
