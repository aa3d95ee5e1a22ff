"""Attention whose dropout is ours."""

from __future__ import annotations

from typing import Any

from torch import Generator, Tensor, nn

from dropout_ext._redirect import redirect_torch_dropout


class MultiheadAttention(nn.MultiheadAttention):
    """Drop-in for :class:`torch.nn.MultiheadAttention` whose dropout of the weights is ours.

    See :func:`dropout_ext.functional.scaled_dot_product_attention` for what that costs.

    Args:
        args, kwargs: as of torch.nn.MultiheadAttention.
        generator: takes the place of the default generator of the input's device.
    """

    generator: Generator | None = None

    def __init__(self, *args: Any, generator: Generator | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if generator is not None:
            self.generator = generator

    def forward(self, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor | None]:
        if not self.training or self.dropout == 0.0:
            return super().forward(*args, **kwargs)
        with redirect_torch_dropout(self.generator):
            return super().forward(*args, **kwargs)
