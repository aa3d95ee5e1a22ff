"""The emulated kernels, compiled once."""

from __future__ import annotations

import pytest

from tests.cuda import emulator as emulation


@pytest.fixture(scope="session")
def emulator(tmp_path_factory: pytest.TempPathFactory) -> emulation.Emulator:
    return emulation.build(tmp_path_factory.mktemp("emulation"))
