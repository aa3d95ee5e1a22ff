"""Which SIMD path runs: chosen by name, in the process or by the environment.

Catches: an unknown or unsupported name that silently falls back to another path.
"""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

import dropout_ext


@pytest.mark.parametrize("name", ["sse9", "", "AVX2", "scalar "])
def test_unknown_path(name: str) -> None:
    before = dropout_ext.build_info()["cpu_path"]
    with pytest.raises(ValueError, match=f"'{name}'"):
        dropout_ext._C.set_cpu_path(name)
    assert dropout_ext.build_info()["cpu_path"] == before


def run_with_path(name: str) -> subprocess.CompletedProcess[str]:
    code = (
        "import torch, dropout_ext;"
        "dropout_ext.functional.dropout(torch.ones(9));"
        "print(dropout_ext.build_info()['cpu_path'])"
    )
    return subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "DROPOUT_EXT_CPU": name},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.thorough
def test_unknown_path_in_the_environment() -> None:
    done = run_with_path("sse9")
    assert done.returncode != 0
    assert "DROPOUT_EXT_CPU" in done.stderr
    assert "sse9" in done.stderr


@pytest.mark.thorough
def test_path_in_the_environment() -> None:
    """The second best one: neither what is chosen anyway nor, where there are three, the worst."""
    name = dropout_ext.build_info()["cpu_paths"][-2:][0]
    done = run_with_path(name)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [name]
