"""Are the masks of two consecutive calls independent of each other?

A kernel whose threads use two blocks of random numbers but reserve one hands the second block to
the next call. Where a thread covers 8 elements, lanes 0 to 3 of the second mask then repeat lanes
4 to 7 of the first; where it covers 4, lanes 0 and 1 repeat 2 and 3; a kernel that walks the tensor
twice would repeat halves. Each is looked for by name, and then any shift at all by correlation.
"""

import math
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from bench.audit.subjects import Observation, Setting, Subject, agreement, by_chance
from bench.cases import format_size
from bench.dtypes import DTYPES

_P = 0.5
"""Where a shared bit shows most."""

SIZES = (1 << 10, 1 << 14, 1 << 18, 1 << 20, 1 << 22, 1 << 24)


def _lanes(width: int) -> Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """Picks the lower lanes of the second mask and the upper lanes of the first."""

    def pick(first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
        half = width // 2
        return second.view(-1, width)[:, :half], first.view(-1, width)[:, half:]

    return pick


def _halves(first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
    half = first.numel() // 2
    return second[:half], first[half:]


PATTERNS: dict[str, Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]] = {
    "element by element": lambda first, second: (second, first),
    "lanes 8i..8i+3 of the 2nd, 8i+4..8i+7 of the 1st": _lanes(8),
    "lanes 4i..4i+1 of the 2nd, 4i+2..4i+3 of the 1st": _lanes(4),
    "first half of the 2nd, second half of the 1st": _halves,
}


def _masks(subject: Subject, setting: Setting, dtype: str, numel: int) -> tuple[Tensor, Tensor]:
    ones = torch.ones(numel, dtype=DTYPES[dtype], device=setting.device)
    module = subject.build(_P)
    torch.manual_seed(numel)
    return module(ones) != 0, module(ones) != 0


def _shift(first: Tensor, second: Tensor) -> tuple[int, float]:
    """The cyclic shift at which the masks correlate most, and that correlation in its z."""
    one, two = (m.double() - (1 - _P) for m in (first, second))
    spectrum = torch.fft.rfft(two) * torch.fft.rfft(one).conj()
    z = torch.fft.irfft(spectrum, n=one.numel()) / (_P * (1 - _P) * math.sqrt(one.numel()))
    lag = int(z.abs().argmax())
    return lag, z[lag].item()


def _worst(found: dict[int, Observation]) -> Observation:
    """The size with the largest |z|; the figures of all sizes go along."""
    numel = max(found, key=lambda n: abs(found[n].values["z"]))
    values = {format_size(n): observation.values for n, observation in found.items()}
    return Observation(f"{found[numel].text} at {format_size(numel)}", values)


def independence(subject: Subject, setting: Setting) -> Iterator[tuple[str, Observation]]:
    """The largest deviation over all sizes, for each dtype and pattern.

    Of six sizes the worst |z| of an unrelated pair is below 3.6 in 99.8 % of cases. The scan over
    n shifts takes the largest of n correlations: about sqrt(2 ln n), 4 to 6, for unrelated masks.
    """
    sizes = [size for size in SIZES if size <= setting.numel]
    for dtype in DTYPES:
        masks = {numel: _masks(subject, setting, dtype, numel) for numel in sizes}
        for name, pick in PATTERNS.items():
            found = {n: agreement(*pick(*pair), by_chance(_P)) for n, pair in masks.items()}
            yield f"consecutive {dtype} masks: {name}", _worst(found)
        shifts = {}
        for numel, pair in masks.items():
            lag, z = _shift(*pair)
            text = f"largest correlation z = {z:+.1f} (shift {lag:,})"
            shifts[numel] = Observation(text, {"z": z, "shift": lag})
        yield f"consecutive {dtype} masks: any shift", _worst(shifts)
