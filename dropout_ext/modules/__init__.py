"""Modules: each a drop-in for its namesake of torch.nn, timm or torchvision."""

from dropout_ext.modules.alpha import AlphaDropout, FeatureAlphaDropout
from dropout_ext.modules.attention import MultiheadAttention
from dropout_ext.modules.base import DropoutModule
from dropout_ext.modules.channels import Dropout1d, Dropout2d, Dropout3d
from dropout_ext.modules.elementwise import Dropout
from dropout_ext.modules.residual import DropPath, StochasticDepth

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

for _name in __all__:  # a pickle names the public place, which stays when a file moves
    globals()[_name].__module__ = __name__
