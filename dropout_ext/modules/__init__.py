"""Modules: each a drop-in for its namesake of torch.nn, timm or torchvision."""

from dropout_ext.modules._alpha import AlphaDropout, FeatureAlphaDropout
from dropout_ext.modules._attention import MultiheadAttention
from dropout_ext.modules._base import DropoutModule
from dropout_ext.modules._channels import Dropout1d, Dropout2d, Dropout3d
from dropout_ext.modules._elementwise import Dropout
from dropout_ext.modules._residual import DropPath, StochasticDepth

__all__ = [
    "AlphaDropout",
    "DropPath",
    "Dropout",
    "Dropout1d",
    "Dropout2d",
    "Dropout3d",
    "DropoutModule",
    "FeatureAlphaDropout",
    "MultiheadAttention",
    "StochasticDepth",
]
