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
    """Every check on every rank; gives a report for each of those that did not pass.

    A rank stops at its first failure: it would leave the others waiting in a collective, and its
    end lets them fail too. What comes after is reported as not run.
    """
    with tempfile.TemporaryDirectory() as folder:
        # One server imports torch once, for all ranks, before it has any thread.
        get_context("forkserver").set_forkserver_preload(["torch", "tests.distributed.training"])
        mp.start_processes(
            _rank, args=(checks, ranks, folder), nprocs=ranks, start_method="forkserver"
        )
        reports: dict[str, str] = {}
        for rank in range(ranks):
            found = torch.load(Path(folder, f"{rank}.pt"))
            for name in checks:
                if line := found.get(name, "not run, as an earlier check failed"):
                    reports[name] = reports.get(name, "") + f"rank {rank}: {line}\n"
        return reports


def _rank(rank: int, checks: dict[str, Check], ranks: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=ranks
    )
    found: dict[str, str] = {}
    for name, check in checks.items():
        torch.manual_seed(0)
        try:
            check()
        except Exception:
            found[name] = traceback.format_exc()
            break
        found[name] = ""
    else:
        dist.barrier()
    torch.save(found, Path(folder, f"{rank}.pt"))
    dist.destroy_process_group()
