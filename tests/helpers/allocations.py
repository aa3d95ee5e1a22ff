"""What is allocated meanwhile."""

from collections.abc import Callable

import torch


def allocations(call: Callable[[], object]) -> list[int]:
    """The sizes that torch's CPU allocator hands out meanwhile."""
    activities = [torch.profiler.ProfilerActivity.CPU]
    with torch.profiler.profile(
        activities=activities, profile_memory=True, acc_events=True
    ) as profile:
        kept = call()
    events = profile.profiler.kineto_results.events()  # type: ignore[union-attr]
    del kept
    return [event.nbytes() for event in events if event.name() == "[memory]" and event.nbytes() > 0]
