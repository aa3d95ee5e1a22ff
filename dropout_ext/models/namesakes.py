"""Dropouts of timm, torchvision and others, found without importing them."""

from __future__ import annotations

import re
import sys

from torch import nn

from dropout_ext import modules

# Where a class is defined, and ours that does the same.
_NAMESAKES: dict[tuple[str, str], type[nn.Module]] = {
    ("timm.layers.drop", "DropPath"): modules.DropPath,
    ("torchvision.ops.stochastic_depth", "StochasticDepth"): modules.StochasticDepth,
}
_DROPS = re.compile(r"(^d|D)rop(out|_?[Pp]ath|_?[Bb]lock|_?[Cc]onnect|$|[0-9])|Stochastic_?Depth")


def namesakes() -> dict[type[nn.Module], type[nn.Module]]:
    """Which class of ours stands for which of timm and torchvision.

    Only for packages that are imported already: a model of theirs cannot be there before them.
    """
    found = {}
    for (home, name), ours in _NAMESAKES.items():
        theirs = getattr(sys.modules.get(home), name, None)
        if theirs is not None:
            found[theirs] = ours
    return found


def looks_like_dropout(module: nn.Module) -> bool:
    """Whether the class is named like a dropout, and the module is nothing more than one.

    True for timm's DropBlock2d and PatchDropout and for the DropPath that each vision model of
    transformers defines for itself; false for a block that has parameters or other modules.
    """
    names = (cls.__name__ for cls in type(module).__mro__)
    if not any(_DROPS.search(name) for name in names):
        return False
    return next(module.children(), None) is None and next(module.parameters(), None) is None
