"""The machine code of the CUDA kernels, which needs no GPU to be read.

Catches: a change of the source of which the compiler makes narrow accesses, local memory, or many
more instructions than it made before.
"""

from __future__ import annotations

import functools
from pathlib import Path

import pytest

import dropout_ext
from bench.gpu import machine_code

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
    assert len(kernels()) == 4 * 9 + 9 + 16
    assert [kernel for kernel in kernels() if kernel.local_bytes] == []


def test_registers() -> None:
    """Blocks of 256 threads that a multiprocessor holds at once: at least so many."""
    least = {"row": 4, "long rows": 4, "rows": 2, "strided": 3}
    for kernel in kernels():
        per_warp = -(-kernel.registers * 32 // 256) * 256  # granted in pieces of 256
        assert 65536 // (8 * per_warp) >= least[kernel.loop], kernel


def _of(loop: str, dtype: str, width: int) -> list[machine_code.Kernel]:
    """Those that multiply alone: one, or one for aligned and one for other input."""
    wanted = (loop, "Scale", dtype, width)
    return [k for k in kernels() if (k.loop, k.rule, k.dtype, k.width) == wanted]


# With CUDA 13.0; the bars leave a twentieth.
@pytest.mark.parametrize(
    ("loop", "dtype", "width", "most", "most_shifted"),
    [
        ("row", "bfloat16", 8, 17.4, 21.2),
        ("row", "float16", 8, 17.4, 21.7),
        ("row", "float32", 4, 24.5, 29.8),
        ("row", "float64", 2, 27.0, 33.8),
        ("long rows", "bfloat16", 8, 19.5, 23.3),
        ("long rows", "float16", 8, 19.5, 23.8),
        ("long rows", "float32", 4, 27.9, 34.0),
        ("long rows", "float64", 2, 31.6, 37.3),
        ("rows", "bfloat16", 8, 28.9, 33.1),
        ("rows", "float16", 8, 28.9, 33.1),
        ("rows", "float32", 4, 39.7, 47.7),
        ("rows", "float64", 2, 56.2, 114.6),
        ("strided", "bfloat16", 4, 21, None),
        ("strided", "float16", 4, 21, None),
        ("strided", "float32", 2, 34, None),
        ("strided", "float64", 1, 50, None),
        ("strided", "bfloat16", 1, 47, None),
    ],
)
def test_instructions(
    loop: str, dtype: str, width: int, most: float, most_shifted: float | None
) -> None:
    found = _of(loop, dtype, width)
    counts = [kernel.count.instructions for kernel in found if kernel.count]
    assert len(counts) == 1, "no way that loads and stores at the full width alone"
    assert counts[0] <= most
    shifted = [kernel.shifted.instructions for kernel in found if kernel.shifted]
    assert len(shifted) == (most_shifted is not None)
    assert all(count <= (most_shifted or 0) for count in shifted)


@pytest.mark.parametrize("loop", ["row", "long rows"])
def test_long_misaligned_rows_have_instructions_to_spare(loop: str) -> None:
    """On an H100 that copies at full speed, 20 of the ALU fit an element of 16 bits."""
    (count,) = (kernel.shifted for kernel in _of(loop, "bfloat16", 8) if kernel.shifted)
    assert count.alu <= 12


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


@pytest.mark.parametrize(
    ("kind", "loads", "length"), [(r"\.128", 1, 6), (r"\.U16", 0, 5), (r"\.128", 2, None)]
)
def test_the_way_through_a_loop(kind: str, loads: int, length: int | None) -> None:
    code = machine_code._instructions(SMALL_LOOP)
    way = machine_code._loop(code, kind, stores=1, loads=loads)
    assert (None if way is None else len(way)) == length


def _kernel(code: str) -> machine_code.Kernel:
    name = "_ZN7dropout4cuda12dropout_rowsINS_5ScaleIdEEEvPKNT"
    kernel = machine_code._kernel(name, code, " REG:40 STACK:256 SHARED:0 LOCAL:0")
    assert kernel is not None
    return kernel


def test_a_stack_counts_as_local_memory() -> None:
    assert (_kernel(SMALL_LOOP).registers, _kernel(SMALL_LOOP).local_bytes) == (40, 256)


def test_all_accesses_are_wanted() -> None:
    """Four of 16 bytes for eight elements of 64 bits."""
    four = SMALL_LOOP.replace("IADD3 R4, R4, R4, RZ ", "LDG.E.128 R4, [R2] ")
    assert _kernel(SMALL_LOOP).count is None
    assert _kernel(four).count is None


def test_a_narrow_load_is_no_way() -> None:
    code = machine_code._instructions(SMALL_LOOP.replace("LDG.E.128", "LDG.E.64"))
    assert machine_code._loop(code, r"\.128", 1, 1) is None
