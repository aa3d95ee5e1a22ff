"""Inputs and gradients of a case, rotated on CUDA so that no call finds its operands in cache."""

import math

import torch
from torch import Tensor

from bench.cases import Case, arrange
from bench.dtypes import DTYPES, itemsize

MOST_BUFFERS = 64
"""Tensors so small that more would be needed are bound by the launch, not by memory."""


def rotation(case: Case) -> int:
    """How many buffers to rotate: 1 on the CPU (warm caches), four times the L2 cache on CUDA."""
    if case.device != "cuda":
        return 1
    cache = torch.cuda.get_device_properties("cuda").L2_cache_size
    operands = 2 * case.numel * itemsize(case.dtype)
    return max(1, min(MOST_BUFFERS, math.ceil(4 * cache / operands)))


class Buffers:
    """The tensors that the candidates of one case share.

    Values start in [0.5, 1.5). In place, every call multiplies the survivors by 1 / (1 - p) and
    drops the others, so a value is a martingale: that it ever exceeds c has a probability below
    1.5 / c. No subnormal number can appear and an overflow is all but impossible (in float16 it
    would be one value in 40,000, and Inf is multiplied as fast as any other). What does happen in
    a long sample is that the values become zero; no candidate branches on values, and `refresh`
    restores them before each sample, for every candidate, so that all start from equal caches.
    """

    def __init__(self, case: Case, count: int) -> None:
        dtype = DTYPES[case.dtype]
        values = torch.rand(case.numel, device=case.device, dtype=torch.float32).add_(0.5).to(dtype)
        wants_gradient = case.mode in ("forward_grad", "forward_backward", "backward")
        self.inputs: list[Tensor] = []
        self.gradients: list[Tensor] = []
        for _ in range(count):
            leaf = arrange(values, case.layout).detach().requires_grad_(wants_gradient)
            self.inputs.append(leaf)
            if case.mode in ("forward_backward", "backward"):
                self.gradients.append(arrange(values, case.layout))
        self._values = arrange(values, case.layout) if case.mode == "inplace" else None

    def refresh(self) -> None:
        """Restores the inputs that in-place calls have overwritten; does nothing in other modes."""
        if self._values is not None:
            for tensor in self.inputs:
                tensor.copy_(self._values)
