"""The mutations that `python -m tests.mutations` makes still apply.

Catches: a change of the sources after which a mutation has no place, or a change of the tests after
which nothing would look for it. Whether each is noticed is seen by running the command.
"""

from __future__ import annotations

import pytest

from tests.mutations import MUTATIONS
from tests.mutations.mutation import Mutation
from tests.mutations.workspace import ROOT

pytestmark = pytest.mark.skipif(not (ROOT / "csrc").is_dir(), reason="not a source checkout")


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.name)
def test_anchor_and_tests_exist(mutation: Mutation) -> None:
    mutation.file(ROOT)
    assert mutation.old != mutation.new
    for test in mutation.tests:
        path, _, name = test.partition("::")
        assert f"def {name}(" in (ROOT / path).read_text() if name else (ROOT / path).is_file()


def test_there_are_enough() -> None:
    """Of every floor, each with a name of its own."""
    assert len({mutation.name for mutation in MUTATIONS}) == len(MUTATIONS) >= 30
    for floor in (
        "csrc/core",
        "csrc/kernels/cpu",
        "csrc/kernels/cuda",
        "csrc/torch",
        "dropout_ext",
    ):
        assert sum(mutation.where.startswith(floor) for mutation in MUTATIONS) >= 4, floor
