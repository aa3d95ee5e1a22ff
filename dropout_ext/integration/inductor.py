"""Inductor: compiled graphs fuse dropout with its neighbours, under the mask of eager code.

On CUDA the pure operators become loops of Inductor. On the CPU they stay nodes of their own: the
kernel is faster there. Nothing is registered before Inductor is imported, which is slow.
"""

import functools
import hashlib
import importlib.util
import os
import sys
import warnings
from collections.abc import Callable, Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

from dropout_ext import _build
from dropout_ext.integration.torch_private import arguments

_VARIABLE = "DROPOUT_EXT_FUSE"
_ENTRANCE = "torch._inductor.graph"  # whoever lowers a graph imports it
_USED = "strides.py", "torch_private.py"  # by the lowering, beside inductor*.py
_ops = torch.ops.dropout_ext


class _Setting:
    """What decides how a graph is lowered. Part of the key under which it is cached."""

    fuse = True
    devices = frozenset({"cuda"})  # tests add the CPU

    def key(self) -> tuple[bool, list[str], str]:
        return self.fuse, sorted(self.devices), _sources()


setting = _Setting()


class NotALoop(Exception):
    """A call for which no loop of Inductor can be written: the kernel serves it."""


@functools.cache
def _sources() -> str:
    """Stands for this version of the lowering."""
    digest = hashlib.sha256(_build.VERSION.encode())
    folder = Path(__file__).parent
    for path in sorted(folder.glob("inductor*.py")) + [folder / name for name in _USED]:
        digest.update(path.read_bytes())
    return digest.hexdigest()


def fuse_in_compiled_graphs(enabled: bool) -> None:
    """Whether Inductor fuses dropout on CUDA with its neighbours. It does by default.

    The mask is that of eager code either way. Fused values can differ from it in the last bit:
    Inductor keeps float16 and bfloat16 in float32 between fused operations, and contracts a
    multiplication and an addition. Unfused values have the bits of eager code.

    Holds for graphs that are compiled from now on, in this process; those that were compiled
    before stay as they are until ``torch.compiler.reset()``. The environment variable
    ``DROPOUT_EXT_FUSE`` (0 or 1) sets it from the start. Caches of Inductor keep both kinds apart.

    Args:
        enabled: False keeps dropout a kernel of its own.

    Raises:
        TypeError: ``enabled`` is not a bool.
    """
    if not isinstance(enabled, bool):
        raise TypeError(f"fuse_in_compiled_graphs: enabled must be a bool, but got {enabled!r}")
    setting.fuse = enabled


def _give_up(reason: Exception) -> None:
    """From now on graphs are not fused; says so once."""
    if setting.fuse:
        setting.fuse = False
        warnings.warn(
            f"dropout_ext: compiled graphs do not fuse dropout, as Inductor of torch "
            f"{torch.__version__} is not the one that was expected: {type(reason).__name__}: "
            f"{reason}. It stays a kernel of its own, with the same mask",
            stacklevel=2,
        )


def _is_fused(device: torch.device) -> bool:
    return setting.fuse and device.type in setting.devices


def _install() -> None:
    """Registers the lowerings, and makes the setting part of the keys of Inductor's caches."""
    try:  # all that may be missing is looked up before anything is changed
        from dropout_ext.integration import inductor_lowering
        from dropout_ext.integration import inductor_private as private

        details, op_types = private.FxGraphHashDetails, private.OpTypes
        replaced: list[tuple[Any, str, Callable[..., Any]]] = [
            (details, "__init__", _with_setting(details.__init__))
        ]
        for name in ("is_recomputable", "is_fusible"):
            replaced.append((op_types, name, _of_the_fused(getattr(op_types, name))))
        lowerings = {}
        for operator, fused in (
            (_ops.dropout.default, inductor_lowering.dropout),
            (_ops.dropout_mask.default, inductor_lowering.dropout_mask),
        ):
            extern = private.fallback_handler(operator, add_to_fallback_set=False)
            register = private.register_lowering(operator, type_promotion_kind=None)
            lowerings[register] = functools.partial(_lower, operator, fused, extern)
        for register, lowered in lowerings.items():
            register(lowered)
    except Exception as missing:
        _give_up(missing)
        return
    for owner, name, function in replaced:
        setattr(owner, name, function)


def _lower(
    operator: Any,
    fused: Callable[..., Any],
    extern: Callable[..., Any],
    first: Any,
    p: Any,
    rng_state: Any,
    **given: Any,
) -> Any:
    """A loop of Inductor's, where the setting wants one and it can be written; else the kernel.

    The kernel is called with all its arguments: AOTInductor counts on it.
    """
    from dropout_ext.integration.inductor_private import GuardOnDataDependentSymNode

    if _is_fused(rng_state.get_device()) and isinstance(p, float):
        try:
            return fused(first, p, rng_state, **given)
        except (NotALoop, GuardOnDataDependentSymNode):
            pass
        except Exception as error:
            _give_up(error)
    return extern(first, p, rng_state, **arguments(operator, (), given))


def _calls_ours(node: torch.fx.Node) -> bool:
    """By the name of its target: an operator, or in Dynamo's graphs all overloads of one."""
    return node.op == "call_function" and str(node.target).startswith("dropout_ext.")


def _with_setting(initialize: Callable[..., None]) -> Callable[..., None]:
    """Of an object whose attributes are hashed for a key: that of a graph that calls ours."""

    @functools.wraps(initialize)
    def initialize_with_setting(
        self: Any, gm: torch.fx.GraphModule, *rest: Any, **more: Any
    ) -> None:
        initialize(self, gm, *rest, **more)
        graphs = (m.graph for m in gm.modules() if isinstance(m, torch.fx.GraphModule))
        if any(_calls_ours(node) for graph in graphs for node in graph.nodes):
            self.dropout_ext = setting.key()

    return initialize_with_setting


def _of_the_fused(known: Callable[..., bool]) -> Callable[..., bool]:
    """For the partitioner: what is fused costs little to compute again, and need not be saved."""

    @functools.wraps(known)
    def answer(self: Any, node: torch.fx.Node) -> bool:
        if node.target in (_ops.dropout.default, _ops.dropout_mask.default):
            return _is_fused(node.meta["val"].device) and _is_cheap(node)
        return known(self, node)

    return answer


def _is_cheap(node: torch.fx.Node) -> bool:
    """Whether it shares Philox calls as `inductor_lowering` wants it, as far as is known here."""
    value = node.meta["val"]
    call = arguments(node.target, node.args, node.kwargs)
    strides, batch = call["mask_strides"], call["rng_state"].meta["val"].dim() - 1
    if value.dtype.itemsize >= 4:
        return True
    if strides is None:
        return batch == 0 and bool(value.is_contiguous())
    pairs = [*zip(strides, value.shape, strict=True)][batch:]
    shared = [size for stride, size in pairs if isinstance(stride, int) and stride == 0]
    return any(not isinstance(size, int) or size != 1 for size in shared)


class _WhenImported(MetaPathFinder):
    """Finds nothing itself: it has the module found as ever, and calls `_install` once it ran."""

    finds = False

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name != _ENTRANCE or self.finds:
            return None
        self.finds = True
        try:
            spec = importlib.util.find_spec(name)
        finally:
            self.finds = False
        if spec is not None and spec.loader is not None:
            loader, run = spec.loader, spec.loader.exec_module

            def run_and_install(module: ModuleType) -> None:
                del loader.exec_module  # of the class again, which serves other modules too
                run(module)
                if self in sys.meta_path:  # not before: an import that failed may be tried again
                    sys.meta_path.remove(self)
                    _install()

            loader.exec_module = run_and_install  # type: ignore[method-assign]
        return spec


def register() -> None:
    """Registers the lowerings, now or as soon as Inductor is imported."""
    value = os.environ.get(_VARIABLE, "1")
    if value not in ("0", "1"):
        raise ValueError(f"{_VARIABLE} must be 0 or 1, but is {value!r}")
    setting.fuse = value == "1"
    if _ENTRANCE in sys.modules:
        _install()
    else:
        sys.meta_path.insert(0, _WhenImported())
