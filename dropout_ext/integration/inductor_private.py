"""Every name of Inductor that this package touches, none of which torch promises to keep.

Beside torch_private.py because importing Inductor is slow: nothing imports this file before
Inductor itself is imported. A name that is gone is an ImportError or AttributeError here, and
compiled graphs are then not fused. ``PURPOSES`` says what each name is for; a test looks them up.
"""

from torch._functorch.partitioners import OpTypes
from torch._inductor.codecache import FxGraphHashDetails
from torch._inductor.ir import Pointwise
from torch._inductor.lowering import fallback_handler, full, register_lowering
from torch._inductor.ops_handler import OpsHandler
from torch._inductor.virtualized import V, ops
from torch.fx.experimental.symbolic_shapes import GuardOnDataDependentSymNode

PURPOSES = {
    "torch._functorch.partitioners.OpTypes": "fusion: what backward may compute again",
    "torch._inductor.codecache.FxGraphHashDetails": "caches: what a key is made of",
    "torch._inductor.ir.Pointwise": "fusion: a loop over elements",
    "torch._inductor.lowering.fallback_handler": "fusion off: the operator as a node of its own",
    "torch._inductor.lowering.full": "fusion: everything is dropped",
    "torch._inductor.lowering.register_lowering": "fusion: what becomes of an operator",
    "torch._inductor.ops_handler.OpsHandler": "fusion: which operations loops have",
    "torch._inductor.virtualized.V": "fusion: the sizes of the graph at hand",
    "torch._inductor.virtualized.ops": "fusion: the operations of loops",
    "torch.fx.experimental.symbolic_shapes.GuardOnDataDependentSymNode": "fusion: sizes of data",
}

# What the mask is made of, in loops.
for operation in (
    *("add", "bitwise_and", "bitwise_left_shift", "bitwise_or", "bitwise_right_shift"),
    *("bitwise_xor", "constant", "ge", "index_expr", "load", "mul", "ne", "to_dtype", "where"),
):
    getattr(OpsHandler, operation)

__all__ = [
    "FxGraphHashDetails",
    "GuardOnDataDependentSymNode",
    "OpTypes",
    "Pointwise",
    "V",
    "fallback_handler",
    "full",
    "ops",
    "register_lowering",
]
