"""The machine code of the CUDA kernels, which needs no GPU to be read.

Catches: a change of the source of which the compiler makes narrow accesses, local memory, or many
more instructions than it made before.
"""

from __future__ import annotations

import functools
from pathlib import Path

import pytest

import dropout_ext
from bench import machine_code

ARCH = "sm_90"


@functools.cache
def kernels() -> list[machine_code.Kernel]:
    build = dropout_ext.build_info()
    if build["cuda"] is None or "9.0" not in [arch.split("+")[0] for arch in build["cuda_archs"]]:
        pytest.skip("dropout_ext was built without code for sm_90")
    try:
        return machine_code.kernels(Path(dropout_ext._C.__file__), ARCH)
    except SystemExit as error:
        if "not found" not in str(error):
            raise
        pytest.skip(str(error))


def test_nothing_is_kept_in_local_memory() -> None:
    assert len(kernels()) == 52
    assert [kernel for kernel in kernels() if kernel.local_bytes] == []


@pytest.mark.parametrize(
    ("dtype", "width", "most"),
    [("bfloat16", 8, 19), ("float16", 8, 19), ("float32", 4, 27), ("float64", 2, 30)],
)
def test_instructions_of_long_rows(dtype: str, width: int, most: float) -> None:
    """With CUDA 13.0: 17.4 of 16 bits, 24.5 of 32, 27.0 of 64."""
    (kernel,) = (
        kernel
        for kernel in kernels()
        if (kernel.loop, kernel.rule, kernel.dtype, kernel.width, kernel.single_row)
        == ("rows", "Scale", dtype, width, True)
    )
    assert kernel.instructions is not None, "no way that loads and stores at the full width alone"
    assert kernel.instructions <= most


SMALL_LOOP = """
        /*0000*/                   MOV R1, c[0x0][0x28] ;    /* 0x00 */
        /*0010*/                   LDG.E.128 R4, [R2] ;      /* 0x00 */
        /*0020*/              @!P0 BRA 0x50 ;                /* 0x00 */
        /*0030*/                   STG.E.U16 [R2], R4 ;      /* 0x00 */
        /*0040*/                   BRA 0x80 ;                /* 0x00 */
        /*0050*/                   IADD3 R4, R4, R4, RZ ;    /* 0x00 */
        /*0060*/                   LOP3.LUT R4, R4, R4, RZ ; /* 0x00 */
        /*0070*/                   STG.E.128 [R2], R4 ;      /* 0x00 */
        /*0080*/               @P1 BRA 0x10 ;                /* 0x00 */
        /*0090*/                   EXIT ;                    /* 0x00 */
"""


@pytest.mark.parametrize(("store", "length"), [(r"STG\.E\.128", 6), (r"STG\.E\.U16", 5)])
def test_the_way_through_a_loop(store: str, length: int) -> None:
    way = machine_code._loop(machine_code._instructions(SMALL_LOOP), store)
    assert way is not None and len(way) == length


def test_a_stack_counts_as_local_memory() -> None:
    name = "_ZN7dropout4cuda12dropout_rowsINS_5ScaleIfEELi4ELb1EEEv"
    resources = " REG:40 STACK:256 SHARED:0 LOCAL:0"
    kernel = machine_code._kernel(name, SMALL_LOOP, resources)
    assert kernel is not None
    assert (kernel.registers, kernel.local_bytes) == (40, 256)
    assert kernel.instructions == 6 / 4


def test_a_narrow_load_is_no_way() -> None:
    name = "_ZN7dropout4cuda12dropout_rowsINS_5ScaleIfEELi4ELb1EEEv"
    code = SMALL_LOOP.replace("LDG.E.128", "LDG.E.64")
    kernel = machine_code._kernel(name, code, " REG:40 STACK:0 SHARED:0 LOCAL:0")
    assert kernel is not None and kernel.instructions is None


def test_no_way_stores_so() -> None:
    code = machine_code._instructions(SMALL_LOOP)
    assert machine_code._loop(code, r"STG\.E\.64") is None
