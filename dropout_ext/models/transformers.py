"""Attention for models of Hugging Face's transformers, by the name ``"dropout_ext"``."""

from __future__ import annotations

import sys
from typing import Any

from dropout_ext.models.redirect import redirect_torch_dropout

NAME = "dropout_ext"


def register_attention() -> None:
    """Lets ``model.set_attn_implementation("dropout_ext")`` select ours, if transformers is there.

    It is the ``"sdpa"`` of transformers whose dropout is ours on every device: a model of
    ``"eager"`` attention holds its weights, with this one it does not.
    """
    library: Any = sys.modules.get("transformers")
    if library is None:
        return
    tables = library.AttentionInterface, library.AttentionMaskInterface
    attention, masks = (table()["sdpa"] for table in tables)

    def forward(module: Any, *args: Any, **kwargs: Any) -> Any:
        generator = getattr(module, "dropout_generator", None)
        with redirect_torch_dropout(generator=generator, attention=True):
            return attention(module, *args, **kwargs)

    for table, function in zip(tables, (forward, masks), strict=True):
        table.register(NAME, function)
