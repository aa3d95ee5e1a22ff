"""Functional interface: each function a drop-in for its namesake of torch.nn.functional."""

from dropout_ext.functional._alpha import alpha_dropout, feature_alpha_dropout
from dropout_ext.functional._attention import scaled_dot_product_attention
from dropout_ext.functional._channels import dropout1d, dropout2d, dropout3d
from dropout_ext.functional._elementwise import dropout, dropout_mask
from dropout_ext.functional._residual import drop_path, stochastic_depth

__all__ = [
    "alpha_dropout",
    "drop_path",
    "dropout",
    "dropout1d",
    "dropout2d",
    "dropout3d",
    "dropout_mask",
    "feature_alpha_dropout",
    "scaled_dot_product_attention",
    "stochastic_depth",
]
