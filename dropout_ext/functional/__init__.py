"""Functional interface: each function a drop-in for its namesake of torch.nn.functional."""

from dropout_ext.functional.alpha import alpha_dropout, feature_alpha_dropout
from dropout_ext.functional.attention import multi_head_attention_forward
from dropout_ext.functional.channels import dropout1d, dropout2d, dropout3d
from dropout_ext.functional.elementwise import dropout, dropout_mask
from dropout_ext.functional.residual import drop_path, stochastic_depth
from dropout_ext.functional.scaled_dot_product import scaled_dot_product_attention

__all__ = [
    "alpha_dropout",
    "drop_path",
    "dropout",
    "dropout1d",
    "dropout2d",
    "dropout3d",
    "dropout_mask",
    "feature_alpha_dropout",
    "multi_head_attention_forward",
    "scaled_dot_product_attention",
    "stochastic_depth",
]

for _name in __all__:  # a pickle names the public place, which stays when a file moves
    globals()[_name].__module__ = __name__
