"""What a test may need of the machine, and whether its absence is a skip or a failure.

DROPOUT_EXT_REQUIRE_CUDA=1          a missing GPU is a failure, not a skip
DROPOUT_EXT_REQUIRE_PATHS=a,b       likewise for these SIMD paths
DROPOUT_EXT_SLOW=1                  also run the tests that take minutes
DROPOUT_EXT_HUGE=1                  also run those that need many gigabytes
"""

from __future__ import annotations

import functools
import os
import platform
from collections.abc import Callable
from typing import Any

import pytest
import torch

X86 = platform.machine().lower() in ("x86_64", "amd64")
KNOWN_PATHS = ("scalar", "avx2", "avx512") if X86 else ("scalar",)
MOCK_DEVICE = "mock CUDA device"  # as tests/cuda/mock_runtime/runtime/devices.cpp names it

Missing = tuple[str | None, bool]  # the reason, None if nothing is missing; is that a failure?


@functools.cache
def _build_info() -> dict[str, Any]:
    import dropout_ext

    return dropout_ext.build_info()


@functools.cache
def _has_cuda_device() -> bool:
    return torch.cuda.is_available()


@functools.cache
def _is_mock() -> bool:
    return _has_cuda_device() and torch.cuda.get_device_name() == MOCK_DEVICE


def _cuda(marker: pytest.Mark) -> Missing:
    required = os.environ.get("DROPOUT_EXT_REQUIRE_CUDA") == "1"
    if not _has_cuda_device():
        return "no CUDA device", required
    if _build_info()["cuda"] is None:
        return "dropout_ext was built without CUDA", required
    return None, required


def _cpu_path(marker: pytest.Mark) -> Missing:
    (name,) = marker.args
    required = name in os.environ.get("DROPOUT_EXT_REQUIRE_PATHS", "").split(",")
    if name not in _build_info()["cpu_paths"]:
        return f"this machine cannot run the CPU path {name}", required
    return None, required


def _time(marker: pytest.Mark) -> Missing:
    wanted = os.environ.get("DROPOUT_EXT_SLOW") == "1"
    return None if wanted else "needs DROPOUT_EXT_SLOW=1", False


def _memory(marker: pytest.Mark) -> Missing:
    (gibibytes,) = marker.args
    if os.environ.get("DROPOUT_EXT_HUGE") != "1":
        return "needs DROPOUT_EXT_HUGE=1", False
    free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30
    if free < gibibytes:
        return f"needs {gibibytes} GiB of memory, {free:.1f} are free", False
    return None, False


_MISSING: dict[str, Callable[[pytest.Mark], Missing]] = {
    "needs_cuda": _cuda,
    "needs_cpu_path": _cpu_path,
    "slow": _time,
    "huge": _memory,
}


def check(item: pytest.Item) -> None:
    """Skips the test, or fails it, if the machine lacks what its markers name."""
    for marker in item.iter_markers():
        if marker.name not in _MISSING:
            continue
        reason, required = _MISSING[marker.name](marker)
        if reason is not None and required:
            pytest.fail(f"{reason}, but the environment says that it must be there")
        if reason is not None:
            pytest.skip(reason)
    on_cuda = item.get_closest_marker("needs_cuda") is not None
    if on_cuda and item.get_closest_marker("torch_kernels") is not None and _is_mock():
        pytest.skip("the mock CUDA runtime does not run torch's kernels")
