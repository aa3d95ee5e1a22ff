"""From an operation on one tensor to the loop that is timed, one for each mode.

The loops are iterators of C speed: at one element a call takes about two microseconds, and a
Python-level index per call would be a visible part of it.
"""

from collections import deque
from collections.abc import Callable, Sequence
from itertools import cycle, islice

import torch
from torch import Tensor

from bench.timing import Run

Operation = Callable[[Tensor], Tensor]
Loop = Callable[[Operation, Sequence[Tensor], Sequence[Tensor]], Run]


def _results(inputs: Sequence[Tensor]) -> deque[object]:
    """Where results go. On CUDA as many stay alive as there are inputs: the outputs rotate too.

    On the CPU each is freed at once, as a caller's next statement would do.
    """
    return deque(maxlen=len(inputs) if inputs[0].is_cuda else 0)


def forward_loop(
    operation: Operation, inputs: Sequence[Tensor], gradients: Sequence[Tensor] = ()
) -> Run:
    """Calls the operation on the inputs in turn; gradients are not used."""
    operands, keep = cycle(inputs), _results(inputs).append

    def run(calls: int) -> None:
        for x in islice(operands, calls):
            keep(operation(x))

    return run


def forward_backward_loop(
    operation: Operation, inputs: Sequence[Tensor], gradients: Sequence[Tensor]
) -> Run:
    """Calls the operation, then asks autograd for the gradient of the input."""
    operands = cycle(list(zip(inputs, gradients, strict=True)))
    keep, grad = _results(inputs).append, torch.autograd.grad

    def run(calls: int) -> None:
        for x, gradient in islice(operands, calls):
            keep(grad(operation(x), x, gradient))

    return run


def backward_loop(
    operation: Operation, inputs: Sequence[Tensor], gradients: Sequence[Tensor]
) -> Run:
    """Asks autograd for the gradient through graphs that are built here, once."""
    operands = cycle([(operation(x), x, g) for x, g in zip(inputs, gradients, strict=True)])
    keep, grad = _results(inputs).append, torch.autograd.grad

    def run(calls: int) -> None:
        for y, x, gradient in islice(operands, calls):
            keep(grad(y, x, gradient, retain_graph=True))

    return run


LOOPS: dict[str, Loop] = {
    "forward": forward_loop,
    "forward_grad": forward_loop,
    "forward_backward": forward_backward_loop,
    "backward": backward_loop,
    "inplace": forward_loop,
}
