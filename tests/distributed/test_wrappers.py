"""DDP and FSDP2 around modules with our dropout: two processes, gloo, CPU.

Catches: a node or a subclass that the wrappers' hooks cannot handle; gradients that are not those
of the masks in the forward pass; ranks that lose the stream their seed gives them.
"""

from __future__ import annotations

import copy
import socket
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch.nn.parallel import DistributedDataParallel

import dropout_ext

WORLD = 2


class Functional(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.dropout(x, 0.3, self.training)


def model() -> torch.nn.Module:
    torch.manual_seed(0)
    plain = torch.nn.Sequential(
        torch.nn.Linear(6, 10),
        dropout_ext.Dropout(0.4),
        Functional(),
        torch.nn.Linear(10, 4),
        torch.nn.Dropout(0.2),
    )
    return dropout_ext.convert_dropout(plain)


def gradients(module: torch.nn.Module, rank: int) -> list[torch.Tensor]:
    x = torch.randn(5, 6, generator=torch.Generator().manual_seed(rank))
    torch.manual_seed(100 + rank)
    module(x).square().sum().backward()
    found: list[Any] = [p.grad for p in module.parameters()]
    return [g.full_tensor() if hasattr(g, "full_tensor") else g for g in found]


def ddp(module: torch.nn.Module) -> torch.nn.Module:
    return DistributedDataParallel(module)


def fsdp(module: torch.nn.Module) -> torch.nn.Module:
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    mesh = init_device_mesh("cpu", (WORLD,))
    for layer in (module[0], module[2], module):  # type: ignore[index]
        fully_shard(layer, mesh=mesh)
    return module


WRAPPERS = {"ddp": ddp, "fsdp2": fsdp}


def work(rank: int, port: int, name: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=WORLD
    )
    try:
        alone = [gradients(copy.deepcopy(model()), each) for each in range(WORLD)]
        expected = [torch.stack(each).mean(0) for each in zip(*alone, strict=True)]
        found = gradients(WRAPPERS[name](model()), rank)
        for mine, mean in zip(found, expected, strict=True):
            torch.testing.assert_close(mine, mean)
        dist.barrier()  # neither leaves while the other may still talk to it
    finally:
        dist.destroy_process_group()


@pytest.mark.skipif(not dist.is_available(), reason="torch was built without distributed")
@pytest.mark.parametrize("name", ["ddp", pytest.param("fsdp2", marks=pytest.mark.thorough)])
@pytest.mark.thorough
def test_wrapped_gradients_are_the_mean(name: str) -> None:
    """Of those that each rank has alone with its seed."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    mp.spawn(work, (port, name), nprocs=WORLD)
