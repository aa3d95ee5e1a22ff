"""Attention with several heads whose dropout is ours."""

from typing import Any

from torch import Generator, Tensor, nn

from dropout_ext import functional as F
from dropout_ext.functional.attention_choice import Attention, attention_is_ours, check_attention
from dropout_ext.integration.fx import leaf, module_call


class MultiheadAttention(nn.MultiheadAttention):
    """Drop-in for :class:`torch.nn.MultiheadAttention` whose dropout of the weights is ours.

    In training with dropout it computes
    :func:`dropout_ext.functional.multi_head_attention_forward`; otherwise it is torch's.

    Args:
        args, kwargs: as of torch.nn.MultiheadAttention.
        generator: takes the place of the default generator of the input's device.
        attention: False leaves everything to torch; ``"auto"`` does so except on the CPU.

    Raises:
        ValueError: another value of ``attention``.
    """

    generator: Generator | None = None
    attention: Attention = True

    def __init__(
        self,
        *args: Any,
        generator: Generator | None = None,
        attention: Attention = True,
        **kwargs: Any,
    ) -> None:
        check_attention("MultiheadAttention", attention)
        super().__init__(*args, **kwargs)
        if generator is not None:
            self.generator = generator
        if attention is not True:
            self.attention = attention

    @leaf
    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        key_padding_mask: Tensor | None = None,
        need_weights: bool = True,
        attn_mask: Tensor | None = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
        *,
        rng_state: Tensor | None = None,
    ) -> tuple[Tensor, Tensor | None]:
        """Arguments and results are those of torch.nn.MultiheadAttention.

        ``rng_state`` is that of the weights' mask, in place of a draw; a ValueError where
        attention is torch's.
        """
        masks: dict[str, Any] = {
            "key_padding_mask": key_padding_mask,
            "need_weights": need_weights,
            "attn_mask": attn_mask,
            "average_attn_weights": average_attn_weights,
            "is_causal": is_causal,
        }
        options = masks if rng_state is None else {**masks, "rng_state": rng_state}
        if (call := module_call(query, key, value, **options)) is not None:
            return call  # type: ignore[return-value]  # a proxy, which torch.fx unpacks
        ours = attention_is_ours(self.attention, query)
        if self.training and self.dropout != 0.0 and not ours and rng_state is not None:
            raise ValueError(
                "MultiheadAttention: rng_state is that of our dropout, but with attention="
                f"{self.attention!r} that of {query.device.type} tensors is torch's"
            )
        if not self.training or not ours or self.dropout == 0.0:
            return super().forward(query, key, value, **masks)
        if query.is_nested or key.is_nested or value.is_nested:
            raise AssertionError(
                "MultiheadAttention does not support NestedTensor outside of its fast path. "
                "The fast path was not hit because training is enabled"
            )
        inputs = (query, key, value)
        first = self.batch_first and query.dim() == 3
        output, weights = F.multi_head_attention_forward(
            *(_length_first(inputs) if first else inputs),
            self.embed_dim,
            self.num_heads,
            self.in_proj_weight,
            self.in_proj_bias,
            self.bias_k,
            self.bias_v,
            self.add_zero_attn,
            self.dropout,
            self.out_proj.weight,
            self.out_proj.bias,
            use_separate_proj_weight=self.in_proj_weight is None,
            q_proj_weight=self.q_proj_weight,
            k_proj_weight=self.k_proj_weight,
            v_proj_weight=self.v_proj_weight,
            generator=self.generator if rng_state is None else None,
            **options,
        )
        return output.transpose(0, 1) if first else output, weights


def _length_first(inputs: tuple[Tensor, Tensor, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    """Swaps the first two dimensions; inputs that are one tensor remain one."""
    query, key, value = inputs
    q = query.transpose(0, 1)
    k = q if key is query else key.transpose(0, 1)
    v = k if value is key else value.transpose(0, 1)
    return q, k, v
