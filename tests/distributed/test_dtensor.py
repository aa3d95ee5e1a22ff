"""Distributed tensors: each rank makes its piece of the one mask, whatever the layout.

Four gloo processes run `distributed/checks.py` once; each test here is one of those checks.
Catches: a start or a size that ignores uneven shards; mesh dimensions applied in the wrong order; a
mask that depends on the number of ranks; replicas that differ; a gradient in another layout; ranks
that silently draw for themselves.
"""

from __future__ import annotations

import pytest
import torch

if not torch.distributed.is_available():  # a build of torch without it
    pytest.skip("torch.distributed is not in this build of torch", allow_module_level=True)

from tests.distributed import checks, training, world

pytestmark = pytest.mark.thorough

CHECKS = {**checks.CHECKS, **training.CHECKS}


@pytest.fixture(scope="module")
def failures() -> dict[str, str]:
    return world.run(CHECKS, checks.RANKS)


@pytest.mark.parametrize("name", CHECKS)
def test_check(failures: dict[str, str], name: str) -> None:
    assert name not in failures, failures[name]
