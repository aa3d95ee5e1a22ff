"""Processes that run the same checks side by side, as torchrun would start them."""

from __future__ import annotations

import tempfile
import traceback
from collections.abc import Callable
from multiprocessing import get_context
from pathlib import Path

import torch
import torch.distributed as dist
import torch.multiprocessing as mp

Check = Callable[[], None]


def run(checks: dict[str, Check], ranks: int) -> dict[str, str]:
    """Every check on every rank; gives the tracebacks of those that failed, by name."""
    with tempfile.TemporaryDirectory() as folder:
        # One server imports torch once, for all ranks, before it has any thread.
        get_context("forkserver").set_forkserver_preload(["torch", "distributed.training"])
        mp.start_processes(
            _rank, args=(checks, ranks, folder), nprocs=ranks, start_method="forkserver"
        )
        failures: dict[str, str] = {}
        for rank in range(ranks):
            for name, trace in torch.load(Path(folder, f"{rank}.pt")).items():
                failures[name] = failures.get(name, "") + f"rank {rank}:\n{trace}"
        return failures


def _rank(rank: int, checks: dict[str, Check], ranks: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=ranks
    )
    failures = {}
    for name, check in checks.items():
        torch.manual_seed(0)
        try:
            check()
        except Exception:
            failures[name] = traceback.format_exc()
    torch.save(failures, Path(folder, f"{rank}.pt"))
    dist.barrier()
    dist.destroy_process_group()
