"""Rotated inputs, and for each mode the loop that is timed.

The loops are iterators of C speed: at one element a call takes about two microseconds, and a
Python-level index per call would be a visible part of it.
"""

import math
from collections import deque
from collections.abc import Callable
from itertools import cycle, islice

import torch
from torch import Tensor

from bench.cases import DTYPES, Case, arrange
from bench.timing import Run

Operation = Callable[[Tensor], Tensor]


def _rotation(case: Case) -> int:
    """How many buffers to rotate: 1 on the CPU (warm caches), four times the L2 cache on CUDA.

    Tensors so small that more than 64 would be needed are bound by the launch, not by memory.
    """
    if case.device != "cuda":
        return 1
    cache = torch.cuda.get_device_properties("cuda").L2_cache_size
    return max(1, min(64, math.ceil(2 * cache / (case.numel * DTYPES[case.dtype].itemsize))))


class Buffers:
    """The tensors that the candidates of one case share.

    Values start in [0.5, 1.5). In place, every call multiplies the survivors by 1 / (1 - p) and
    drops the others: values become zero in a long sample, overflow is all but impossible and
    nothing becomes subnormal. `refresh` restores them before each sample, for every candidate, so
    that all start from equal caches.
    """

    def __init__(self, case: Case) -> None:
        values = torch.rand(case.numel, device=case.device).add_(0.5).to(DTYPES[case.dtype])
        copies = range(_rotation(case))
        has_backward = case.mode in ("forward_backward", "backward")
        self.inputs = [arrange(values, case.layout) for _ in copies]
        self.gradients = [arrange(values, case.layout) for _ in copies if has_backward]
        for tensor in self.inputs:
            tensor.requires_grad_(has_backward or case.mode == "forward_grad")
        self._values = arrange(values, case.layout) if case.mode == "inplace" else None

    def refresh(self) -> None:
        """Restores the inputs that in-place calls have overwritten; does nothing in other modes."""
        if self._values is not None:
            for tensor in self.inputs:
                tensor.copy_(self._values)


def loop(operation: Operation, mode: str, inputs: list[Tensor], gradients: list[Tensor]) -> Run:
    """Calls the operation on the inputs in turn, or what else the mode asks for.

    On CUDA as many results stay alive as there are inputs: the outputs rotate too. On the CPU each
    is freed at once, as a caller's next statement would do.
    """
    keep = deque[object](maxlen=len(inputs) if inputs[0].is_cuda else 0).append
    grad = torch.autograd.grad
    operands = cycle(list(zip(inputs, gradients or inputs, strict=True)))

    def forward(calls: int) -> None:
        for x, _ in islice(operands, calls):
            keep(operation(x))

    def forward_backward(calls: int) -> None:
        for x, gradient in islice(operands, calls):
            keep(grad(operation(x), x, gradient))

    if mode != "backward":
        return forward_backward if mode == "forward_backward" else forward
    graphs = cycle([(operation(x), x, g) for x, g in zip(inputs, gradients, strict=True)])

    def backward(calls: int) -> None:
        for y, x, gradient in islice(graphs, calls):
            keep(grad(y, x, gradient, retain_graph=True))

    return backward


def capture(run: Run | None, calls: int) -> Run | None:
    """The loop that replays so many calls at a time in a CUDA graph: no launches.

    The current stream must not be the default one, which cannot be captured, nor may the inputs
    have been used on it: autograd sends a gradient to the stream of its forward pass.
    """
    if run is None:
        return None
    run(1)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, stream=torch.cuda.current_stream()):
        run(calls)

    def replay(count: int) -> None:
        for _ in range(count // calls):
            graph.replay()

    return replay
