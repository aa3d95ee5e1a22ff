"""The command line of ``python -m bench``, and the plan that it stands for."""

import argparse
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from bench.candidates import CANDIDATES
from bench.cases import DTYPES, MODES, parse_size
from bench.report import add_options
from bench.timing import Budget

SECTIONS = ("speed", "layouts", "saved")


def words(text: str) -> tuple[str, ...]:
    """Words, from a line of them."""
    return tuple(text.split())


def sizes(text: str) -> tuple[int, ...]:
    """Numbers of elements, from a line of them."""
    return tuple(map(parse_size, text.split()))


@dataclass(frozen=True)
class Plan:
    """What to measure, and how long each cell may take."""

    device: str
    sizes: tuple[int, ...]
    modes: tuple[str, ...]
    layout_sizes: tuple[int, ...]
    layout_modes: tuple[str, ...]
    budget: Budget
    dtypes: tuple[str, ...] = tuple(DTYPES)
    candidates: tuple[str, ...] = CANDIDATES
    sections: tuple[str, ...] = SECTIONS
    probabilities: tuple[float, ...] = (0.1,)


# A first compilation takes tens of seconds on a CPU: too long for a quick look.
_EAGER = tuple(name for name in CANDIDATES if not name.startswith("compiled"))

PRESETS = {
    ("cpu", False): Plan(
        "cpu", sizes("1 16 256 4K 64K 256K 1M 4M 16M 64M"),
        words("forward forward_grad forward_backward inplace"),
        sizes("1M 4M"), words("forward forward_backward inplace"),
        Budget(trial_seconds=0.1, sample_seconds=1e-3, min_samples=3),
    ),
    ("cpu", True): Plan(
        "cpu", sizes("1 1K 64K 1M 4M"), words("forward forward_backward inplace"),
        sizes("1M"), words("forward forward_backward"),
        Budget(trial_seconds=0.03, sample_seconds=5e-4, min_samples=3, max_samples=21),
        dtypes=("float32", "bfloat16"), candidates=_EAGER,
    ),
    ("cuda", False): Plan(
        "cuda", sizes("1 1K 16K 64K 1M 4M 16M 64M 256M"),
        words("forward forward_grad backward forward_backward inplace"),
        sizes("4M 64M"), words("forward backward inplace"),
        Budget(trial_seconds=0.1, sample_seconds=5e-3, min_samples=5),
    ),
    ("cuda", True): Plan(
        "cuda", sizes("1K 64K 1M 16M 64M"), words("forward backward forward_backward inplace"),
        sizes("64M"), words("forward backward"),
        Budget(trial_seconds=0.02, sample_seconds=2e-3, min_samples=5, max_samples=21),
        candidates=_EAGER,
    ),
}  # fmt: skip
"""What is measured unless the command line says otherwise; by device and ``--quick``."""


def parser() -> argparse.ArgumentParser:
    """The options of ``python -m bench``."""
    options = argparse.ArgumentParser(
        prog="python -m bench",
        description="Times dropout_ext beside nn.Dropout, its other peers and memory-bound "
        "ceilings, all interleaved in one run.",
    )
    add_options(options)
    add = options.add_argument
    add("--quick", action="store_true", help="a coarse look in well under a minute")
    add("--plot", type=Path, metavar="FILE", help="draw throughput against size (PNG)")
    add("--sizes", nargs="+", type=parse_size, metavar="N", help="elements, such as 1000 64K 4M")
    add("--layout-sizes", nargs="+", type=parse_size, metavar="N", help="multiples of 64K")
    for name, choices in (("dtypes", DTYPES), ("modes", MODES), ("candidates", CANDIDATES)):
        kind = name[:-1].upper()
        add(f"--{name}", nargs="+", choices=tuple(choices), metavar=kind, help=", ".join(choices))
    add("--p", nargs="+", type=float, default=[0.1], help="drop probabilities")
    add("--sections", nargs="+", choices=SECTIONS, default=SECTIONS)
    add("--seconds", type=float, help="seconds for each candidate in each case")
    add("--check-thresholds", action="store_true", help="judge; on the CPU on a grid of its own")
    add("--strict", action="store_true", help="exit with 1 when a threshold is missed")
    return options


def plan(chosen: argparse.Namespace) -> Plan:
    """The preset for the device, with what the command line says in its place."""
    if not all(0 < p < 1 for p in chosen.p):
        raise SystemExit(f"--p must be above 0 and below 1, got {chosen.p}")
    preset = PRESETS[chosen.device, chosen.quick]
    names = ("sizes", "dtypes", "modes", "candidates", "layout_sizes", "sections")
    given: dict[str, Any] = {
        name: tuple(getattr(chosen, name)) for name in names if getattr(chosen, name)
    }
    if chosen.modes:
        given["layout_modes"] = given["modes"]
    if chosen.sizes:  # on smaller tensors calling hides what a layout costs
        given.setdefault("layout_sizes", tuple(size for size in chosen.sizes if size >= 1 << 20))
    budget = preset.budget
    if chosen.seconds:
        sample = min(budget.sample_seconds, chosen.seconds / budget.min_samples)
        budget = replace(budget, trial_seconds=chosen.seconds, sample_seconds=sample)
    return replace(preset, **given, probabilities=tuple(chosen.p), budget=budget)
