"""Both ways in which Inductor lowers dropout, as a parameter."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from dropout_ext.integration import inductor


@pytest.fixture(params=["kernel", pytest.param("fused", marks=pytest.mark.thorough)])
def lowering(request: pytest.FixtureRequest) -> Iterator[str]:
    """As on a CPU, where the kernel stays, and as on CUDA, where dropout is fused."""
    before = inductor.setting.devices
    if request.param == "fused":
        import torch._inductor.graph  # noqa: F401  # registers what is fused

        inductor.setting.devices = frozenset({"cpu", "cuda"})
    yield request.param
    inductor.setting.devices = before
