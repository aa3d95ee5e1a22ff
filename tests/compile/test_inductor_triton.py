"""Inductor's Triton code for a CUDA device, which needs a CUDA build of torch and no GPU.

Catches: dropout that stands beside its neighbours instead of among them; a decision that differs
from eager code's; code that makes a Philox call for each element, or narrow accesses, or spills.
"""

from __future__ import annotations

import functools
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

import dropout_ext
from dropout_ext.integration import inductor
from tests.compile import blocks
from tests.helpers import triton_code
from tests.helpers.triton_code import MachineCode

pytestmark = [
    pytest.mark.thorough,
    pytest.mark.skipif(torch.version.cuda is None, reason="torch was built without CUDA"),
    # Triton's own, on import.
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]
ROOT = Path(__file__).parents[2]
CASES = [
    *("plain torch.float64", "plain torch.float32", "plain torch.float16", "plain torch.bfloat16"),
    *("second call left out", "first shared", "backwards, beyond 2^31", "across 2^32 blocks"),
    *("strides beyond 2^32", "alpha", "states of samples", "the mask alone", "channels last"),
    *("transposed", "expanded", "softmax", "layer norm", "backward", "dynamic"),
]


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    fuse = inductor.setting.fuse
    yield
    inductor.setting.fuse = fuse
    torch._dynamo.reset()


# Results.


@pytest.fixture(scope="module")
def interpreted(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What each case gave, in a process in which Triton interprets from the start."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.compile.interpret", str(tmp_path_factory.mktemp("triton"))],
        cwd=ROOT,
        env=os.environ | {"TRITON_INTERPRET": "1"},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout))


def test_every_case_was_interpreted(interpreted: dict[str, str]) -> None:
    assert list(interpreted) == CASES


@pytest.mark.parametrize("case", CASES)
def test_mask_is_that_of_eager_code(interpreted: dict[str, str], case: str) -> None:
    """And every bit of the values, where the arithmetic is that of eager code."""
    assert interpreted[case] == "equal", interpreted[case]


# Sources.


@functools.cache
def generated(block: str, dtype: torch.dtype, ours: bool, p: float = 0.1) -> list[str]:
    drop = blocks.ours if ours else blocks.torchs
    return triton_code.generate(blocks.BLOCKS[block](drop, p), *blocks.inputs(dtype))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32], ids=str)
@pytest.mark.parametrize("block", blocks.BLOCKS)
def test_dropout_stands_among_its_neighbours(block: str, dtype: torch.dtype) -> None:
    """No operator is called, and there are as many kernels as with torch's own dropout."""
    own, ours = (generated(block, dtype, mine) for mine in (False, True))
    assert len(own) == len(ours) == 2, "forward and backward"
    for torchs, fused in zip(own, ours, strict=True):
        assert triton_code.externs(fused) == []
        assert len(triton_code.kernels(fused)) == len(triton_code.kernels(torchs))


def test_fusion_is_switched_off() -> None:
    dropout_ext.fuse_in_compiled_graphs(False)
    block = blocks.gelu(blocks.ours)
    for source in triton_code.generate(block, *blocks.inputs(torch.float32, 64, 64)):
        assert "torch.ops.dropout_ext.dropout.default" in triton_code.externs(source)


# Machine code.

Counted = dict[str, MachineCode]


def counted(source: str, folder: Path, major: int = 9, minor: int = 0) -> Counted:
    """Of the kernels that drop."""
    return {
        name: triton_code.machine_code(name, text, folder, major, minor)
        for name, text in triton_code.kernels(source).items()
        if "dropout" in name
    }


def instructions(source: str, folder: Path) -> float:
    (code,) = counted(source, folder).values()
    return code.per_element


@pytest.fixture
def tools() -> None:
    from bench.gpu.machine_code import cuobjdump

    try:
        cuobjdump("--version")
    except SystemExit as error:
        pytest.skip(str(error))


@pytest.mark.parametrize(
    ("block", "dtype", "most"),
    [
        *((block, torch.bfloat16, 0.7) for block in blocks.BLOCKS),
        *((block, torch.float32, 1.0) for block in blocks.BLOCKS),
        ("gelu", torch.float16, 0.7),
    ],
    ids=str,
)
def test_fewer_instructions_than_torchs_dropout(
    tools: None, tmp_path: Path, block: str, dtype: torch.dtype, most: float
) -> None:
    """Forward, on sm_90, in the configuration that the heuristics choose first."""
    own, ours = (generated(block, dtype, mine)[0] for mine in (False, True))
    assert instructions(ours, tmp_path) <= most * instructions(own, tmp_path)


@pytest.mark.parametrize("block", blocks.BLOCKS)
def test_wide_accesses_and_no_spills(tools: None, tmp_path: Path, block: str) -> None:
    """Forward and backward."""
    for source in generated(block, torch.bfloat16, ours=True):
        for code in counted(source, tmp_path).values():
            assert code.local_bytes == 0
            assert sum(".128" in access for access in code.accesses) >= 3


@pytest.mark.parametrize(("major", "minor"), [(7, 5), (8, 0), (10, 0), (12, 0)])
def test_other_architectures(tools: None, tmp_path: Path, major: int, minor: int) -> None:
    source = generated("gelu", torch.bfloat16, ours=True)[0]
    (code,) = counted(source, tmp_path, major, minor).values()
    assert code.local_bytes == 0
    assert sum(".128" in access for access in code.accesses) >= 3
