"""The CUDA kernels and their launcher as a host library, run on torch tensors.

Also counts what a GPU would see: see emulation/counts.h.
"""

from __future__ import annotations

import ctypes
import os
import pathlib
import shutil
import subprocess
import sysconfig
from collections.abc import Sequence
from typing import Any

import torch

from tests.helpers import reference
from tests.helpers.compare import state

HERE = pathlib.Path(__file__).parent
CSRC = HERE.parents[1] / "csrc"
FLAGS = ["-std=c++20", "-O2", "-Wall", "-Wextra", "-Werror", "-Wno-unknown-pragmas"]
FLAGS += ["-ffp-contract=off", "-fPIC", "-shared", "-U_FORTIFY_SOURCE"]
DTYPES = {
    torch.float64: 0,
    torch.float32: 1,
    torch.bfloat16: 2,
    torch.float16: 3,
    torch.bool: 4,
}


RUN, COUNT, PLAN = range(3)


class Counts(ctypes.Structure):
    """emulation::Counts."""

    _fields_ = [
        (name, ctypes.c_int64)
        for name in (
            "load_sectors", "store_sectors", "accesses", "idle_lanes", "calls", "applied",
            "threads", "busy_threads", "launches", "blocks", "parameter_bytes",
        )
    ]  # fmt: skip


class Emulator:
    """The kernels of a host library, on tensors."""

    def __init__(self, library: pathlib.Path) -> None:
        self._library: Any = ctypes.CDLL(str(library))

    def dropout(
        self,
        x: torch.Tensor | None,
        out: torch.Tensor,
        p: float,
        rng_state: tuple[int, int],
        *,
        strides: Sequence[int] | None = None,
        base: int = 0,
        coefficients: tuple[float, float, float] | None = None,
        captured: tuple[torch.Tensor, int] | None = None,
        samples: tuple[int, int, int, int] = (1, 0, 0, 0),
    ) -> torch.Tensor:
        """Writes into `out` and returns the rng_state that the kernel wrote down.

        `captured`: what graph capture gives instead of rng_state, (seed and extragraph offset in
        device memory, intragraph offset). `samples`: how many, and the steps between their
        inputs, outputs and states; `x` and `out` are the first.
        """
        source = out if x is None else x
        mask_strides = reference.row_major(out.shape) if strides is None else strides
        rows = zip(out.shape, source.stride(), out.stride(), mask_strides, strict=True)
        dims = [number for row in rows for number in row]
        state_in, intragraph = captured or (state(rng_state), 0)
        written = torch.zeros(2, dtype=torch.int64)
        error = self._library.emulate(
            ctypes.c_void_p(source.data_ptr()),
            ctypes.c_void_p(out.data_ptr()),
            DTYPES[out.dtype],
            out.dim(),
            (ctypes.c_int64 * max(1, len(dims)))(*dims),
            ctypes.c_uint64(base),
            ctypes.c_double(p),
            *(ctypes.c_double(number) for number in coefficients or (reference.scale(p), 0, 0)),
            ctypes.c_void_p(state_in.data_ptr()),
            ctypes.c_int64(intragraph),
            captured is not None,
            ctypes.c_void_p(written.data_ptr()),
            (ctypes.c_int64 * 4)(*samples),
        )
        assert error == 0, "lanes of a warp did not meet at an exchange"
        return written

    def write_states(
        self, state_in: torch.Tensor, intragraph: int, capture: bool, count: int
    ) -> torch.Tensor:
        written = torch.zeros(count, 2, dtype=torch.int64)
        error = self._library.emulate_write_states(
            ctypes.c_void_p(state_in.data_ptr()),
            ctypes.c_int64(intragraph),
            capture,
            ctypes.c_int64(count),
            ctypes.c_void_p(written.data_ptr()),
        )
        assert error == 0
        return written

    def fold_in(self, states: torch.Tensor, numbers: torch.Tensor) -> torch.Tensor:
        """For contiguous states, [count, 2], and as many numbers."""
        folded = torch.zeros_like(states)
        error = self._library.emulate_fold_in(
            ctypes.c_void_p(states.data_ptr()),
            ctypes.c_void_p(numbers.data_ptr()),
            ctypes.c_int64(len(numbers)),
            ctypes.c_void_p(folded.data_ptr()),
        )
        assert error == 0
        return folded

    def counts(self, mode: int) -> Counts:
        """What the kernels did since the last call; and from now on run them (RUN), count as well
        (COUNT), or launch them without running (PLAN)."""
        counts = Counts()
        self._library.emulate_counts(mode, ctypes.byref(counts))
        return counts


def build(folder: pathlib.Path) -> Emulator:
    compiler = os.environ.get("CXX") or sysconfig.get_config_var("CXX").split()[0]
    if shutil.which(compiler) is None:
        compiler = "c++"
    library = folder / "emulation.so"
    source = HERE / "emulation" / "emulate.cpp"
    command = [compiler, *FLAGS, f"-I{HERE / 'emulation'}", f"-I{CSRC}", str(source)]
    subprocess.run([*command, "-o", str(library)], check=True)
    return Emulator(library)
