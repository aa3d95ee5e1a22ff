"""Attention for models of Hugging Face's transformers, by the name ``"dropout_ext"``."""

from __future__ import annotations

import sys
from typing import Any

from dropout_ext.models.redirect import redirect_torch_dropout
from dropout_ext.models.redirected import Options

NAME = "dropout_ext"
_SPARSE = "indices", "block_indices"
"""What names the keys that a query attends to, where the mask does not; ``"sdpa"`` ignores it."""


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
        sparse = [name for name in _SPARSE if kwargs.get(name) is not None]
        if sparse:
            raise ValueError(
                f"dropout_ext attention: {type(module).__name__} hands {' and '.join(sparse)} to "
                'attention of other names than "eager" and "sdpa", which have them in the mask: '
                'choose "sdpa", whose dropout convert_dropout makes ours'
            )
        options = getattr(module, "dropout_ext", Options())._replace(attention=True)
        with redirect_torch_dropout(**options._asdict()):
            return attention(module, *args, **kwargs)

    models.AttentionInterface.register(NAME, forward)
    masks.AttentionMaskInterface.register(NAME, masks.AttentionMaskInterface()["sdpa"])
