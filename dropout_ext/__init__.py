"""Dropout for PyTorch whose mask is a pure function of (seed, offset, element index).

The kernels make the Bernoulli mask and apply the inverted scaling in one pass over memory. The
mask is never stored, and it is the same on every device, for every dtype, memory layout, number
of threads and number of shards.
"""

import torch

from dropout_ext._load import check_torch_version, load_build

_build = load_build()
check_torch_version(_build.TORCH_VERSION, torch.__version__)

from dropout_ext import functional, integration  # noqa: E402
from dropout_ext._info import build_info  # noqa: E402
from dropout_ext.functional.state import draw_rng_state, fold_in, rng_state  # noqa: E402
from dropout_ext.integration.inductor import fuse_in_compiled_graphs  # noqa: E402
from dropout_ext.models import (  # noqa: E402
    ConversionReport,
    DropConnect,
    Prediction,
    SampledPrediction,
    convert_dropout,
    drop_connect,
    find_torch_dropout,
    mc_dropout,
    mc_predict,
    redirect_torch_dropout,
    remove_drop_connect,
    revert_dropout,
)
from dropout_ext.modules import (  # noqa: E402
    AlphaDropout,
    Dropout,
    Dropout1d,
    Dropout2d,
    Dropout3d,
    DropoutModule,
    DropPath,
    FeatureAlphaDropout,
    MultiheadAttention,
    StochasticDepth,
)

_library = torch.library.Library("dropout_ext", "IMPL")
integration.register(_library)
__version__ = _build.VERSION
__all__ = [
    "AlphaDropout",
    "ConversionReport",
    "DropConnect",
    "DropPath",
    "Dropout",
    "Dropout1d",
    "Dropout2d",
    "Dropout3d",
    "DropoutModule",
    "FeatureAlphaDropout",
    "MultiheadAttention",
    "Prediction",
    "SampledPrediction",
    "StochasticDepth",
    "build_info",
    "convert_dropout",
    "draw_rng_state",
    "drop_connect",
    "find_torch_dropout",
    "fold_in",
    "functional",
    "fuse_in_compiled_graphs",
    "mc_dropout",
    "mc_predict",
    "redirect_torch_dropout",
    "remove_drop_connect",
    "revert_dropout",
    "rng_state",
]

for _name in set(__all__) - {"functional"}:
    globals()[_name].__module__ = __name__
