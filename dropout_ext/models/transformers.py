"""Attention for models of Hugging Face's transformers, by the name ``"dropout_ext"``."""

from __future__ import annotations

import sys
from typing import Any

from dropout_ext.models.redirect import redirect_torch_dropout
from dropout_ext.models.redirected import Options

NAME = "dropout_ext"


def register_attention() -> None:
    """Lets ``model.set_attn_implementation("dropout_ext")`` select ours, if transformers is there.

    It is the ``"sdpa"`` of transformers whose dropout is ours on every device: a model of
    ``"eager"`` attention holds its weights, with this one it does not.
    """
    models: Any = sys.modules.get("transformers.modeling_utils")
    masks: Any = sys.modules.get("transformers.masking_utils")
    if not hasattr(models, "AttentionInterface") or not hasattr(masks, "AttentionMaskInterface"):
        return
    attention = models.AttentionInterface()["sdpa"]

    def forward(module: Any, *args: Any, **kwargs: Any) -> Any:
        options = getattr(module, "dropout_ext", Options())._replace(attention=True)
        with redirect_torch_dropout(**options._asdict()):
            return attention(module, *args, **kwargs)

    models.AttentionInterface.register(NAME, forward)
    masks.AttentionMaskInterface.register(NAME, masks.AttentionMaskInterface()["sdpa"])
