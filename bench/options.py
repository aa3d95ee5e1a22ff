"""The command line of ``python -m bench`` and the plan that it stands for."""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from bench.candidates import CANDIDATES, Candidate
from bench.cases import MODES, parse_size
from bench.dtypes import DTYPES
from bench.presets import PRESETS
from bench.timing import Budget

SECTIONS = ("speed", "layouts", "saved")

SMALLEST_LAYOUT = 1 << 20
"""Elements from which layouts are compared; on smaller tensors calling hides what they cost."""


@dataclass(frozen=True)
class Plan:
    """Everything a run needs to know."""

    device: str
    sections: tuple[str, ...]
    sizes: tuple[int, ...]
    dtypes: tuple[str, ...]
    modes: tuple[str, ...]
    probabilities: tuple[float, ...]
    candidates: tuple[Candidate, ...]
    layout_sizes: tuple[int, ...]
    layout_modes: tuple[str, ...]
    budget: Budget


def _size(text: str) -> int:
    try:
        return parse_size(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _probability(text: str) -> float:
    value = float(text)
    if not 0 < value < 1:
        raise argparse.ArgumentTypeError(f"p must lie between 0 and 1, both excluded, got {text}")
    return value


def _positive(text: str) -> float:
    value = float(text)
    if not value > 0:
        raise argparse.ArgumentTypeError(f"must be positive, got {text}")
    return value


def parser() -> argparse.ArgumentParser:
    """The options of ``python -m bench``."""
    options = argparse.ArgumentParser(
        prog="python -m bench",
        description="Times dropout_ext beside nn.Dropout, its other peers and memory-bound "
        "ceilings, all interleaved in one run.",
    )
    add = options.add_argument
    add("--device", choices=("cpu", "cuda"), default="cpu")
    add("--quick", action="store_true", help="a coarse look in well under a minute")
    add("--json", type=Path, metavar="FILE", help="write facts and records")
    add("--plot", type=Path, metavar="FILE", help="draw throughput against size (PNG)")
    add("--sizes", nargs="+", type=_size, metavar="N", help="elements, such as 1000 64K 4M")
    add("--layout-sizes", nargs="+", type=_size, metavar="N", help="elements, multiples of 64K")
    add("--dtypes", nargs="+", choices=tuple(DTYPES), metavar="DTYPE", help=", ".join(DTYPES))
    add("--modes", nargs="+", choices=tuple(MODES), metavar="MODE", help=", ".join(MODES))
    names = ", ".join(CANDIDATES)
    add("--candidates", nargs="+", choices=tuple(CANDIDATES), metavar="NAME", help=names)
    add("--p", nargs="+", type=_probability, default=[0.1], help="drop probabilities")
    add("--sections", nargs="+", choices=SECTIONS, default=list(SECTIONS))
    add("--threads", type=int, help="threads for torch on the CPU (torch's own choice if unset)")
    add("--seconds", type=_positive, help="seconds for each candidate in each case")
    add(
        "--check-bars",
        action="store_true",
        help="judge the project's bars; on the CPU this measures a grid of its own",
    )
    add("--strict", action="store_true", help="exit with 1 when a bar is missed")
    return options


def plan(chosen: argparse.Namespace) -> Plan:
    """Fills in what was left open from the preset for the device."""
    if chosen.device == "cuda" and not torch.cuda.is_available():
        raise SystemExit("--device cuda: this torch sees no CUDA device")
    preset = PRESETS[chosen.device, chosen.quick]
    budget = preset.budget
    if chosen.seconds:
        sample = min(budget.sample_seconds, chosen.seconds / budget.min_samples)
        budget = replace(budget, trial_seconds=chosen.seconds, sample_seconds=sample)
    sizes = chosen.sizes or [parse_size(size) for size in preset.sizes]
    layout_sizes = chosen.layout_sizes or [
        size
        for size in chosen.sizes or map(parse_size, preset.layout_sizes)
        if size >= SMALLEST_LAYOUT
    ]
    names: Sequence[str] = chosen.candidates or preset.candidates
    return Plan(
        device=chosen.device,
        sections=tuple(chosen.sections),
        sizes=tuple(sorted(sizes)),
        dtypes=tuple(chosen.dtypes or preset.dtypes),
        modes=tuple(chosen.modes or preset.modes),
        probabilities=tuple(chosen.p),
        candidates=tuple(CANDIDATES[name] for name in CANDIDATES if name in names),
        layout_sizes=tuple(layout_sizes),
        layout_modes=tuple(chosen.modes or preset.layout_modes),
        budget=budget,
    )
