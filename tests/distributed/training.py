"""Blocks that are trained in parallel give the losses of one process."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, Replicate, Shard, distribute_tensor
from torch.distributed.tensor.parallel import (
    ColwiseParallel,
    RowwiseParallel,
    SequenceParallel,
    parallelize_module,
)
from torch.distributed.tensor.placement_types import Placement

import dropout_ext
from tests.distributed.checks import mesh_of

STEPS = 20
WIDTH = 16


class Block(nn.Module):
    """Dropout of the input, of the hidden features, and of the residual branch."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(WIDTH)
        self.first = dropout_ext.Dropout(0.2)
        self.up = nn.Linear(WIDTH, 4 * WIDTH)
        self.hidden = dropout_ext.Dropout(0.3)
        self.down = nn.Linear(4 * WIDTH, WIDTH)
        self.last = dropout_ext.Dropout(0.1, broadcast_dims=(1,))

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.hidden(self.up(self.first(self.norm(x))).relu())
        output: Tensor = x + self.last(self.down(hidden))
        return output


def tensor_parallel() -> dict[str, Any]:
    return {
        "up": ColwiseParallel(input_layouts=Replicate(), use_local_output=False),
        "down": RowwiseParallel(output_layouts=Replicate(), use_local_output=False),
    }


def sequence_parallel() -> dict[str, Any]:
    return {
        "norm": SequenceParallel(),
        "first": SequenceParallel(),
        "up": ColwiseParallel(input_layouts=Shard(1), use_local_output=False),
        "down": RowwiseParallel(output_layouts=Shard(1), use_local_output=False),
        "last": SequenceParallel(),
    }


def losses(
    prepare: Callable[[Block], nn.Module], place: Callable[[Tensor], Tensor]
) -> tuple[Tensor, list[nn.Parameter]]:
    torch.manual_seed(0)
    model = prepare(Block())
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    inputs, targets = torch.randn(2, 4, 6, WIDTH)
    found = []
    for _ in range(STEPS):
        loss = (model(place(inputs)) - place(targets)).square().mean()
        found.append(loss.full_tensor() if isinstance(loss, DTensor) else loss)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    return torch.stack(found).detach(), list(model.parameters())


def same_losses(plan: Callable[[], dict[str, Any]], placement: Placement, ranks: int) -> None:
    mesh = mesh_of((ranks,))
    if mesh is None:
        return
    alone, parameters = losses(lambda model: model, lambda tensor: tensor)

    def parallel(model: Block) -> nn.Module:
        parallelize_module(model, mesh, plan())
        for name, parameter in model.norm.named_parameters():
            if not isinstance(parameter, DTensor):
                whole = distribute_tensor(parameter.detach(), mesh, [Replicate()])
                model.norm.register_parameter(name, nn.Parameter(whole))
        return model

    together, shards = losses(parallel, lambda t: distribute_tensor(t, mesh, [placement]))
    assert alone[-1] < 0.9 * alone[0], alone  # it learns
    torch.testing.assert_close(together, alone, rtol=1e-5, atol=0)
    for shard, parameter in zip(shards, parameters, strict=True):
        assert isinstance(shard, DTensor)
        torch.testing.assert_close(shard.full_tensor(), parameter.data, rtol=1e-3, atol=1e-5)


CHECKS: dict[str, Callable[[], None]] = {
    f"{name}, {ranks} ranks": partial(same_losses, plan, placement, ranks)
    for ranks in (1, 2, 4)
    for name, plan, placement in [
        ("tensor parallel block", tensor_parallel, Replicate()),
        ("sequence parallel block", sequence_parallel, Shard(1)),
    ]
}
