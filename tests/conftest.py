"""Devices and SIMD paths as parameters, the marker of the quick tests, and a guard against tests
that leave global state behind. What makes a test skip stands in helpers/requirements.py.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator

import pytest
import torch

from tests.helpers import requirements

_NOT_QUICK = ("thorough", "slow", "huge", "needs_cuda")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if not any(item.get_closest_marker(name) for name in _NOT_QUICK):
            item.add_marker("quick")


def pytest_runtest_setup(item: pytest.Item) -> None:
    requirements.check(item)


# Parameters.

_CUDA = pytest.param("cuda", marks=pytest.mark.needs_cuda)
_CPU_PATHS = [
    pytest.param(f"cpu-{name}", marks=pytest.mark.needs_cpu_path(name))
    for name in requirements.KNOWN_PATHS
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
