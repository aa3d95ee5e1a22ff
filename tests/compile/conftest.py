"""Both ways in which Inductor lowers dropout, as a parameter."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from dropout_ext.integration import inductor


@pytest.fixture(params=["kernel", pytest.param("fused", marks=pytest.mark.thorough)])
def lowering(request: pytest.FixtureRequest) -> Iterator[str]:
    """As on a CPU, where the kernel stays, and as on CUDA, where dropout is fused."""
    import torch._inductor.graph  # noqa: F401  # registers what is fused

    before = inductor.setting.devices
    inductor.setting.devices = frozenset({"cpu", "cuda"} if request.param == "fused" else ())
    yield request.param
    inductor.setting.devices = before
