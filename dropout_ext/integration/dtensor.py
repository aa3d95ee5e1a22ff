"""Distributed tensors: where a rank's piece begins, and whether the ranks agree on the state.

The ranks of a mesh have to start from one state. As for DTensor's own random operators, the user
sees to it by ``torch.manual_seed`` with one seed on every rank, or by generators seeded alike. Each
rank then draws what a single process would draw, without communication. The first call on a mesh
verifies it; with ``DROPOUT_EXT_CHECK_RANKS=1`` in the environment every call does.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, TypeGuard
from weakref import WeakSet

import torch
from torch import Tensor

from dropout_ext.integration.strides import row_major

if TYPE_CHECKING:
    from torch.distributed.device_mesh import DeviceMesh
    from torch.distributed.tensor import DTensor
    from torch.distributed.tensor.placement_types import Placement

_verified: WeakSet[DeviceMesh] = WeakSet()


def is_dtensor(tensor: Tensor) -> TypeGuard[DTensor]:
    """Without importing what only a user of DTensor has imported."""
    module = sys.modules.get("torch.distributed.tensor")
    return module is not None and isinstance(tensor, module.DTensor)


def local(tensor: Tensor, shared_by: DTensor | None = None) -> Tensor:
    """This rank's piece; its gradient arrives in the placements of the tensor.

    Where the tensor is replicated over ranks that each hold a shard of ``shared_by``, theirs are
    the terms of a sum.
    """
    if not is_dtensor(tensor):
        return tensor
    if shared_by is None:
        return tensor.to_local(grad_placements=tensor.placements)
    from torch.distributed.tensor import Partial

    pairs = zip(tensor.placements, shared_by.placements, strict=True)
    placements = [
        Partial() if own.is_replicate() and other.is_shard() else own for own, other in pairs
    ]
    return tensor.to_local(grad_placements=placements)


def like(
    result: Tensor,
    tensor: DTensor,
    shape: Sequence[int] | None = None,
    strides: Sequence[int] | None = None,
) -> DTensor:
    """The distributed tensor whose pieces are ``result``, placed as ``tensor`` is.

    Args:
        result: this rank's piece.
        tensor: gives mesh and placements; shape and strides too, unless there is a ``shape``.
        shape: of the whole.
        strides: of the whole; those of a contiguous tensor unless they are given.
    """
    from torch.distributed.tensor import DTensor

    return DTensor.from_local(
        result,
        tensor.device_mesh,
        tensor.placements,
        run_check=False,
        shape=tensor.shape if shape is None else torch.Size(shape),
        stride=tensor.stride() if shape is None else tuple(strides or row_major(shape)),
    )


def start(tensor: DTensor) -> list[int] | None:
    """The coordinates in the whole tensor at which this rank's piece begins.

    Each mesh dimension cuts, one after another, as :func:`torch.chunk` does.

    Returns:
        One coordinate for each dimension; None on a rank outside the mesh, which holds nothing.

    Raises:
        RuntimeError: a placement is neither Shard nor Replicate.
    """
    from torch.distributed.tensor import Replicate, Shard

    mesh = tensor.device_mesh
    coordinate = mesh.get_coordinate()
    if coordinate is None:
        return None
    begins, sizes = [0] * len(tensor.shape), list(tensor.shape)
    for mesh_dim, placement in enumerate(tensor.placements):
        if type(placement) is Shard:
            dim, size = placement.dim, sizes[placement.dim]
            chunk = -(-size // mesh.size(mesh_dim))
            begin = min(coordinate[mesh_dim] * chunk, size)
            begins[dim] += begin
            sizes[dim] = min(chunk, size - begin)
        elif type(placement) is not Replicate:
            raise RuntimeError(_refusal(tensor.placements, placement))
    return begins


def _refusal(placements: Sequence[Placement], placement: Any) -> str:
    what = (
        "The parts of a pending sum do not define its dropout: redistribute"
        if placement.is_partial()
        else "Please redistribute"
    )
    return (
        "dropout: a DTensor must be placed by Shard and Replicate, but got "
        f"{tuple(placements)}. {what} it first, to Replicate() or Shard(dim)"
    )


def verify(mesh: DeviceMesh, rng_state: Tensor) -> None:
    """RuntimeError unless every rank of the mesh drew this state.

    Communicates at the first call on a mesh. In compiled code nothing is verified.
    """
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
