"""How much of the CPU other processes used meanwhile: a parallel loop waits for a shared core."""

import os
import time
from pathlib import Path

NOTICEABLE = 0.05
"""Share of the CPU's time from which a run is no longer called undisturbed."""


def _busy_seconds() -> float | None:
    """Seconds that all cores together have worked since boot; None where the kernel hides it."""
    try:
        ticks = Path("/proc/stat").read_text().splitlines()[0].split()[1:]
    except OSError:
        return None
    user, nice, system, _idle, _iowait, irq, softirq = map(int, ticks[:7])
    return (user + nice + system + irq + softirq) / os.sysconf("SC_CLK_TCK")


def _own_seconds() -> float:
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


class Load:
    """Watches from its creation on."""

    def __init__(self) -> None:
        self._clock = time.monotonic()
        self._busy = _busy_seconds()
        self._own = _own_seconds()

    def of_others(self) -> float | None:
        """Share of all cores' time that went to other processes, 0 to 1."""
        now = _busy_seconds()
        if self._busy is None or now is None:
            return None
        capacity = (time.monotonic() - self._clock) * (os.cpu_count() or 1)
        foreign = (now - self._busy) - (_own_seconds() - self._own)
        return round(min(1.0, max(0.0, foreign / capacity)), 3)


def warning(share: float | None) -> list[str]:
    """A line for the report where others were at work."""
    if share is None or share < NOTICEABLE:
        return []
    return ["", f"other processes used {share:.0%} of the CPU meanwhile: figures are disturbed"]
