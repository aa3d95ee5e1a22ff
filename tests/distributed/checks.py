"""What each rank of a world of four checks: a sharded call has the bits of the unsharded one."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from functools import partial
from unittest import mock

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.tensor import DTensor, Partial, Replicate, Shard, distribute_tensor
from torch.distributed.tensor.placement_types import Placement

import dropout_ext
from dropout_ext import functional as F

RANKS = 4
UNEVEN = (7, 5, 9)
# Even; a single element a row; more ranks than rows.
OTHER_SHAPES = ((8, 6, 12), (3, 1, 70))

FUNCTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "elementwise": lambda x: F.dropout(x, 0.4),
    "rows shared": lambda x: F.dropout(x, 0.4, broadcast_dims=(0,)),
    "time shared": lambda x: F.dropout(x, 0.4, broadcast_dims=-2),
    "channels": lambda x: F.dropout1d(x, 0.4),
    "alpha": lambda x: F.alpha_dropout(x, 0.4, training=True),
    "feature alpha": lambda x: F.feature_alpha_dropout(x, 0.4, training=True),
    "row depth": lambda x: F.drop_path(x, 0.4, training=True),
    "batch depth": lambda x: F.stochastic_depth(x, 0.4, "batch"),
    "classic": lambda x: F.dropout(x, 0.4, mode="downscale_in_infer"),
    "explicit": lambda x: F.dropout(x, 0.4, rng_state=dropout_ext.rng_state(-5, 2)),
    "generator": lambda x: F.dropout(x, 0.4, generator=torch.Generator().manual_seed(9)),
    "twice": lambda x: F.dropout(F.dropout(x, 0.4).sin(), 0.3),
    "in place": lambda x: F.dropout(x * 2, 0.4, inplace=True),
}

PLACEMENTS: dict[str, tuple[tuple[int, ...], Sequence[Placement]]] = {
    "1 rank": ((1,), [Shard(0)]),
    "2 ranks, Shard(0)": ((2,), [Shard(0)]),
    "2 ranks, Shard(2)": ((2,), [Shard(2)]),
    "2 ranks, Replicate": ((2,), [Replicate()]),
    "4 ranks, Shard(0)": ((4,), [Shard(0)]),
    "4 ranks, Shard(1)": ((4,), [Shard(1)]),
    "4 ranks, Shard(-1)": ((4,), [Shard(2)]),
    "2 x 2, Shard(0), Shard(2)": ((2, 2), [Shard(0), Shard(2)]),
    "2 x 2, Shard(2), Shard(0)": ((2, 2), [Shard(2), Shard(0)]),
    "2 x 2, Shard(1), Shard(1)": ((2, 2), [Shard(1), Shard(1)]),
    "2 x 2, Replicate, Shard(1)": ((2, 2), [Replicate(), Shard(1)]),
    "2 x 2, Replicate, Replicate": ((2, 2), [Replicate(), Replicate()]),
}


def mesh_of(shape: tuple[int, ...]) -> DeviceMesh | None:
    """A mesh of the first ranks; None on a rank that is not among them."""
    count = torch.Size(shape).numel()
    mesh = DeviceMesh("cpu", torch.arange(count).reshape(shape))
    return mesh if dist.get_rank() < count else None


def output_and_gradient(
    function: Callable[[Tensor], Tensor], x: Tensor, weight: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    torch.manual_seed(17)
    leaf = x.detach().requires_grad_()
    y = function(leaf)
    (y * weight).sum().backward()
    assert leaf.grad is not None
    return y.detach(), leaf.grad, torch.rand(3)


def whole(tensor: Tensor) -> Tensor:
    assert isinstance(tensor, DTensor)
    return tensor.full_tensor()


def layout(mesh_shape: tuple[int, ...], placements: Sequence[Placement]) -> None:
    """Forward, backward, and what the generator gives afterwards, for every function."""
    mesh = mesh_of(mesh_shape)
    if mesh is None:
        return
    for shape in (UNEVEN, *OTHER_SHAPES):
        x, weight = torch.randn(shape), torch.randn(shape)
        shards = [distribute_tensor(t, mesh, placements) for t in (x, weight)]
        for name in FUNCTIONS if shape == UNEVEN else ("elementwise", "channels"):
            function = FUNCTIONS[name]
            expected = output_and_gradient(function, x, weight)
            y, gradient, after = output_and_gradient(function, *shards)
            what = f"{name} of {shape}"
            assert isinstance(y, DTensor) and y.placements == tuple(placements), what
            assert isinstance(gradient, DTensor), what
            assert gradient.placements == tuple(placements), what
            assert torch.equal(whole(y), expected[0]), what
            assert torch.equal(whole(gradient), expected[1]), what
            assert torch.equal(after, expected[2]), what


def ranks_outside_the_mesh() -> None:
    """They hold nothing, and have nothing to do."""
    mesh = DeviceMesh("cpu", [0, 1])
    x = distribute_tensor(torch.ones(8, 4), mesh, [Shard(0)])
    torch.manual_seed(3)
    y = F.dropout(x, 0.5, broadcast_dims=(1,))
    assert isinstance(y, DTensor) and y.shape == (8, 4)
    if dist.get_rank() < 2:
        torch.manual_seed(3)
        assert torch.equal(y.full_tensor(), F.dropout(torch.ones(8, 4), 0.5, broadcast_dims=(1,)))


def partial_is_an_error() -> None:
    mesh = init_device_mesh("cpu", (RANKS,))
    x = DTensor.from_local(torch.ones(4, 4), mesh, [Partial()])
    assert F.dropout(x, 0.5, training=False) is x
    try:
        F.dropout(x, 0.5)
    except RuntimeError as error:
        assert "Partial" in str(error) and "redistribute" in str(error), error
    else:
        raise AssertionError("a Partial placement was let through")


def shard_is_an_error() -> None:
    x = distribute_tensor(torch.ones(8, 4), init_device_mesh("cpu", (RANKS,)), [Shard(0)])
    try:
        F.dropout(x, 0.5, shard=((8, 4), (0, 0)))
    except ValueError as error:
        assert "Shard(dim=0)" in str(error), error
    else:
        raise AssertionError("a shard beside a DTensor's own was let through")


def ranks_that_disagree() -> None:
    """Noticed at the first call on a mesh; afterwards only where that is asked for."""
    mesh = DeviceMesh("cpu", torch.arange(RANKS).flip(0))
    x = distribute_tensor(torch.ones(8, 4), mesh, [Shard(0)])
    for _ in range(2):
        torch.manual_seed(dist.get_rank())
        try:
            F.dropout(x, 0.5)
        except RuntimeError as error:
            assert "torch.manual_seed" in str(error), error
        else:
            raise AssertionError("ranks with seeds of their own were let through")
    torch.manual_seed(0)
    F.dropout(x, 0.5)
    torch.manual_seed(dist.get_rank())
    F.dropout(x, 0.5)
    with mock.patch.dict(os.environ, DROPOUT_EXT_CHECK_RANKS="1"):
        try:
            F.dropout(x, 0.5)
        except RuntimeError:
            return
    raise AssertionError("DROPOUT_EXT_CHECK_RANKS=1 did not check")


def in_place_on_memory() -> None:
    """Without autograd the local memory itself is written, and the object returned."""
    x = torch.randn(7, 9)
    sharded = distribute_tensor(x, init_device_mesh("cpu", (RANKS,)), [Shard(0)])
    torch.manual_seed(3)
    expected = F.dropout(x, 0.4)
    torch.manual_seed(3)
    with torch.no_grad():
        memory, version = sharded.to_local().data_ptr(), sharded._version
        assert F.dropout(sharded, 0.4, inplace=True) is sharded
        assert sharded.to_local().data_ptr() == memory
    assert sharded._version > version, "a graph that saved it would not notice"
    assert torch.equal(sharded.full_tensor(), expected)


def gradient_that_is_a_pending_sum() -> None:
    """What a column-parallel layer sends back arrives as Partial and leaves as the input came."""
    mesh = init_device_mesh("cpu", (RANKS,))
    x, weight = torch.randn(6, 8), torch.randn(8, 12)
    found = []
    for a, w in [
        (x, weight),
        (distribute_tensor(x, mesh, [Replicate()]), distribute_tensor(weight, mesh, [Shard(1)])),
    ]:
        torch.manual_seed(4)
        leaf = a.detach().requires_grad_()
        (F.dropout(leaf, 0.4) @ w).square().sum().backward()
        assert leaf.grad is not None
        found.append(leaf.grad)
    assert isinstance(found[1], DTensor) and found[1].placements == (Replicate(),)
    torch.testing.assert_close(found[1].to_local(), found[0])
    assert torch.equal(found[1].to_local() == 0, found[0] == 0)


def compiled() -> None:
    mesh = init_device_mesh("cpu", (RANKS,))
    x = distribute_tensor(torch.randn(7, 9), mesh, [Shard(0)])
    function = torch.compile(lambda t: F.dropout(t, 0.4) * 2, backend="aot_eager", fullgraph=True)
    torch.manual_seed(5)
    expected = F.dropout(x, 0.4) * 2
    torch.manual_seed(5)
    assert torch.equal(whole(function(x)), whole(expected))


def compiled_generator() -> None:
    """Its draws are the traced ones: in order, and none is made again for the backward pass."""
    mesh = init_device_mesh("cpu", (RANKS,))
    x, generator = distribute_tensor(torch.randn(7, 9), mesh, [Shard(0)]), torch.Generator()
    module = dropout_ext.Dropout(0.4, generator=generator)

    def function(t: Tensor) -> Tensor:
        module(t)
        first: Tensor = module(t.sin())
        return first * module(t).cos()

    backend = "aot_eager_decomp_partition"
    found = []
    for run in (function, torch.compile(function, backend=backend, fullgraph=True)):
        generator.manual_seed(5)
        y, gradient, _ = output_and_gradient(run, x, torch.ones_like(x))
        found.append((whole(y), whole(gradient), torch.rand(2, generator=generator)))
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other)


def compiled_schedule() -> None:
    """One graph for the first p and one for the others."""
    mesh = init_device_mesh("cpu", (RANKS,))
    x = distribute_tensor(torch.randn(7, 9), mesh, [Shard(0)])
    module = dropout_ext.Dropout()
    function = torch.compile(module, backend="aot_eager", fullgraph=True)
    torch._dynamo.utils.counters.clear()
    for p in (0.1, 0.2, 0.3, 0.7):
        module.p = p
        torch.manual_seed(5)
        expected = module(x)
        torch.manual_seed(5)
        assert torch.equal(whole(function(x)), whole(expected))
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] <= 2


def attention_layout(grouped: bool, masked: bool, placements: Sequence[Placement]) -> None:
    """Batches and heads are sharded: output and gradients have the bits of the unsharded call."""
    mesh = init_device_mesh("cpu", (2, 2))
    shapes = (4, 8, 6, 8), (4, 4 if grouped else 8, 9, 8), (4, 4 if grouped else 8, 9, 5)
    tensors = [torch.randn(shape) for shape in shapes]
    bias = torch.randn(4, 1, 1, 9) if masked else None
    found = []
    for distributed in (False, True):
        given = [distribute_tensor(t, mesh, placements) if distributed else t for t in tensors]
        leaves = [t.detach().requires_grad_() for t in given]
        own = None if bias is None else bias.detach()
        if own is not None and distributed:
            cut = [p if p == Shard(0) else Replicate() for p in placements]
            own = distribute_tensor(own, mesh, cut)
        if own is not None:
            leaves.append(own.requires_grad_())
        torch.manual_seed(11)
        output = F.scaled_dot_product_attention(
            *leaves, dropout_p=0.4, is_causal=not masked, enable_gqa=grouped
        )
        output.square().sum().backward()
        results = [output.detach(), *(leaf.grad for leaf in leaves)]
        if distributed:
            assert all(r.placements == tuple(placements) for r in results[:4])
            if own is not None:
                pending = [Partial() if p == Shard(1) else p for p in placements]
                assert own.grad.placements in (own.placements, tuple(pending)), own.grad
            assert results[0].stride() == found[0][0].stride()
            assert output.flatten(1, 2).full_tensor().equal(output.full_tensor().flatten(1, 2))
        found.append([r.full_tensor() if distributed else r for r in results])
        found[-1].append(torch.rand(3))
    assert found[0][0].shape == found[1][0].shape == (4, 8, 6, 5)
    for expected, sharded in zip(*found, strict=True):
        torch.testing.assert_close(sharded, expected)
    assert torch.equal(found[1][0] == 0, found[0][0] == 0)


def attention_of_one_bias() -> None:
    """Replicated over ranks of other heads: the gradient is the sum of what each rank finds."""
    mesh = init_device_mesh("cpu", (RANKS,))
    x, bias = torch.randn(2, 8, 6, 8), torch.randn(6, 6)
    found = []
    for distributed in (False, True):
        heads = distribute_tensor(x, mesh, [Shard(1)]) if distributed else x
        own = distribute_tensor(bias, mesh, [Replicate()]) if distributed else bias.clone()
        own.requires_grad_()
        torch.manual_seed(11)
        output = F.scaled_dot_product_attention(heads, heads, heads, own, dropout_p=0.4)
        output.square().sum().backward()
        found.append(own.grad.full_tensor() if distributed else own.grad)
    torch.testing.assert_close(found[1], found[0])


def attention_as_of_plain_tensors() -> None:
    """Unbatched, under autocast of several dtypes, with groups of keys and of values."""
    mesh = init_device_mesh("cpu", (RANKS,))
    x, grouped = torch.randn(5, 8), torch.randn(2, 16, 6, 8)
    half = torch.bfloat16
    for given, cast, gqa, placement in (
        ((x, x, x), False, False, Replicate()),
        ((grouped, grouped.to(half), grouped.to(half)), True, False, Shard(1)),
        ((grouped, grouped[:, :8], grouped[:, :4]), False, True, Shard(1)),
    ):
        found = []
        for distributed in (False, True):
            tensors = [distribute_tensor(t, mesh, [placement]) if distributed else t for t in given]
            torch.manual_seed(11)
            with torch.autocast("cpu", half, enabled=cast):
                output = F.scaled_dot_product_attention(*tensors, dropout_p=0.4, enable_gqa=gqa)
            found.append(output.full_tensor() if distributed else output)
        torch.testing.assert_close(found[1], found[0])


def attention_errors_before_the_draw() -> None:
    mesh = init_device_mesh("cpu", (RANKS,))
    x = distribute_tensor(torch.ones(2, 4, 5, 8), mesh, [Shard(1)])
    wide = distribute_tensor(torch.ones(2, 4, 5, 9), mesh, [Shard(1)])
    before = torch.get_rng_state()
    try:
        F.scaled_dot_product_attention(x, wide, x, dropout_p=0.5)
    except RuntimeError as error:
        assert "must have shapes" in str(error), error
    else:
        raise AssertionError("keys of another width were let through")
    assert torch.equal(torch.get_rng_state(), before)


def attention_cut_elsewhere() -> None:
    mesh = init_device_mesh("cpu", (RANKS,))
    x, y = (distribute_tensor(torch.ones(4, 8, 4, 8), mesh, [Shard(d)]) for d in (1, 2))
    few = distribute_tensor(torch.ones(4, 2, 4, 8), mesh, [Shard(1)])
    plain = torch.ones(4, 4, dtype=torch.bool)
    for given, mask in (((y, y, y), None), ((x, x, y), None), ((x, x, x), plain)):
        try:
            F.scaled_dot_product_attention(*given, mask, dropout_p=0.5)
        except RuntimeError as error:
            assert "sharded along batches and heads alone" in str(error), error
        else:
            raise AssertionError(f"{given[2].placements} was let through")
    try:
        F.scaled_dot_product_attention(x, few, few, dropout_p=0.5, enable_gqa=True)
    except RuntimeError as error:
        assert "each rank must hold the heads" in str(error), error
    else:
        raise AssertionError("heads without their keys were let through")


ATTENTION: dict[str, tuple[bool, bool, Sequence[Placement]]] = {
    "heads": (False, False, [Replicate(), Shard(1)]),
    "batches and heads, masked": (False, True, [Shard(0), Shard(1)]),
    "heads twice, grouped": (True, False, [Shard(1), Shard(1)]),
}

CHECKS: dict[str, Callable[[], None]] = {
    **{f"attention, {name}": partial(attention_layout, *a) for name, a in ATTENTION.items()},
    "attention cut elsewhere": attention_cut_elsewhere,
    "attention, one bias": attention_of_one_bias,
    "attention, as of plain tensors": attention_as_of_plain_tensors,
    "attention, errors before the draw": attention_errors_before_the_draw,
    **{name: partial(layout, *arguments) for name, arguments in PLACEMENTS.items()},
    "ranks outside the mesh": ranks_outside_the_mesh,
    "partial is an error": partial_is_an_error,
    "shard is an error": shard_is_an_error,
    "ranks that disagree": ranks_that_disagree,
    "in place on memory": in_place_on_memory,
    "gradient that is a pending sum": gradient_that_is_a_pending_sum,
    "compiled": compiled,
    "compiled, a generator": compiled_generator,
    "compiled, a schedule of p": compiled_schedule,
}
