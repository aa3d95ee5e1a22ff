"""Threads and processes: one generator shared by many, and what a fork inherits.

Catches: a draw without the generator's mutex, whose state is then torn or handed out twice; a
worker that does not behave as it would with torch's own operators.
"""

from __future__ import annotations

import functools
import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from dropout_ext import functional as F
from tests.helpers.compare import to_bits

THREADS, CALLS = 8, 100
x_of = functools.partial(torch.ones, 64)


def drawn_state(device: torch.device, generator: torch.Generator) -> bytes:
    return to_bits(torch.ops.dropout_ext.draw(x_of(device=device), generator=generator)).tobytes()


def mask_of_a_call(device: torch.device, generator: torch.Generator) -> bytes:
    return to_bits(F.dropout(x_of(device=device), 0.5, generator=generator)).tobytes()


def mask_of_forward_and_backward(device: torch.device, generator: torch.Generator) -> bytes:
    leaf = x_of(device=device, requires_grad=True)
    y = F.dropout(leaf, 0.5, generator=generator)
    y.sum().backward()
    assert leaf.grad is not None
    assert torch.equal(leaf.grad, y.detach())
    return to_bits(y).tobytes()


@pytest.mark.parametrize("call", [drawn_state, mask_of_a_call, mask_of_forward_and_backward])
def test_threads_share_a_generator(
    device: torch.device, call: Callable[[torch.device, torch.Generator], bytes]
) -> None:
    """Eight threads get exactly what one would get: nothing twice, torn or lost."""
    together, alone = (torch.Generator(device).manual_seed(6) for _ in range(2))
    barrier = threading.Barrier(THREADS)

    def work() -> list[bytes]:
        barrier.wait()
        return [call(device, together) for _ in range(CALLS)]

    with ThreadPoolExecutor(THREADS) as pool:
        futures = [pool.submit(work) for _ in range(THREADS)]
        found = [each for future in futures for each in future.result()]
    expected = [call(device, alone) for _ in range(THREADS * CALLS)]
    assert len(set(expected)) == THREADS * CALLS
    assert sorted(found) == sorted(expected)
    assert torch.equal(together.get_state(), alone.get_state())


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
