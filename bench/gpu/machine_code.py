"""``python -m bench.gpu.machine_code``: what the compiler made of the CUDA kernels. Needs no GPU.

Reads the installed extension with cuobjdump and nvdisasm, of the CUDA toolkit or of the packages
nvidia-cuda-cuobjdump and nvidia-cuda-nvdisasm. Prints for each kernel its registers, the bytes it
keeps in local memory and, for the kernels along rows, the instructions that a thread executes for
an element of a long row: those of the shortest way through the loop that loads and stores at the
full width (no tie, no end of a row). Two kinds of which a multiprocessor executes half as many a
cycle are counted apart: integer addition, comparison, logic, selection and conversion (ALU), and
integer multiplication.
"""

import argparse
import itertools
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import networkx

from bench.extension import dropout_ext
from bench.tables import as_frame, text

_KERNEL = re.compile(
    r"dropout_(?P<loop>rows|strided)INS_\d+(?P<rule>ScaleShift|Scale|Mask)"
    r"(?:I(?:NS_\d+(?P<half>BFloat16|Float16)E|(?P<wide>[df]))E)?E"
    r"Li(?P<width>\d+)E(?:Lb(?P<single>[01])E)?"
)
_DTYPES = {"d": ("float64", 8), "f": ("float32", 4), None: ("bool", 1)}
_DTYPES |= {"BFloat16": ("bfloat16", 2), "Float16": ("float16", 2)}
_ALU = re.compile(r"(P?LOP3|[IF]SETP|F?SEL|SHF|PRMT|VIADD|IADD3?|LEA|[RP]2[PR]|F2FP|MOV)\b")
_MULTIPLY = re.compile(r"IMAD(?!\.(MOV|SHL|IADD|U32 R\d+, RZ, RZ))")
_LEAVES = re.compile("BRA|EXIT|RET")


@dataclass(frozen=True)
class Kernel:
    """``width``: elements of an access. The last three are per element; None if no way loads and
    stores at the full width alone, and for strided kernels, which have no such way."""

    loop: str
    rule: str
    dtype: str
    width: int
    single_row: bool | None
    registers: int
    local_bytes: int
    instructions: float | None = None
    alu: float | None = None
    multiplications: float | None = None


@dataclass(frozen=True)
class Instruction:
    address: int
    guarded: bool
    text: str
    target: int | None


def cuobjdump(*arguments: str) -> str:
    """What the tool prints. It asks nvdisasm for instructions."""
    folders = [os.environ.get("PATH", ""), os.path.join(os.environ.get("CUDA_HOME", ""), "bin")]
    folders += [str(folder) for entry in sys.path for folder in Path(entry).glob("nvidia/*/bin")]
    path = os.pathsep.join(folders)
    for tool in ("nvdisasm", "cuobjdump"):
        found = shutil.which(tool, path=path)
        if found is None:
            raise SystemExit(f"{tool} was not found: it is part of the CUDA toolkit (CUDA_HOME)")
    environment = os.environ | {"PATH": path}
    done = subprocess.run(
        [str(found), *arguments], capture_output=True, text=True, check=False, env=environment
    )
    if done.returncode:
        raise SystemExit(f"cuobjdump failed: {done.stderr.strip()}")
    return done.stdout


def _functions(printed: str, start: str) -> dict[str, str]:
    parts = re.split(start, printed)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def _instructions(code: str) -> list[Instruction]:
    found = []
    for at, guard, words in re.findall(r"/\*([0-9a-f]{4,})\*/\s+(@!?U?P\d+\s+)?(.+?)\s*;", code):
        jump = re.match(r"BRA.*\b0x([0-9a-f]+)$", words)
        found.append(Instruction(int(at, 16), bool(guard), words, jump and int(jump[1], 16)))
    return found


def _flow(code: Sequence[Instruction]) -> tuple[list[list[Instruction]], networkx.DiGraph]:
    """Basic blocks in the order of their addresses, and which may follow which."""
    starts = {code[0].address, *(i.target for i in code if i.target is not None)}
    starts |= {b.address for a, b in itertools.pairwise(code) if _LEAVES.match(a.text)}
    blocks: list[list[Instruction]] = []
    for instruction in code:
        if instruction.address in starts:
            blocks.append([])
        blocks[-1].append(instruction)
    index = {block[0].address: k for k, block in enumerate(blocks)}
    flow = networkx.DiGraph()
    flow.add_nodes_from(index.values())
    for k, block in enumerate(blocks):
        last = block[-1]
        leaves = _LEAVES.match(last.text) and not last.guarded and ", " not in last.text
        if not leaves and k + 1 < len(blocks):
            flow.add_edge(k, k + 1, weight=len(block))
        if last.target is not None:
            flow.add_edge(k, index[last.target], weight=len(block))
    return blocks, flow


def _loop(code: Sequence[Instruction], store: str) -> list[Instruction] | None:
    """The shortest way from the head of a loop to its end by a whole access of this kind."""
    blocks, flow = _flow(code)
    ways = []
    for end, head in [edge for edge in flow.edges if edge[1] <= edge[0]]:
        body = flow.copy()
        body.remove_edges_from(list(flow.in_edges(head)))
        for k, block in enumerate(blocks):
            whole = any(re.match(store, i.text) and not i.guarded for i in block)
            if whole and networkx.has_path(body, head, k) and networkx.has_path(body, k, end):
                first = networkx.shortest_path(body, head, k, weight="weight")
                second = networkx.shortest_path(body, k, end, weight="weight")
                ways.append([i for part in (*first, *second[1:]) for i in blocks[part]])
    return min(ways, key=len, default=None)


def _counts(way: Sequence[Instruction], width: int, kind: str, loads_each: int) -> list[float]:
    """Per element: all, ALU, multiplications; nothing if an access has another width."""
    accesses = [[i for i in way if i.text.startswith(name)] for name in ("STG.E", "LDG.E")]
    stores = len(accesses[0])
    whole = all(re.match(rf"(STG|LDG)\.E{kind}", i.text) for part in accesses for i in part)
    if not stores or not whole or len(accesses[1]) != loads_each * stores:
        return []
    alu, multiply = (sum(bool(k.match(i.text)) for i in way) for k in (_ALU, _MULTIPLY))
    return [count / (width * stores) for count in (len(way), alu, multiply)]


def _kernel(name: str, code: str, resources: str) -> Kernel | None:
    found = _KERNEL.search(name)
    if found is None:
        return None
    dtype, size = _DTYPES[found["half"] or found["wide"]]
    width, single = int(found["width"]), {"1": True, "0": False}.get(found["single"])
    registers, stack, local = (
        int(re.findall(rf"{name}:(\d+)", resources)[0]) for name in ("REG", "STACK", "LOCAL")
    )
    counts: list[float] = []
    if found["loop"] == "rows":  # what follows LDG.E or STG.E for so many bytes
        kinds = {1: r"\.U8", 2: r"\.U16", 4: r"(?!\.(?:U?\d))"}
        kind = kinds.get(width * size, rf"\.{8 * width * size}\b")
        way = _loop(_instructions(code), rf"STG\.E{kind}") or []
        counts = _counts(way, width, kind, loads_each=found["rule"] != "Mask")
    place = (found["loop"], found["rule"], dtype, width, single)
    return Kernel(*place, registers, stack + local, *counts)


def kernels(library: Path, arch: str) -> list[Kernel]:
    """Those of an architecture, as ``sm_90``, in the library."""
    options = ("-arch", arch, str(library))
    codes = _functions(cuobjdump("-sass", *options), r"Function : (\S+)")
    resources = _functions(cuobjdump("-res-usage", *options), r"Function (\S+):")
    found = (_kernel(name, code, resources[name]) for name, code in codes.items())
    return sorted(filter(None, found), key=lambda k: (k.loop, k.rule, k.dtype, str(k.single_row)))


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints the table."""
    options = argparse.ArgumentParser(prog="python -m bench.gpu.machine_code", description=__doc__)
    options.add_argument("--arch", default="sm_90")
    chosen = options.parse_args(arguments)
    build = dropout_ext.build_info()
    if build["cuda"] is None:
        raise SystemExit("dropout_ext was built without CUDA")
    found = [asdict(kernel) for kernel in kernels(Path(dropout_ext._C.__file__), chosen.arch)]
    print(f"{chosen.arch}, CUDA {build['cuda']}; instructions of a thread per element")
    print("\n".join(text(as_frame(found).round(1).astype(object).fillna(""))))
    return 0


if __name__ == "__main__":
    sys.exit(main())
