"""What is measured unless the command line says otherwise."""

from dataclasses import dataclass

from bench.candidates import CANDIDATES
from bench.timing import Budget


@dataclass(frozen=True)
class Preset:
    """A grid and the time to spend on each of its cells."""

    sizes: tuple[str, ...]
    dtypes: tuple[str, ...]
    modes: tuple[str, ...]
    candidates: tuple[str, ...]
    layout_sizes: tuple[str, ...]
    layout_modes: tuple[str, ...]
    budget: Budget


_EVERYONE = tuple(CANDIDATES)
_NOBODY_COMPILED = tuple(name for name in CANDIDATES if not name.startswith("compiled"))
"""A first compilation takes tens of seconds on a CPU: too long for a quick look."""

PRESETS: dict[tuple[str, bool], Preset] = {
    ("cpu", False): Preset(
        sizes=("1", "16", "256", "4K", "64K", "256K", "1M", "4M", "16M", "64M"),
        dtypes=("float32", "bfloat16", "float16", "float64"),
        modes=("forward", "forward_grad", "forward_backward", "inplace"),
        candidates=_EVERYONE,
        layout_sizes=("1M", "4M"),
        layout_modes=("forward", "forward_backward", "inplace"),
        budget=Budget(trial_seconds=0.1, sample_seconds=1e-3, min_samples=3),
    ),
    ("cpu", True): Preset(
        sizes=("1", "1K", "64K", "1M", "4M"),
        dtypes=("float32", "bfloat16"),
        modes=("forward", "forward_backward", "inplace"),
        candidates=_NOBODY_COMPILED,
        layout_sizes=("1M",),
        layout_modes=("forward", "forward_backward"),
        budget=Budget(trial_seconds=0.03, sample_seconds=5e-4, min_samples=3, max_samples=21),
    ),
    ("cuda", False): Preset(
        sizes=("1", "1K", "16K", "64K", "1M", "4M", "16M", "64M", "256M"),
        dtypes=("float32", "bfloat16", "float16", "float64"),
        modes=("forward", "forward_grad", "backward", "forward_backward", "inplace"),
        candidates=_EVERYONE,
        layout_sizes=("4M", "64M"),
        layout_modes=("forward", "backward", "inplace"),
        budget=Budget(trial_seconds=0.1, sample_seconds=5e-3, min_samples=5),
    ),
    ("cuda", True): Preset(
        sizes=("1K", "64K", "1M", "16M", "64M"),
        dtypes=("float32", "bfloat16", "float16", "float64"),
        modes=("forward", "backward", "forward_backward", "inplace"),
        candidates=_NOBODY_COMPILED,
        layout_sizes=("64M",),
        layout_modes=("forward", "backward"),
        budget=Budget(trial_seconds=0.02, sample_seconds=2e-3, min_samples=5, max_samples=21),
    ),
}
"""By device and whether a quick look was asked for."""
