"""``python -m bench.gpu.machine_code``: what the compiler made of the CUDA kernels. Needs no GPU.

Reads the machine code in the installed extension with cuobjdump and nvdisasm, of the CUDA toolkit
or of the packages nvidia-cuda-cuobjdump and nvidia-cuda-nvdisasm. Prints for each kernel its
registers, the bytes it keeps in local memory and the instructions that a thread executes for an
element: those of the shortest way through the loop that loads and stores at the full width (no tie,
no end of a row). That is for input aligned as its output is and, as "shifted", for other input: of
one long row; of long rows and of short ones, without what each dimension costs to find them.
Strided layouts are counted without the draw. Two kinds are counted apart, as a multiprocessor
executes half as many of each a cycle as of others (CUDA programming guide, "Throughput of native
arithmetic instructions"): integer addition, comparison, logic, selection and conversion, called ALU
here; and integer multiplication.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
from collections import deque
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import pandas as pd

from bench.extension import dropout_ext
from bench.tables import text

_KERNEL = re.compile(
    r"dropout_(?P<loop>rows?|strided)INS_\d+(?P<rule>ScaleShift|Scale|Mask)"
    r"(?:I(?:NS_\d+(?P<half>BFloat16|Float16)E|(?P<wide>[df]))E)?E?(?:Li(?P<width>\d+)E)?"
    r"(?:Lb(?P<shifted>[01])E(?:Li(?P<dims>\d+)E))?"
)
_DTYPES = {"d": ("float64", 8), "f": ("float32", 4), "BFloat16": ("bfloat16", 2)} | {
    "Float16": ("float16", 2),
    None: ("bool", 1),
}
_ALU = re.compile(r"(P?LOP3|[IF]SETP|F?SEL|SHF|PRMT|VIADD|IADD3?|LEA|[RP]2[PR]|F2FP|MOV)\b")
_MULTIPLY = re.compile(r"IMAD(?!\.(MOV|SHL|IADD|U32 R\d+, RZ, RZ))")


@dataclass(frozen=True)
class Count:
    """Instructions of a thread per element."""

    instructions: float
    alu: float
    multiplications: float


@dataclass(frozen=True)
class Kernel:
    """``width``: elements of an access. A count is None where no way loads and stores at the full
    width alone, and for kernels that do not serve such input."""

    loop: str
    rule: str
    dtype: str
    width: int
    registers: int
    local_bytes: int
    count: Count | None
    shifted: Count | None


@dataclass(frozen=True)
class Instruction:
    address: int
    guarded: bool
    text: str


def cuobjdump(*arguments: str) -> str:
    """What the tool prints. It asks nvdisasm for instructions."""
    folders = [os.environ.get("PATH", "")]
    folders += [os.path.join(home, "bin") for home in [os.environ.get("CUDA_HOME", "")] if home]
    folders += [str(folder) for entry in sys.path for folder in Path(entry).glob("nvidia/*/bin")]
    path = os.pathsep.join(folders)
    for tool in ("cuobjdump", "nvdisasm"):
        if shutil.which(tool, path=path) is None:
            raise SystemExit(f"{tool} was not found: it is part of the CUDA toolkit (CUDA_HOME)")
    command = [shutil.which("cuobjdump", path=path) or "", *arguments]
    environment = os.environ | {"PATH": path}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    if done.returncode:
        raise SystemExit(f"cuobjdump failed: {done.stderr.strip()}")
    return done.stdout


def _functions(printed: str, start: str) -> dict[str, str]:
    parts = re.split(start, printed)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def _instructions(code: str) -> list[Instruction]:
    lines = re.findall(r"/\*([0-9a-f]{4,})\*/\s+(@!?U?P\d+\s+)?(.+?)\s*;", code)
    return [Instruction(int(at, 16), bool(guard), text) for at, guard, text in lines]


def _follows(code: Sequence[Instruction]) -> list[list[int]]:
    """For each instruction, which may be executed after it."""
    index = {instruction.address: k for k, instruction in enumerate(code)}
    follows = []
    for k, instruction in enumerate(code):
        leaves = re.match("BRA|EXIT|RET", instruction.text)
        goes_on = not leaves or instruction.guarded or ", " in instruction.text
        targets = re.findall(r"^BRA.*\b0x([0-9a-f]+)$", instruction.text)
        after = [k + 1] if goes_on and k + 1 < len(code) else []
        follows.append(after + [index[int(target, 16)] for target in targets])
    return follows


def _loop(
    code: Sequence[Instruction], kind: str, stores: int, loads: int
) -> list[Instruction] | None:
    """The shortest way from the head of a loop to its end with so many accesses of this kind."""
    follows = _follows(code)
    patterns = [re.compile(rf"{name}\.E{kind}") for name in ("STG", "LDG")]
    accesses = [[bool(pattern.match(i.text)) for pattern in patterns] for i in code]
    ways = []
    for end, head in ((k, after) for k in range(len(code)) for after in follows[k] if after <= k):
        start = (head, (0, 0))  # an instruction, and the stores and loads before it
        before = {start: start}
        waiting = deque([start])
        while waiting:
            k, made = state = waiting.popleft()
            made = (min(made[0] + accesses[k][0], stores), min(made[1] + accesses[k][1], loads))
            if k == end and made == (stores, loads):
                way = [k]
                while state != start:
                    state = before[state]
                    way.append(state[0])
                ways.append([code[k] for k in reversed(way)])
                break
            for after in follows[k] if k != end else ():
                if after != head and (after, made) not in before:
                    before[after, made] = state
                    waiting.append((after, made))
    return min(ways, key=len, default=None)


def _access(size: int) -> str:
    """What follows ``LDG.E`` or ``STG.E`` for so many bytes, as a pattern."""
    return {1: r"\.U8", 2: r"\.U16", 4: r"(?!\.(?:U?\d))"}.get(size, rf"\.{8 * size}\b")


def _kernel(name: str, code: str, resources: str) -> Kernel | None:
    found = _KERNEL.search(name)
    if found is None:
        return None
    dtype, size = _DTYPES[found["half"] or found["wide"]]
    loop = "long rows" if int(found["dims"] or 0) else found["loop"]
    reads = found["rule"] != "Mask"
    width = int(found["width"] or min(8, 16 // size))
    registers, stack, local = (
        int(re.findall(rf"{name}:(\d+)", resources)[0]) for name in ("REG", "STACK", "LOCAL")
    )
    # Accesses of a thread each time around: csrc/kernels/cuda.
    blocks = 2 if found["dims"] and size <= 2 else 1
    accesses = 4 if loop == "strided" else blocks * 8 // width
    instructions = _instructions(code)

    def count(loads: int) -> Count | None:
        way = _loop(instructions, _access(width * size), accesses, loads)
        if way is None:
            return None
        numbers = [len(way), *(sum(bool(k.match(i.text)) for i in way) for k in (_ALU, _MULTIPLY))]
        return Count(*(number / (width * accesses) for number in numbers))

    counts = [count(accesses * reads), count(2 * accesses) if loop == "rows" and reads else None]
    if found["shifted"] == "1":
        counts.reverse()
    return Kernel(loop, found["rule"], dtype, width, registers, stack + local, *counts)


def kernels(library: Path, arch: str) -> list[Kernel]:
    """Those of an architecture, as ``sm_90``, in the library."""
    options = ("-arch", arch, str(library))
    codes = _functions(cuobjdump("-sass", *options), r"Function : (\S+)")
    resources = _functions(cuobjdump("-res-usage", *options), r"Function (\S+):")
    found = [_kernel(name, code, resources[name]) for name, code in codes.items()]
    return sorted(
        (kernel for kernel in found if kernel is not None),
        key=lambda kernel: (kernel.loop, kernel.rule, kernel.dtype, kernel.width),
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints the table."""
    options = argparse.ArgumentParser(prog="python -m bench.gpu.machine_code", description=__doc__)
    options.add_argument("--arch", default="sm_90")
    chosen = options.parse_args(arguments)
    build = dropout_ext.build_info()
    if build["cuda"] is None:
        raise SystemExit("dropout_ext was built without CUDA")
    found = kernels(Path(dropout_ext._C.__file__), chosen.arch)
    print(f"{chosen.arch}, CUDA {build['cuda']}; instructions of a thread per element")
    table = pd.json_normalize([asdict(kernel) for kernel in found])
    table = table.drop(columns=["count", "shifted"], errors="ignore").round(1)
    print("\n".join(text(table.astype(object).fillna(""))))
    return 0


if __name__ == "__main__":
    sys.exit(main())
