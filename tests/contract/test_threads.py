"""Threads and processes: one generator shared by many, and what a fork inherits.

Catches: a draw without the generator's mutex, whose state is then torn or handed out twice; a
worker that does not behave as it would with torch's own operators.
"""

from __future__ import annotations

import os
import threading

import torch

from dropout_ext import functional as F

THREADS, CALLS = 8, 300


def test_threads_share_a_generator(device: torch.device) -> None:
    """Together they get the states that one thread would get, each once."""
    ops = torch.ops.dropout_ext
    x = torch.ones(3, device=device)
    generator = torch.Generator(device).manual_seed(6)
    found: list[tuple[int, ...]] = []
    barrier = threading.Barrier(THREADS)

    def work() -> None:
        barrier.wait()
        for _ in range(CALLS):
            found.append(tuple(ops.draw(x, generator=generator).tolist()))

    threads = [threading.Thread(target=work) for _ in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    generator.manual_seed(6)
    alone = [tuple(ops.draw(x, generator=generator).tolist()) for _ in range(THREADS * CALLS)]
    assert len(set(found)) == THREADS * CALLS
    assert sorted(found) == sorted(alone)


def test_threads_of_the_eager_way(device: torch.device) -> None:
    """The masks of all calls are those of as many calls in turn, and forward is backward."""
    x = torch.ones(64, device=device)
    masks: list[bytes] = []

    def work() -> None:
        for _ in range(50):
            leaf = x.clone().requires_grad_()
            y = F.dropout(leaf, 0.5)
            y.sum().backward()
            assert leaf.grad is not None
            assert torch.equal(leaf.grad, y.detach())
            masks.append(bytes(y.detach().cpu().numpy().tobytes()))

    torch.manual_seed(8)
    threads = [threading.Thread(target=work) for _ in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    torch.manual_seed(8)
    alone = [F.dropout(x, 0.5).cpu().numpy().tobytes() for _ in range(50 * THREADS)]
    assert sorted(masks) == sorted(alone)


def test_fork_inherits_the_generator() -> None:
    """A child goes on from the parent's state, as torch.rand does, also in large calls that the
    parent has run in its thread pool."""
    x = torch.ones(300_000)
    F.dropout(x)
    torch.manual_seed(10)
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        torch.set_num_threads(1)
        y = F.dropout(x, 0.5)
        os.write(writer, f"{int(y.sum())} {float(torch.rand(()))!r}".encode())
        os._exit(0)
    os.close(writer)
    _, status = os.waitpid(child, 0)
    with os.fdopen(reader) as pipe:
        found = pipe.read()
    assert status == 0
    assert found == f"{int(F.dropout(x, 0.5).sum())} {float(torch.rand(()))!r}"


class Noisy(torch.utils.data.Dataset[torch.Tensor]):
    def __len__(self) -> int:
        return 8

    def __getitem__(self, index: int) -> torch.Tensor:
        return F.dropout(torch.ones(100), 0.5)


def test_data_loader_workers() -> None:
    """Each worker has a seed of its own, the same on every run."""

    def epoch() -> list[torch.Tensor]:
        torch.manual_seed(11)
        loader = torch.utils.data.DataLoader(Noisy(), batch_size=2, num_workers=2)
        return list(loader)

    first, second = epoch(), epoch()
    rows = torch.cat(first)
    assert len({row.numpy().tobytes() for row in rows}) == len(rows)
    for one, other in zip(first, second, strict=True):
        assert torch.equal(one, other)
