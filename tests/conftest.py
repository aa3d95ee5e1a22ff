"""Devices and SIMD paths as parameters, the one place where tests are skipped, and a guard against
tests that leave global state behind.

    DROPOUT_EXT_REQUIRE_CUDA=1          a missing GPU is a failure, not a skip
    DROPOUT_EXT_REQUIRE_PATHS=a,b       likewise for these SIMD paths
    DROPOUT_EXT_SLOW=1                  also run the tests that take minutes
    DROPOUT_EXT_HUGE=1                  also run those that need many gigabytes
"""

from __future__ import annotations

import functools
import os
import platform
import random
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch

X86 = platform.machine().lower() in ("x86_64", "amd64")
KNOWN_PATHS = ("scalar", "avx2", "avx512") if X86 else ("scalar",)


def pytest_configure(config: pytest.Config) -> None:
    for marker in (
        "needs_cuda: runs on a CUDA device",
        "torch_kernels: on CUDA, runs kernels of torch, compiled or not, that only a GPU can run",
        "needs_cpu_path(name): runs on this SIMD path of the CPU kernels",
        "slow: takes long, runs with DROPOUT_EXT_SLOW=1",
        "huge(gibibytes): needs that much memory, runs with DROPOUT_EXT_HUGE=1",
    ):
        config.addinivalue_line("markers", marker)
    config.addinivalue_line("filterwarnings", "error")
    # Raised by parts of torch that import each other, on the first use of forward-mode AD.
    config.addinivalue_line("filterwarnings", "ignore:`torch.jit:DeprecationWarning")
    config.addinivalue_line("filterwarnings", "ignore:`torch.jit:FutureWarning")
    # Dynamo and opcheck ask every tensor that they meet whether it has a gradient.
    config.addinivalue_line("filterwarnings", "ignore:The .grad attribute of a Tensor")
    # Inductor of torch before 2.15, on a GPU with tensor cores.
    config.addinivalue_line("filterwarnings", "ignore:TensorFloat32 tensor cores:UserWarning")


# Skips, and whether.


@functools.cache
def _build_info() -> dict[str, Any]:
    import dropout_ext

    return dropout_ext.build_info()


@functools.cache
def _has_cuda_device() -> bool:
    return torch.cuda.is_available()


@functools.cache
def _is_pretended() -> bool:
    """Is the CUDA device that of tests/host_device?"""
    return _has_cuda_device() and torch.cuda.get_device_name() == "memory of the host"


def _lacks_cuda(marker: pytest.Mark) -> tuple[str | None, bool]:
    required = os.environ.get("DROPOUT_EXT_REQUIRE_CUDA") == "1"
    if not _has_cuda_device():
        return "no CUDA device", required
    if _build_info()["cuda"] is None:
        return "dropout_ext was built without CUDA", required
    return None, required


def _lacks_cpu_path(marker: pytest.Mark) -> tuple[str | None, bool]:
    (name,) = marker.args
    required = name in os.environ.get("DROPOUT_EXT_REQUIRE_PATHS", "").split(",")
    if name not in _build_info()["cpu_paths"]:
        return f"this machine cannot run the CPU path {name}", required
    return None, required


def _lacks_time(marker: pytest.Mark) -> tuple[str | None, bool]:
    return (
        None if os.environ.get("DROPOUT_EXT_SLOW") == "1" else "needs DROPOUT_EXT_SLOW=1"
    ), False


def _lacks_memory(marker: pytest.Mark) -> tuple[str | None, bool]:
    (gibibytes,) = marker.args
    if os.environ.get("DROPOUT_EXT_HUGE") != "1":
        return "needs DROPOUT_EXT_HUGE=1", False
    free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30
    if free < gibibytes:
        return f"needs {gibibytes} GiB of memory, {free:.1f} are free", False
    return None, False


_NEEDS: dict[str, Callable[[pytest.Mark], tuple[str | None, bool]]] = {
    "needs_cuda": _lacks_cuda,
    "needs_cpu_path": _lacks_cpu_path,
    "slow": _lacks_time,
    "huge": _lacks_memory,
}


def pytest_runtest_setup(item: pytest.Item) -> None:
    for marker in item.iter_markers():
        if marker.name not in _NEEDS:
            continue
        reason, required = _NEEDS[marker.name](marker)
        if reason is not None and required:
            pytest.fail(f"{reason}, but the environment says that it must be there")
        if reason is not None:
            pytest.skip(reason)
    on_cuda = item.get_closest_marker("needs_cuda") is not None
    if on_cuda and item.get_closest_marker("torch_kernels") is not None and _is_pretended():
        pytest.skip("a pretended device does not run torch's kernels")


# Parameters.

_CUDA = pytest.param("cuda", marks=pytest.mark.needs_cuda)
_CPU_PATHS = [
    pytest.param(f"cpu-{name}", marks=pytest.mark.needs_cpu_path(name)) for name in KNOWN_PATHS
]


def _use(parameter: str) -> Iterator[torch.device]:
    """The device that a parameter means; for a CPU path, with that path active."""
    device, _, path = parameter.partition("-")
    if not path:
        yield torch.device(device)
        return
    import dropout_ext

    before = dropout_ext.build_info()["cpu_path"]
    dropout_ext._C.set_cpu_path(path)
    assert dropout_ext.build_info()["cpu_path"] == path
    yield torch.device(device)
    dropout_ext._C.set_cpu_path(before)


@pytest.fixture(params=["cpu", _CUDA])
def device(request: pytest.FixtureRequest) -> Iterator[torch.device]:
    """Each kind of device: for what does not depend on the loops inside."""
    yield from _use(request.param)


@pytest.fixture(params=[*_CPU_PATHS, _CUDA])
def backend(request: pytest.FixtureRequest) -> Iterator[torch.device]:
    """Each kernel: every SIMD path of the CPU, and CUDA. Gives the device."""
    yield from _use(request.param)


@pytest.fixture(params=_CPU_PATHS)
def cpu_path(request: pytest.FixtureRequest) -> Iterator[torch.device]:
    """Each SIMD path of the CPU. Gives the device."""
    yield from _use(request.param)


@pytest.fixture(params=["float64", "float32", "bfloat16", "float16"])
def dtype(request: pytest.FixtureRequest) -> torch.dtype:
    found: torch.dtype = getattr(torch, request.param)
    return found


@pytest.fixture
def set_threads() -> Iterator[Callable[[int], None]]:
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


# Guard.


@pytest.fixture(autouse=True)
def _global_state() -> Iterator[None]:
    """Every test begins with the same seeds and leaves no trace."""
    torch_state, python_state = torch.get_rng_state(), random.getstate()
    settings = _settings()
    torch.default_generator.manual_seed(20260101)
    if torch.cuda.is_initialized():
        torch.cuda.manual_seed_all(20260101)
    random.seed(20260101)
    yield
    torch.set_rng_state(torch_state)
    random.setstate(python_state)
    assert _settings() == settings, "the test changed a global setting"


def _settings() -> dict[str, object]:
    return {
        "threads": torch.get_num_threads(),
        "default dtype": torch.get_default_dtype(),
        "grad mode": torch.is_grad_enabled(),
        "inference mode": torch.is_inference_mode_enabled(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "default device": str(torch.get_default_device()),
    }
