"""Dropout for PyTorch whose mask is a pure function of (seed, offset, element index).

The kernels make the Bernoulli mask and apply the inverted scaling in one pass over memory. The
mask is never stored, and it is the same on every device, for every dtype, memory layout, number
of threads and number of shards.
"""

import torch

from dropout_ext._check import check_torch_version, load_build

_build = load_build()
check_torch_version(_build.TORCH_VERSION, torch.__version__)

from dropout_ext import _tracing, _vmap, _vmap_attention, functional  # noqa: E402
from dropout_ext._convert import convert_dropout, revert_dropout  # noqa: E402
from dropout_ext._drop_connect import drop_connect, remove_drop_connect  # noqa: E402
from dropout_ext._info import build_info  # noqa: E402
from dropout_ext._monte_carlo import mc_dropout, mc_predict  # noqa: E402
from dropout_ext._redirect import redirect_torch_dropout  # noqa: E402
from dropout_ext._report import ConversionReport  # noqa: E402
from dropout_ext._rng_state import rng_state  # noqa: E402
from dropout_ext.modules import (  # noqa: E402
    AlphaDropout,
    Dropout,
    Dropout1d,
    Dropout2d,
    Dropout3d,
    DropPath,
    FeatureAlphaDropout,
    StochasticDepth,
)

_library = torch.library.Library("dropout_ext", "IMPL")
_vmap.register(_library)
_vmap_attention.register(_library)
_tracing.register(_library)
__version__ = _build.VERSION
__all__ = [
    "AlphaDropout",
    "ConversionReport",
    "DropPath",
    "Dropout",
    "Dropout1d",
    "Dropout2d",
    "Dropout3d",
    "FeatureAlphaDropout",
    "StochasticDepth",
    "build_info",
    "convert_dropout",
    "drop_connect",
    "functional",
    "mc_dropout",
    "mc_predict",
    "redirect_torch_dropout",
    "remove_drop_connect",
    "revert_dropout",
    "rng_state",
]
