"""``torch.utils.checkpoint``: what it restores before it runs a forward pass again."""

import sys
import warnings

import torch
from torch import Generator

from dropout_ext.integration.torch_private import checkpoint_hook, top_saved_tensors_hooks

_PACKED_BY = f"{checkpoint_hook.__qualname__}."


def _level_of_user() -> int:
    """Of the innermost frame that is neither torch's nor ours, for the function that warns."""
    level, frame = 0, sys._getframe(1)
    while frame.f_globals.get("__name__", "").partition(".")[0] in ("dropout_ext", "torch"):
        if frame.f_back is None:
            break
        level, frame = level + 1, frame.f_back
    return level + 1


def warn_if_not_restored(generator: Generator) -> None:
    """UserWarning for a draw from a generator that checkpointing will not restore.

    Checkpointing shows by the hook that packs what is saved for backward. Nothing shows with
    ``use_reentrant=True``, which saves nothing, nor where other hooks are set inside of it.

    Args:
        generator: drawn from now. Checkpointing restores the default generators alone.
    """
    if generator is torch.default_generator or generator in torch.cuda.default_generators:
        return
    hooks = top_saved_tensors_hooks(False)
    pack = getattr(hooks[0], "__qualname__", "") if hooks is not None else ""
    if pack.startswith(_PACKED_BY):
        warnings.warn(
            "dropout: torch.utils.checkpoint does not restore a generator of its own when it runs "
            "the forward pass again: that pass will have another mask, and the gradients will be "
            "wrong. Pass rng_state instead (or restore the generator by context_fn, and ignore "
            "this warning)",
            stacklevel=_level_of_user(),
        )
