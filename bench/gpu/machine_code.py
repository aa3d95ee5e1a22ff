"""``python -m bench.gpu.machine_code``: what the compiler made of the CUDA kernels. Needs no GPU.

Reads the machine code in the installed extension with cuobjdump and nvdisasm, of the CUDA toolkit
or of the packages nvidia-cuda-cuobjdump and nvidia-cuda-nvdisasm. Prints for each kernel its
registers, the bytes it keeps in local memory and, for the kernels along rows, the instructions that
a thread executes for an element of a long row: those of the shortest way through the loop that
loads and stores at the full width (no tie, no end of a row). Two kinds are counted apart, as a
multiprocessor executes half as many of each a cycle as of others (CUDA programming guide,
"Throughput of native arithmetic instructions"): integer addition, comparison, logic, selection and
conversion, called ALU here; and integer multiplication.
"""

import argparse
import itertools
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, astuple, dataclass
from pathlib import Path

import networkx

from bench.extension import dropout_ext
from bench.report import to_json
from bench.tables import as_frame, text

SCHEMA = "dropout_ext.machine_code/2"
_KERNEL = re.compile(
    r"dropout_(?P<loop>rows|strided)INS_\d+(?P<rule>ScaleShift|Scale|Mask)"
    r"(?:I(?:NS_\d+(?P<half>BFloat16|Float16)E|(?P<wide>[df]))E)?E"
    r"Li(?P<width>\d+)E(?:Lb(?P<single>[01])E)?"
)
_DTYPES = {"d": ("float64", 8), "f": ("float32", 4), None: ("bool", 1)}
_DTYPES |= {"BFloat16": ("bfloat16", 2), "Float16": ("float16", 2)}
_ALU = re.compile(r"(P?LOP3|[IF]SETP|F?SEL|SHF|PRMT|VIADD|IADD3?|LEA|[RP]2[PR]|F2FP|MOV)\b")
_MULTIPLY = re.compile(r"IMAD(?!\.(MOV|SHL|IADD|U32 R\d+, RZ, RZ))")


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
    instructions: float | None
    alu: float | None
    multiplications: float | None


@dataclass(frozen=True)
class Instruction:
    address: int
    guarded: bool
    text: str

    @property
    def target(self) -> int | None:
        found = re.match(r"BRA.*\b0x([0-9a-f]+)$", self.text)
        return int(found[1], 16) if found else None


def cuobjdump(*arguments: str) -> str:
    """What the tool prints. It asks nvdisasm for instructions."""
    folders = [os.environ.get("PATH", ""), os.path.join(os.environ.get("CUDA_HOME", ""), "bin")]
    folders += [str(folder) for entry in sys.path for folder in Path(entry).glob("nvidia/*/bin")]
    path = os.pathsep.join(folders)
    for tool in ("cuobjdump", "nvdisasm"):
        if shutil.which(tool, path=path) is None:
            raise SystemExit(f"{tool} was not found: it is part of the CUDA toolkit (CUDA_HOME)")
    done = subprocess.run(
        [shutil.which("cuobjdump", path=path) or "", *arguments],
        capture_output=True, text=True, check=False, env=os.environ | {"PATH": path},
    )  # fmt: skip
    if done.returncode:
        raise SystemExit(f"cuobjdump failed: {done.stderr.strip()}")
    return done.stdout


def _functions(printed: str, start: str) -> dict[str, str]:
    parts = re.split(start, printed)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def _instructions(code: str) -> list[Instruction]:
    lines = re.findall(r"/\*([0-9a-f]{4,})\*/\s+(@!?U?P\d+\s+)?(.+?)\s*;", code)
    return [Instruction(int(at, 16), bool(guard), text) for at, guard, text in lines]


def _loop(code: Sequence[Instruction], store: str) -> list[Instruction] | None:
    """The shortest way from the head of a loop to its end by a whole access of this kind."""
    jumps = re.compile("BRA|EXIT|RET")
    starts = {code[0].address, *(i.target for i in code if i.target is not None)}
    pairs = itertools.pairwise(code)
    starts |= {after.address for before, after in pairs if jumps.match(before.text)}
    blocks: list[list[Instruction]] = []
    for instruction in code:
        if instruction.address in starts:
            blocks.append([])
        blocks[-1].append(instruction)
    index = {block[0].address: k for k, block in enumerate(blocks)}
    graph = networkx.DiGraph()
    for k, block in enumerate(blocks):
        last = block[-1]
        goes_on = last.guarded or ", " in last.text or not jumps.match(last.text)
        after = [k + 1] if goes_on and k + 1 < len(blocks) else []
        after += [] if last.target is None else [index[last.target]]
        graph.add_edges_from(((k, other) for other in after), weight=len(block))
    ways = []
    for end, head in [edge for edge in graph.edges if edge[1] <= edge[0]]:
        body = graph.copy()
        body.remove_edges_from(list(graph.in_edges(head)))
        for k, block in enumerate(blocks):
            whole = any(re.match(store, i.text) and not i.guarded for i in block)
            if whole and networkx.has_path(body, head, k) and networkx.has_path(body, k, end):
                first = networkx.shortest_path(body, head, k, weight="weight")
                second = networkx.shortest_path(body, k, end, weight="weight")
                ways.append([i for part in (*first, *second[1:]) for i in blocks[part]])
    return min(ways, key=len, default=None)


def _access(size: int) -> str:
    """What follows ``LDG.E`` or ``STG.E`` for so many bytes, as a pattern."""
    return {1: r"\.U8", 2: r"\.U16", 4: r"(?!\.(?:U?\d))"}.get(size, rf"\.{8 * size}\b")


def _kernel(name: str, code: str, resources: str) -> Kernel | None:
    found = _KERNEL.search(name)
    if found is None:
        return None
    dtype, size = _DTYPES[found["half"] or found["wide"]]
    width = int(found["width"])
    registers, stack, local = (
        int(re.findall(rf"{name}:(\d+)", resources)[0]) for name in ("REG", "STACK", "LOCAL")
    )
    counts: list[float] = []
    if found["loop"] == "rows":
        kind = _access(width * size)
        way = _loop(_instructions(code), rf"STG\.E{kind}") or []
        stores = [i for i in way if i.text.startswith("STG.E")]
        loads = [i for i in way if i.text.startswith("LDG.E")]
        wide = [i for i in (*stores, *loads) if re.match(rf"(STG|LDG)\.E{kind}", i.text)]
        reads = found["rule"] != "Mask"
        if way and len(wide) == (1 + reads) * len(stores) == len(stores) + len(loads):
            elements = width * len(stores)
            alu, multiply = (sum(bool(k.match(i.text)) for i in way) for k in (_ALU, _MULTIPLY))
            counts = [count / elements for count in (len(way), alu, multiply)]
    single = None if found["single"] is None else found["single"] == "1"
    place = (found["loop"], found["rule"], dtype, width, single)
    return Kernel(*place, registers, stack + local, *(counts or (None, None, None)))


def kernels(library: Path, arch: str) -> list[Kernel]:
    """Those of an architecture, as ``sm_90``, in the library."""
    options = ("-arch", arch, str(library))
    codes = _functions(cuobjdump("-sass", *options), r"Function : (\S+)")
    resources = _functions(cuobjdump("-res-usage", *options), r"Function (\S+):")
    found = [_kernel(name, code, resources[name]) for name, code in codes.items()]
    return sorted(filter(None, found), key=lambda k: (*map(str, astuple(k)[:3]), str(k.single_row)))


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints the table, writes the figures."""
    options = argparse.ArgumentParser(prog="python -m bench.gpu.machine_code", description=__doc__)
    options.add_argument("--arch", default="sm_90")
    options.add_argument("--json", type=Path, metavar="FILE")
    chosen = options.parse_args(arguments)
    build = dropout_ext.build_info()
    if build["cuda"] is None:
        raise SystemExit("dropout_ext was built without CUDA")
    found = [asdict(kernel) for kernel in kernels(Path(dropout_ext._C.__file__), chosen.arch)]
    print(f"{chosen.arch}, CUDA {build['cuda']}; instructions of a thread per element")
    print("\n".join(text(as_frame(found).round(1).astype(object).fillna(""))))
    if chosen.json:
        content = {"schema": SCHEMA, "arch": chosen.arch, "build": build, "kernels": found}
        chosen.json.write_text(to_json(content))
    return 0


if __name__ == "__main__":
    sys.exit(main())
