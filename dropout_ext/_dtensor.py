"""Distributed tensors: each rank makes its piece of the one mask.

The ranks of a mesh have to start from one state. As for DTensor's own random operators, that is
the duty of ``torch.manual_seed`` with one seed on all of them (or of generators seeded alike): a
draw is then the same everywhere, costs no communication, and is the one that a single process
would make. It is verified at the first call on a mesh; with ``DROPOUT_EXT_CHECK_RANKS=1`` in the
environment at every call, where one rank is suspected to have drawn something for itself.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeGuard
from weakref import WeakSet

import torch
from torch import Generator, Tensor
from torch.autograd.graph import increment_version

from dropout_ext._index_map import Shard

if TYPE_CHECKING:
    from torch.distributed.device_mesh import DeviceMesh
    from torch.distributed.tensor import DTensor
    from torch.distributed.tensor.placement_types import Placement

_verified: WeakSet[DeviceMesh] = WeakSet()


def is_dtensor(tensor: Tensor) -> TypeGuard[DTensor]:
    """Without importing what only a user of DTensor has imported."""
    module = sys.modules.get("torch.distributed.tensor")
    return module is not None and isinstance(tensor, module.DTensor)


def apply(
    local_dropout: Callable[..., Tensor],
    input: DTensor,
    inplace: bool,
    generator: Generator | None,
    rng_state: Tensor | None,
    shard: Shard | None,
) -> Tensor:
    """Calls ``local_dropout`` on the local tensor, with its ``shard`` and the common state.

    The gradient takes the placements of the input, whatever those it arrives with.
    """
    from torch.distributed.tensor import DTensor

    mesh, placements = input.device_mesh, input.placements
    if shard is not None:
        raise ValueError(
            "dropout: shard must not be given for a DTensor, which knows its shards "
            f"({placements}); but got {shard}"
        )
    coordinate = mesh.get_coordinate()
    if coordinate is None:  # this rank is not part of the mesh and holds nothing
        return input
    start = _start(input.shape, mesh, placements, coordinate)
    if rng_state is not None and is_dtensor(rng_state):
        rng_state = rng_state.to_local()
    in_memory = inplace and not torch.is_grad_enabled()
    local = input.to_local(grad_placements=placements)
    if rng_state is None:
        rng_state = torch.ops.dropout_ext.draw(local.detach(), generator=generator)
        _verify(mesh, rng_state)
    piece = (input.shape, start)
    result = local_dropout(
        local, inplace=in_memory, generator=None, rng_state=rng_state, shard=piece
    )
    if in_memory:
        if not torch.compiler.is_compiling():
            increment_version(input)  # autograd watches the distributed tensor, not its memory
        return input
    output: Tensor = DTensor.from_local(
        result, mesh, placements, run_check=False, shape=input.shape, stride=input.stride()
    )
    return input.copy_(output) if inplace else output


def _start(
    shape: torch.Size,
    mesh: DeviceMesh,
    placements: Sequence[Placement],
    coordinate: Sequence[int],
) -> list[int]:
    """Where this rank's piece begins: cut as by torch.chunk, one mesh dimension after another."""
    from torch.distributed.tensor import Replicate
    from torch.distributed.tensor import Shard as ShardPlacement

    start, sizes = [0] * len(shape), list(shape)
    for mesh_dim, placement in enumerate(placements):
        if type(placement) is ShardPlacement:
            dim, size = placement.dim, sizes[placement.dim]
            chunk = -(-size // mesh.size(mesh_dim))
            begin = min(coordinate[mesh_dim] * chunk, size)
            start[dim] += begin
            sizes[dim] = min(chunk, size - begin)
        elif type(placement) is not Replicate:
            raise RuntimeError(
                "dropout: a DTensor must be placed by Shard and Replicate, but got "
                f"{tuple(placements)}. {_advice(placement)}"
            )
    return start


def _advice(placement: Any) -> str:
    if placement.is_partial():
        return (
            "Dropout of a pending sum is not defined by its parts: redistribute it first, to "
            "Replicate() or Shard(dim)"
        )
    return "Redistribute it first, to Replicate() or Shard(dim)"


def _verify(mesh: DeviceMesh, rng_state: Tensor) -> None:
    if torch.compiler.is_compiling():
        return
    if mesh in _verified and os.environ.get("DROPOUT_EXT_CHECK_RANKS") != "1":
        return
    for mesh_dim in range(mesh.ndim):
        group = mesh.get_group(mesh_dim)
        states = [torch.empty_like(rng_state) for _ in range(mesh.size(mesh_dim))]
        torch.distributed.all_gather(states, rng_state, group=group)
        if not all(torch.equal(state, rng_state) for state in states):
            raise RuntimeError(
                "dropout: the ranks of a mesh must draw the same random numbers, but along "
                f"dimension {mesh_dim} of {mesh} they drew the states "
                f"{[state.tolist() for state in states]}. Call torch.manual_seed with one seed on "
                "every rank, pass generators that are seeded alike, or pass rng_state"
            )
    _verified.add(mesh)
