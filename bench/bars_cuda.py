"""The bars for CUDA."""

import sys
from collections.abc import Callable, Sequence

from bench.bars import (
    Verdict,
    judge,
    layout_verdicts,
    own,
    saved_verdicts,
    times_rival,
)
from bench.candidates import COPY
from bench.record import Record
from bench.saved import Saved

SMALL = range(1, 1 << 16)
LARGE = range(1 << 26, sys.maxsize)

BANDWIDTH = 0.92
"""Share of the bandwidth of copy_ that large tensors must reach; 0.95 is aimed at."""

STRIDED_BANDWIDTH = 0.85
"""The same for tensors that are not dense rows; copy_ is timed on dense ones."""

NOT_SLOWER = 0.98
"""Speed over nn.Dropout below 64K elements: equal, two percent being what timing can tell."""

BFLOAT16_STEP = 1.25
"""Speed over nn.Dropout, forward and backward in bfloat16: fewer bytes must mean less time."""


def _of_copy(records: Sequence[Record], least: float) -> Callable[[Record], tuple[str, bool]]:
    """A rule on useful bytes per second over those of a contiguous copy_ of the same size."""

    def key(r: Record) -> tuple[str, str, str, int, float, str]:
        return r.section, r.mode, r.dtype, r.numel, r.p, r.timer

    copies = [r for r in records if r.candidate == COPY and r.layout == "contiguous"]
    speeds = {key(r): r.bytes_per_s for r in copies}

    def rule(record: Record) -> tuple[str, bool]:
        if key(record) not in speeds:
            return "-", False
        share = record.bytes_per_s / speeds[key(record)]
        return f"{share:.3f} of copy_", share >= least

    return rule


def cuda_verdicts(records: Sequence[Record], saved: Sequence[Saved]) -> list[Verdict]:
    """All of them."""
    found: list[Verdict] = []
    for mode in ("forward", "backward", "forward_backward", "inplace"):
        rows, rule = own(records, "speed", mode, LARGE), _of_copy(records, BANDWIDTH)
        found += judge(f"{mode}, 64M and up", f">= {BANDWIDTH} of copy_", rows, rule)
    rows = [r for r in own(records, "speed", "forward_backward", LARGE) if r.dtype == "bfloat16"]
    wanted, step = f">= {BFLOAT16_STEP} x nn.Dropout", times_rival(BFLOAT16_STEP)
    found += judge("forward_backward, 64M and up", wanted, rows, step)
    for mode in ("forward", "forward_grad", "forward_backward"):
        rows, rule = own(records, "speed", mode, SMALL), times_rival(NOT_SLOWER)
        found += judge(f"{mode}, below 64K", f">= {NOT_SLOWER} x nn.Dropout", rows, rule)
    for mode in ("forward", "backward"):
        rows = [r for r in own(records, "layouts", mode, LARGE) if r.layout != "contiguous"]
        rule = _of_copy(records, STRIDED_BANDWIDTH)
        found += judge(f"{mode}, layouts", f">= {STRIDED_BANDWIDTH} of copy_", rows, rule)
    return [*found, *layout_verdicts(records), *saved_verdicts(saved)]
