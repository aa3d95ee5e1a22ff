"""Bytes per element, counted: what a mode cannot do without, and what each candidate moves.

With s the size of an element. A forward pass reads x and writes y, a backward pass reads the
gradient of y and writes that of x: 2 s each. nn.Dropout adds its mask: one byte in the fused CUDA
kernel; elsewhere a tensor of x's dtype that is filled (s), divided (2 s) and multiplied (s more).
The hand-written mask adds a random tensor (s), its comparison (s + 1), and a second pass for the
scale (2 s) besides reading the boolean (1).
"""

from bench.cases import Case
from bench.dtypes import itemsize

_FORWARD = ("forward", "forward_grad", "inplace")


def needed(candidate: str, case: Case) -> int:
    """The fewest bytes per element that the mode can move: each operand once.

    copy_ stands for the bandwidth and makes one pass, also beside a mode of two.
    """
    passes = 2 if case.mode == "forward_backward" and candidate != "copy_" else 1
    return passes * 2 * itemsize(case.dtype)


def moved(candidate: str, case: Case) -> int | None:
    """Bytes per element that the candidate moves by count; None where a compiler decides."""
    size = itemsize(case.dtype)
    if candidate in ("dropout_ext", "triton seeded", "torch.mul", "copy_"):
        return needed(candidate, case)
    fused = case.device == "cuda" and case.mode != "inplace"
    passes = {
        "nn.Dropout": (2 * size + 1, 2 * size + 1) if fused else (6 * size, 3 * size),
        "hand-written": (6 * size + 2, 4 * size + 1),
    }.get(candidate)
    if passes is None:
        return None
    forward, backward = passes
    if case.mode in _FORWARD:
        return forward
    return backward if case.mode == "backward" else forward + backward
