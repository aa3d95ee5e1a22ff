"""The bars for the CPU."""

import sys
from collections.abc import Callable, Sequence

from bench.bars import (
    Verdict,
    at_most,
    judge,
    layout_verdicts,
    own,
    saved_verdicts,
    time_over_ceiling,
    time_over_rival,
    times_rival,
)
from bench.record import Record
from bench.saved import Saved

SMALL = range(1, 1_001)
MEDIUM = range(1 << 16, (1 << 22) + 1)
LARGE = range(1 << 24, sys.maxsize)

IN_PLACE = {"avx512": 40.0, "avx2": 20.0, "scalar": 2.5}
"""Speed over nn.Dropout in place that each CPU path must reach on medium sizes."""

ALLOCATING = {"forward": 40.0, "forward_backward": 25.0}
"""Speed over nn.Dropout with results in fresh memory, on medium sizes."""

OF_MUL = 0.85
"""Share of torch.mul's throughput that is enough where allocation, not dropout, is the limit."""

OVERHEAD = {"forward": 0.6, "forward_grad": 0.6, "forward_backward": 0.8}
"""Time over that of nn.Dropout on small sizes, where calling is all there is."""


def _factor_or_share(factor: float) -> Callable[[Record], tuple[str, bool]]:
    def rule(record: Record) -> tuple[str, bool]:
        times, share = record.times_rival or 0.0, record.share_of_ceiling or 0.0
        return f"{times:.1f} x, {share:.2f} of torch.mul", times >= factor or share >= OF_MUL

    return rule


def _medium(records: Sequence[Record], path: str) -> list[Verdict]:
    found: list[Verdict] = []
    for name, factor in IN_PLACE.items():
        rows = [r for r in own(records, "speed", "inplace", MEDIUM) if r.cpu_path == name]
        wanted, rule = f">= {factor:g} x nn.Dropout", times_rival(factor)
        found += judge(f"inplace, 64K to 4M, {name}", wanted, rows, rule)
    for mode, factor in ALLOCATING.items():
        rows = [r for r in own(records, "speed", mode, MEDIUM) if r.cpu_path == path]
        wanted = f">= {factor:g} x nn.Dropout or {OF_MUL} of torch.mul"
        found += judge(f"{mode}, 64K to 4M", wanted, rows, _factor_or_share(factor))
    return found


def _large(records: Sequence[Record]) -> list[Verdict]:
    found: list[Verdict] = []
    for mode in ("forward", "forward_backward"):
        rows, rule = own(records, "speed", mode, LARGE), at_most(time_over_ceiling, 1.15)
        found += judge(f"{mode}, 16M and up", "<= 1.15 x torch.mul's time", rows, rule)
    rows, rule = own(records, "speed", "inplace", LARGE), at_most(time_over_ceiling, 1.0)
    return [*found, *judge("inplace, 16M and up", "<= 1 x copy_'s time", rows, rule)]


def _small(records: Sequence[Record]) -> list[Verdict]:
    found: list[Verdict] = []
    for mode, most in OVERHEAD.items():
        rows, rule = own(records, "speed", mode, SMALL), at_most(time_over_rival, most)
        found += judge(f"{mode}, 1 to 1,000", f"<= {most:g} x nn.Dropout's time", rows, rule)
    return found


def cpu_verdicts(records: Sequence[Record], saved: Sequence[Saved], path: str) -> list[Verdict]:
    """All of them; `path` is the SIMD path that is active where none is forced."""
    native = [r for r in records if r.cpu_path == path]
    return [
        *_medium(records, path),
        *_large(native),
        *_small(native),
        *layout_verdicts(native),
        *saved_verdicts(saved),
    ]
