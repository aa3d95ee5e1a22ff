"""What Inductor makes of a function for a CUDA device, without one: sources, results, machine code.

A graph is traced on the CPU and its inputs are then declared to be on CUDA, so that Inductor writes
Triton. Triton's interpreter runs those kernels on the CPU (in a process with TRITON_INTERPRET=1),
and its compiler makes machine code of them for the device that is declared.
"""

from __future__ import annotations

import contextlib
import importlib.util
import re
import types
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import torch
import torch._functorch.config as functorch_config
import torch._inductor.config as inductor_config
import torch.utils._pytree as pytree
from torch._dynamo.device_interface import CudaInterface, caching_worker_device_properties
from torch._subclasses import fake_tensor
from torch.utils._triton import has_triton

DEVICE = torch.device("cuda:0")
_KERNEL = re.compile(
    r"(\w+) = async_compile\.triton\('\w+', '''(.*?)''', device_str='cuda'\)", re.S
)


def _properties(major: int, minor: int) -> types.SimpleNamespace:
    """Of an H100, but for the architecture."""
    return types.SimpleNamespace(
        name="declared",
        major=major,
        minor=minor,
        multi_processor_count=132,
        regs_per_multiprocessor=65536,
        max_threads_per_multi_processor=2048,
        max_threads_per_block=1024,
        warp_size=32,
        shared_memory_per_block=49152,
        shared_memory_per_block_optin=232448,
        shared_memory_per_multiprocessor=233472,
        total_memory=80 * 2**30,
        L2_cache_size=50 * 2**20,
        gcnArchName="",
        is_integrated=False,
    )


class _Driver:
    """As much of Triton's driver as code generation asks for."""

    def __init__(self, major: int, minor: int) -> None:
        self.capability = 10 * major + minor
        facts = {"max_shared_mem": 232448, "multiprocessor_count": 132, "warpSize": 32}
        self.utils = types.SimpleNamespace(get_device_properties=lambda device: facts)

    def get_current_target(self) -> Any:
        from triton.backends.compiler import GPUTarget

        return GPUTarget("cuda", self.capability, 32)

    def get_current_device(self) -> int:
        return 0

    def get_active_torch_device(self) -> torch.device:
        return torch.device("cpu")


@contextlib.contextmanager
def declared_device(major: int = 9, minor: int = 0) -> Iterator[None]:
    """Whoever asks, is told that there is one CUDA device, of this architecture."""
    from torch._inductor.runtime import hints, triton_helpers
    from triton.runtime.driver import driver

    properties = _properties(major, minor)
    with contextlib.ExitStack() as stack:
        for owner, answers in (
            (
                torch.cuda,
                {
                    "is_available": lambda: True,
                    "device_count": lambda: 1,
                    "current_device": lambda: 0,
                    "get_device_properties": lambda *_: properties,
                    "get_device_capability": lambda *_: (major, minor),
                    "get_rng_state": lambda *_: torch.zeros(16, dtype=torch.uint8),
                    "set_rng_state": lambda *_: None,
                    "synchronize": lambda *_: None,
                    "_exchange_device": lambda *_: 0,
                    "_maybe_exchange_device": lambda *_: 0,
                },
            ),
            (
                CudaInterface,
                {
                    "current_device": staticmethod(lambda: 0),
                    "device_count": staticmethod(lambda: 1),
                    "get_device_properties": staticmethod(lambda *_: properties),
                },
            ),
            (triton_helpers, {"set_driver_to_gpu": lambda: None}),
            (driver, {"_active": _Driver(major, minor)}),
        ):
            stack.enter_context(mock.patch.multiple(owner, **answers))
        stack.enter_context(mock.patch.object(fake_tensor, "init_gpu_context", create=True))
        workers = {"cuda": [properties]}
        stack.enter_context(mock.patch.dict(caching_worker_device_properties, workers))
        for cached in (hints.DeviceProperties.create, has_triton):
            forget = getattr(cached, "cache_clear", lambda: None)
            forget()
            stack.callback(forget)
        yield


def _declare_inputs(gm: torch.fx.GraphModule, inputs: Sequence[Any]) -> list[Any]:
    """The inputs of a graph that was traced on the CPU, on CUDA, and the graph with them."""

    def moved(argument: Any) -> Any:
        return DEVICE if isinstance(argument, torch.device) else argument

    for node in gm.graph.nodes:
        node.args, node.kwargs = pytree.tree_map(moved, (node.args, node.kwargs))
    gm.recompile()
    tensors = [each for each in inputs if isinstance(each, torch.Tensor)]
    with tensors[0].fake_mode:
        return [x.to(DEVICE) if isinstance(x, torch.Tensor) else x for x in inputs]


def generate(function: Callable[..., Any], *inputs: Any, dynamic: bool = False) -> list[str]:
    """What Inductor writes for CUDA: the source of the forward graph, then of the backward one.

    Args:
        function: traced without a graph break.
        inputs: tensors on the CPU; some require grad if a backward graph is wanted.
        dynamic: whether sizes become symbols.
    """
    from torch._inductor.compile_fx import compile_fx, compile_fx_inner
    from torch._inductor.graph import GraphLowering

    sources: list[str] = []

    class Written(Exception):
        pass

    def write(graph: GraphLowering) -> Any:
        code, *_ = graph.codegen()
        sources.append(getattr(code, "value", code))
        raise Written

    def inner(gm: torch.fx.GraphModule, example_inputs: Sequence[Any], **kwargs: Any) -> Any:
        count = len(sources)
        with mock.patch.object(GraphLowering, "compile_to_module", write), declared_device():
            try:
                compile_fx_inner(gm, _declare_inputs(gm, example_inputs), **kwargs)
            except Exception:  # Inductor wraps ours
                if len(sources) == count:
                    raise

        def never_run(args: Any) -> None:
            raise AssertionError

        never_run._boxed_call = True  # type: ignore[attr-defined]
        return never_run

    def backend(gm: torch.fx.GraphModule, example_inputs: Any) -> Callable[..., Any]:
        compile_fx(gm, example_inputs, inner_compile=inner)
        return gm.forward

    torch._dynamo.reset()
    with (
        functorch_config.patch(enable_autograd_cache=False, force_non_lazy_backward_lowering=True),
        inductor_config.patch(fx_graph_cache=False, compile_threads=1, online_softmax=False),
    ):
        torch.compile(function, backend=backend, fullgraph=True, dynamic=dynamic)(*inputs)
    return sources


def kernels(source: str) -> dict[str, str]:
    """The Triton kernels in a source, by name."""
    return dict(_KERNEL.findall(source))


def externs(source: str) -> list[str]:
    """The calls of operators in a source."""
    code = re.sub("#.*", "", _KERNEL.sub("", source))
    return re.findall(r"\b(?:torch\.ops|aten|extern_kernels)\.[\w.]+(?=\()", code)


# Triton's interpreter.

_BLOCKS = {"XBLOCK": 256, "YBLOCK": 16, "R0_BLOCK": 64}


class _Interpreted:
    """A kernel of Inductor with the launch that its heuristics would make, in fixed blocks."""

    def __init__(self, name: str, source: str, folder: Path) -> None:
        head, _, body = source.partition("@triton_heuristics.")
        head = head.replace("triton_helpers.set_driver_to_gpu()", "")
        body = body[body.index("@triton.jit") :]
        body = re.sub(r"libdevice\.(exp|rsqrt)\(", r"tl.\1(", body)  # no library on the CPU
        path = folder / f"{name}.py"
        path.write_text(f"{head}\n{body}")  # the interpreter reads it
        self.kernel = getattr(_imported(path), name)
        names = re.findall(r"(\w+) ?: ?tl\.constexpr", body.split(":\n")[0])
        self.blocks = {name: _BLOCKS[name] for name in names}

    def run(self, *args: Any, stream: Any) -> None:
        named = dict(zip(self.kernel.arg_names, args, strict=False))
        grid = [
            -(-named.get(f"{axis}numel", 1) // self.blocks.get(f"{axis.upper()}BLOCK", 1))
            for axis in "xy"
        ]
        self.kernel[tuple(grid)](*args, **self.blocks)


def _imported(path: Path) -> types.ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def run_interpreted(source: str, inputs: Sequence[Any], folder: Path) -> list[Any]:
    """The outputs of a graph for inputs on the CPU."""
    code = _KERNEL.sub(r"\1 = interpreted['\1']", source)
    code = re.sub(r"torch\.cuda\._DeviceGuard\(\d\)", "contextlib.nullcontext()", code)
    code = code.replace("torch.cuda.set_device(0)", "pass")
    interpreted = {name: _Interpreted(name, text, folder) for name, text in kernels(source).items()}
    module: dict[str, Any] = {"__name__": "generated", "interpreted": interpreted}
    exec("import contextlib\n" + code, module)
    module["empty_strided_cuda"] = lambda size, stride, dtype: torch.empty_strided(
        size, stride, dtype=dtype
    )
    module["get_raw_stream"] = lambda device: 0
    return list(module["call"](list(inputs)))


# Triton's compiler.


@dataclass(frozen=True)
class MachineCode:
    """Of a kernel, in the configuration that the heuristics choose first.

    Attributes:
        per_element: instructions of a thread for an element; a loop counts once.
        accesses: names of the instructions that load from or store to global memory.
        local_bytes: kept in local memory, spills among them.
    """

    per_element: float
    registers: int
    local_bytes: int
    accesses: list[str]


def machine_code(name: str, source: str, folder: Path, major: int, minor: int) -> MachineCode:
    from torch._inductor.runtime import triton_heuristics

    from bench.gpu.machine_code import cuobjdump

    path = folder / f"{name}_{major}{minor}.py"
    path.write_text(re.sub(r"cc=\d+, major=\d+", f"cc={10 * major + minor}, major={major}", source))
    binaries: list[Any] = []
    compile = triton_heuristics.triton.compile

    def keep(*args: Any, **kwargs: Any) -> Any:
        binaries.append(compile(*args, **kwargs))
        return binaries[-1]

    with declared_device(major, minor):
        kernel = getattr(_imported(path), name)
        config = kernel.configs[0]
        with (
            mock.patch.object(triton_heuristics.triton, "compile", keep),
            contextlib.suppress(Exception),  # what comes after: it loads the binary
        ):
            kernel._precompile_config(config)
    cubin = path.with_suffix(".cubin")
    cubin.write_bytes(binaries[0].asm["cubin"])
    code = re.findall(
        r"/\*[0-9a-f]{4,}\*/\s+(?:@!?U?P\d+\s+)?(\S+)", cuobjdump("-sass", str(cubin))
    )
    usage = dict(re.findall(r"(REG|LOCAL|STACK):(\d+)", cuobjdump("-res-usage", str(cubin))))
    persistent = re.search(r"R0_BLOCK: tl\.constexpr = (\d+)", source)
    elements = int(persistent[1]) if persistent else 1
    for block in config.kwargs.values():
        elements *= block
    executed = [each for each in code if not each.startswith("NOP")]
    return MachineCode(
        per_element=len(executed) * 32 * config.num_warps / elements,
        registers=int(usage["REG"]),
        local_bytes=int(usage["LOCAL"]) + int(usage["STACK"]),
        accesses=[each for each in executed if re.match("LDG|STG|LD\\.|ST\\.", each)],
    )
