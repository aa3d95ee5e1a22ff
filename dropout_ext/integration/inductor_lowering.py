"""``dropout`` and ``dropout_mask`` as loops of Inductor, which it fuses with their neighbours."""

from collections.abc import Callable, Sequence
from typing import Any

import sympy
import torch

from dropout_ext.integration import inductor_mask
from dropout_ext.integration.inductor import NotALoop
from dropout_ext.integration.inductor_mask import ONE, Place, State, threshold, wide
from dropout_ext.integration.inductor_private import Pointwise, V, full, ops
from dropout_ext.integration.strides import row_major

Index = Sequence[Any]  # coordinates, as sympy expressions
Loader = Callable[[Index], Any]
_INT32_MAX = 2**31 - 1


def _loop(device: Any, dtype: torch.dtype, size: Sequence[Any], element: Loader) -> Any:
    """Realized: else a consumer that reads an element several times computes it as often."""
    result: Any = Pointwise.create(device=device, dtype=dtype, inner_fn=element, ranges=list(size))
    result.data.data.inner_fn_opcount()  # runs `element`: what fails in it, fails here
    result.realize()
    return result


def _state_loader(rng_state: Any) -> tuple[Loader, int]:
    """The state of an element, and how many leading dimensions have states of their own."""
    rng_state.realize()
    batch = len(rng_state.get_size()) - 1
    load = rng_state.make_loader()

    def element(index: Index) -> State:
        words = (load([*index[:batch], sympy.Integer(k)]) for k in range(2))
        return State(*(ops.to_dtype(number, torch.uint64) for number in words))

    return element, batch


def _coordinate(index: Any) -> Any:
    """As uint64. A value: what is computed of an index alone becomes an index expression again."""
    value = ops.bitwise_or(ops.index_expr(index, torch.int64), ops.constant(0, torch.int64))
    return ops.to_dtype(value, torch.uint64)


def _place_loader(size: Sequence[Any], strides: Sequence[Any], base: Any, dear: bool) -> Loader:
    """The mask index of an element, in 32 bits where they suffice.

    Inductor computes index expressions in 32 bits where the tensor allows it, whatever the mask
    index; wider ones are computed as values, which it can do with numbers, not with symbols.

    Args:
        dear: the wider ones are not worth it.
    """
    used = [d for d, stride in enumerate(strides) if stride != 0]
    reach = sum((sympy.Max(0, size[d] - 1) * abs(strides[d]) for d in used), sympy.sympify(base))
    sizes = V.graph.sizevars
    # A package of AOTInductor checks no guards.
    fits = sizes.statically_known_true if V.graph.aot_mode else sizes.guard_or_false
    if fits(sympy.Le(reach, _INT32_MAX)):

        def narrow(index: Index) -> Place:
            flat = sum((index[d] * strides[d] for d in used), sympy.sympify(base))
            return inductor_mask.place_of_word(ops.index_expr(flat, torch.int32))

        return narrow
    if dear or any(sympy.sympify(number).free_symbols for number in (base, *strides)):
        raise NotALoop

    def element(index: Index) -> Place:
        flat = wide(int(base))
        for d in used:
            flat = ops.add(flat, ops.mul(_coordinate(index[d]), wide(int(strides[d]))))
        return inductor_mask.place_of_wide(flat)

    return element


def _in_memory_order(strides: Sequence[Any]) -> bool:
    """Do neighbours in memory have neighbouring mask indices? Then they share Philox calls."""
    value = V.graph.current_node.meta["val"]

    def expressions(numbers: Sequence[Any]) -> list[Any]:
        return [n.node.expr if isinstance(n, torch.SymInt) else n for n in numbers]

    equal = V.graph.sizevars.statically_known_equals
    shape, memory = expressions(value.shape), expressions(value.stride())
    return all(equal(shape[d], 1) or equal(s, memory[d]) for d, s in enumerate(strides))


def _keep_loader(
    device: Any,
    dtype: torch.dtype,
    size: Sequence[Any],
    t: int,
    rng_state: Any,
    mask_strides: Any,
    mask_base: Any,
) -> Loader:
    """Is an element kept? Decisions that elements share are made once, by a loop of their own.

    Where each element needs Philox calls of its own, these take longer than to read and write
    16 bits once more, which is what the kernel costs.
    """
    state, batch = _state_loader(rng_state)
    inner = row_major(size[batch:]) if mask_strides is None else mask_strides[batch:]
    strides = [0] * batch + list(inner)
    shared = [d for d in range(batch, len(size)) if strides[d] == 0 and size[d] != 1]
    dear = not shared and dtype.itemsize < 4
    if dear and not _in_memory_order(strides):
        raise NotALoop
    place = _place_loader(size, strides, mask_base, dear)

    def element(index: Index) -> Any:
        return inductor_mask.keep(state(index), place(index), t)

    if not shared:
        return element
    sizes = [1 if d in shared else s for d, s in enumerate(size)]
    load = _loop(device, torch.bool, sizes, element).make_loader()
    return lambda index: load([0 if d in shared else i for d, i in enumerate(index)])


def dropout(
    input: Any,
    p: float,
    rng_state: Any,
    *,
    mask_strides: Any = None,
    mask_base: Any = 0,
    **rule: Any,
) -> Any:
    """See csrc/torch/ops.cpp for the arguments, csrc/core/coefficients.h for the rule."""
    t = threshold(p)
    scale, shift, fill = rule.get("scale"), rule.get("shift", 0.0), rule.get("fill", 0.0)
    if scale is None:
        scale = 1.0 if t == ONE else 1.0 / (1.0 - t / ONE)
    device, dtype, size = input.get_device(), input.get_dtype(), input.get_size()
    if t == ONE:
        return full(size, fill, dtype=dtype, device=device)
    compute = torch.float64 if dtype == torch.float64 else torch.float32
    load = input.make_loader()
    kept = None
    if t > 0:
        kept = _keep_loader(device, dtype, size, t, rng_state, mask_strides, mask_base)

    def element(index: Index) -> Any:
        if kept is None and (scale, shift, fill) == (1.0, 0.0, 0.0):
            return load(index)
        value = ops.mul(ops.to_dtype(load(index), compute), ops.constant(scale, compute))
        if shift != 0 or fill != 0:
            value = ops.add(value, ops.constant(shift, compute))
        if kept is not None:
            value = ops.where(kept(index), value, ops.constant(fill, compute))
        return ops.to_dtype(value, dtype)

    return _loop(device, dtype, size, element)


def dropout_mask(
    size: Sequence[Any], p: float, rng_state: Any, *, mask_strides: Any = None, mask_base: Any = 0
) -> Any:
    """See csrc/torch/ops.cpp for the arguments."""
    t, device = threshold(p), rng_state.get_device()
    if t in (0, ONE):
        return full(size, t == 0, dtype=torch.bool, device=device)
    kept = _keep_loader(device, torch.bool, size, t, rng_state, mask_strides, mask_base)
    return _loop(device, torch.bool, size, kept)
