"""``python -m tests.compile.interpret FOLDER``: Inductor's Triton code in Triton's interpreter.

Needs TRITON_INTERPRET=1 from the start. Prints what each case gave, as JSON: "equal", or what is
wrong.
"""

from __future__ import annotations

import json
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from dropout_ext import functional as F
from tests.compile import blocks
from tests.helpers import triton_code
from tests.helpers.cases import RNG_STATES
from tests.helpers.compare import assert_bits, random_bits, state, to_bits

ops = torch.ops.dropout_ext
FOLDER = Path(sys.argv[1])
STATE = state(RNG_STATES[6])
BATCH = torch.stack([state(each) for each in RNG_STATES[:4]])

Case = Callable[[], None]
CASES: dict[str, Case] = {}


def generate(function: Callable[..., Any], *inputs: Any, **options: Any) -> list[str]:
    sources = triton_code.generate(function, *inputs, **options)
    for source in sources:
        assert triton_code.kernels(source) and not triton_code.externs(source)
    return sources


def bits(function: Callable[..., torch.Tensor], *inputs: torch.Tensor) -> Case:
    """Every bit of eager code; inputs in the order of their first use."""

    def case() -> None:
        (source,) = generate(function, *inputs)
        (found,) = triton_code.run_interpreted(source, inputs, FOLDER)
        assert_bits(found, to_bits(function(*inputs)))

    return case


def mask_and_values(block: blocks.Block, *inputs: torch.Tensor) -> Case:
    """Every decision of eager code, and its values but for rounding."""

    def case() -> None:
        (source,) = generate(block, *inputs)
        (found,) = triton_code.run_interpreted(source, inputs, FOLDER)
        expected = block(*inputs)
        assert torch.equal(found == 0, expected == 0)
        rounding = 1e-5 if found.dtype == torch.float32 else 2**-7
        torch.testing.assert_close(found, expected, rtol=rounding, atol=1e-5)

    return case


def backward() -> None:
    """The gradient has the mask of the forward pass."""
    x = torch.randn(13, 37, requires_grad=True)
    _, source = generate(lambda x, s: F.dropout(x, 0.3, rng_state=s), x, STATE)
    gradient = torch.randn(13, 37)
    (found,) = (
        g for g in triton_code.run_interpreted(source, [STATE, gradient], FOLDER) if g is not None
    )
    assert torch.equal(found, F.dropout(gradient, 0.3, rng_state=STATE))


def dynamic() -> None:
    """One source for all sizes; the place of the piece is a symbol too."""

    def f(x: torch.Tensor, s: torch.Tensor) -> torch.Tensor:
        whole = (x.shape[0] + 3, x.shape[1] + 2)
        return F.dropout(x, 0.3, rng_state=s, shard=(whole, (3, 1)))

    (source,) = generate(f, torch.randn(11, 41), STATE, dynamic=True)
    for rows, columns in ((6, 8), (5, 9), (40, 31)):
        x = torch.randn(rows, columns)
        (found,) = triton_code.run_interpreted(source, [rows, columns, x, STATE], FOLDER)
        assert torch.equal(found, f(x, STATE))


for dtype in (torch.float64, torch.float32, torch.float16):
    CASES[f"plain {dtype}"] = bits(
        lambda x, s: F.dropout(x, 0.3, rng_state=s), random_bits((37, 53), dtype, 1), STATE
    )
# Triton's interpreter truncates to bfloat16 where a GPU rounds.
CASES["plain torch.bfloat16"] = mask_and_values(
    lambda x, s: F.dropout(x, 0.3, rng_state=s), torch.randn(37, 53).bfloat16(), STATE
)
X = torch.randn(4, 6, 50)
for name, arguments in {
    "second call left out": {"p": 0.5},
    "first shared": {"mask_strides": [0, 50, 1]},
    "backwards, beyond 2^31": {"mask_strides": [-300, -50, -1], "mask_base": 2**31 + 600},
    "across 2^32 blocks": {"mask_base": 2**35 - 300},
    "strides beyond 2^32": {"mask_strides": [2**40 + 3, 2**33, 5], "mask_base": 2**62 + 1},
    "alpha": {"scale": 0.8, "shift": 0.2, "fill": -1.5},
}.items():
    p = arguments.pop("p", 0.3)
    CASES[name] = bits(lambda x, s, a=arguments, p=p: ops.dropout(x, p, s, **a), X, STATE)
CASES["states of samples"] = bits(lambda x, s: ops.dropout(x, 0.3, s), X, BATCH)
CASES["the mask alone"] = bits(lambda s: ops.dropout_mask((4, 50), 0.3, s), STATE)
CASES["channels last"] = bits(
    lambda x, s: F.dropout(x, 0.3, rng_state=s),
    torch.randn(2, 5, 6, 7).to(memory_format=torch.channels_last),
    STATE,
)
CASES["transposed"] = bits(
    lambda x, s, y: F.dropout(x.t(), 0.3, rng_state=s) + y,
    torch.randn(40, 60),
    STATE,
    torch.randn(60, 40),
)
CASES["expanded"] = bits(
    lambda x, s, y: F.dropout(x, 0.3, rng_state=s).expand(20, 50) + y,
    torch.randn(1, 50),
    STATE,
    torch.randn(20, 50),
)
CASES["softmax"] = mask_and_values(
    lambda x, s: blocks.softmax(blocks.ours)(x, x, x, s), torch.randn(20, 70), STATE
)
CASES["layer norm"] = mask_and_values(
    lambda x, s, y, bias: blocks.layer_norm(blocks.ours)(x, bias, y, s),
    *(torch.randn(20, 70), STATE, torch.randn(20, 70), torch.randn(70)),
)
CASES["backward"] = backward
CASES["dynamic"] = dynamic


def main() -> None:
    found = {}
    for name, case in CASES.items():
        try:
            case()
            found[name] = "equal"
        except Exception:
            found[name] = traceback.format_exc()
    print(json.dumps(found))


if __name__ == "__main__":
    main()
