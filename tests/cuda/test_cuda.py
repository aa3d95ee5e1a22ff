"""What exists on CUDA only: the generator's offset, streams, graphs, several devices.

Catches: a launch on the wrong stream or device; a draw that depends on the size; a captured graph
that replays one mask for ever; a mask that differs from the CPU's.
"""

from __future__ import annotations

import pytest
import torch

import dropout_ext
from dropout_ext import functional as F
from tests.helpers.compare import assert_bits, expected_dropout, random_bits, state, to_bits

pytestmark = pytest.mark.needs_cuda

draw = torch.ops.dropout_ext.draw


def cuda_generator(seed: int = 5) -> torch.Generator:
    return torch.Generator("cuda").manual_seed(seed)


def test_cpu_and_cuda_agree(dtype: torch.dtype) -> None:
    for shape in [(1,), (1000,), (1001,), (300_007,), (64, 1025)]:
        x = torch.nan_to_num(random_bits(shape, dtype))
        for p in (0.1, 0.5, 0.25 + 2.0**-17):
            host = F.dropout(x, p, rng_state=state((6, 7)))
            device = F.dropout(x.cuda(), p, rng_state=state((6, 7), "cuda"))
            assert (to_bits(host) == to_bits(device)).all()


@pytest.mark.parametrize("offset", [1, 2, 3, 5])
def test_misaligned(dtype: torch.dtype, offset: int) -> None:
    """16-byte accesses are impossible; the mask stays."""
    for size in (1, 7, 1000, 70_001):
        x = random_bits((size + offset,), dtype).cuda()[offset:]
        y = F.dropout(x, 0.3, rng_state=state((6, 7), "cuda"))
        expected = expected_dropout(x, 0.3, (6, 7))
        assert_bits(y, expected)
        F.dropout(x, 0.3, inplace=True, rng_state=state((6, 7), "cuda"))
        assert_bits(x, expected)


# The generator.


def test_draw_takes_seed_and_offset() -> None:
    generator, x = cuda_generator(1234), torch.ones(3, device="cuda")
    offset = generator.get_offset()
    first, second = draw(x, generator=generator), draw(x, generator=generator)
    assert first.tolist() == [1234, offset // 4]
    assert second.tolist() == [1234, offset // 4 + 2]


def test_draw_for_samples_reserves_for_each() -> None:
    generator = cuda_generator(1234)
    drawn = draw(torch.ones(2, 3, device="cuda"), batch=[2, 3], generator=generator)
    assert drawn.view(-1, 2).tolist() == [[1234, 2 * sample] for sample in range(6)]
    assert generator.get_offset() == 6 * 8


@pytest.mark.parametrize("size", [0, 1, 1000, 5_000_001])
@pytest.mark.parametrize("p", [0.5, 1.0, 1e-12])
@pytest.mark.parametrize("inplace", [False, True])
def test_every_call_reserves_8(size: int, p: float, inplace: bool) -> None:
    generator = cuda_generator()
    offset = generator.get_offset()
    F.dropout(torch.ones(size, device="cuda"), p, inplace=inplace, generator=generator)
    assert generator.get_offset() == offset + 8


def test_no_draw_in_eval_or_at_zero() -> None:
    generator, x = cuda_generator(), torch.ones(9, device="cuda")
    offset = generator.get_offset()
    assert F.dropout(x, 0.0, generator=generator) is x
    assert F.dropout(x, 0.5, False, generator=generator) is x
    assert generator.get_offset() == offset


def test_the_mask_of_a_call_is_that_of_its_state() -> None:
    x = torch.ones(5000, device="cuda")
    y = F.dropout(x, 0.5, generator=cuda_generator())
    rng_state = draw(x, generator=cuda_generator())
    assert torch.equal(y, F.dropout(x, 0.5, rng_state=rng_state))


def test_backward_after_the_generator_moved_on() -> None:
    x = torch.ones(5000, device="cuda", requires_grad=True)
    y = F.dropout(x)
    torch.rand(10, device="cuda")
    y.backward(torch.ones_like(y))
    assert x.grad is not None
    assert torch.equal(x.grad, y.detach())


# Streams and devices.


def test_current_stream() -> None:
    """Behind a long sleep on a side stream: on another stream the input would be read too early."""
    stream = torch.cuda.Stream()
    x = torch.zeros(1 << 20, device="cuda")
    rng_tensor = state((6, 7), "cuda")
    torch.cuda.synchronize()
    with torch.cuda.stream(stream):
        torch.cuda._sleep(200_000_000)
        x.fill_(1)
        y = F.dropout(x, 0.5, rng_state=rng_tensor)
    stream.synchronize()
    assert_bits(y, expected_dropout(torch.ones(1 << 20), 0.5, (6, 7)))


def test_draw_on_the_current_stream() -> None:
    """On another stream the states would be written before the memory's last user is done."""
    stream, generator = torch.cuda.Stream(), cuda_generator(1234)
    x = torch.ones(3, device="cuda")
    torch.cuda.synchronize()
    with torch.cuda.stream(stream):
        torch.cuda._sleep(200_000_000)
        torch.full((2,), -1, device="cuda")  # freed at once: its memory is what comes next
        drawn = draw(x, generator=generator)
    stream.synchronize()
    assert drawn.tolist() == [1234, 0]


@pytest.mark.filterwarnings("ignore:Synchronization debug mode")
def test_no_synchronization() -> None:
    x = torch.ones(1000, device="cuda", requires_grad=True)
    rng_tensor = state((6, 7), "cuda")
    F.dropout(x).sum().backward()
    torch.cuda.set_sync_debug_mode("error")
    try:
        F.dropout(x).sum().backward()
        F.dropout(x, rng_state=rng_tensor).sum().backward()
        F.dropout(x.detach(), inplace=True)
        F.dropout_mask((100,), rng_state=rng_tensor)
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.filterwarnings("ignore")  # what the profiler has to say of itself
def test_launches_one_kernel() -> None:
    """Forward with a draw and with grad is one launch; the kernel itself writes the state."""
    x = torch.ones(1 << 16, device="cuda", requires_grad=True)
    F.dropout(x)
    torch.cuda.synchronize()
    activities = [torch.profiler.ProfilerActivity.CUDA]
    with torch.profiler.profile(activities=activities) as profile:
        F.dropout(x)
        torch.cuda.synchronize()
    kernels = [
        event.name
        for event in profile.events()
        if event.device_type == torch._C._autograd.DeviceType.CUDA and "Sync" not in event.name
    ]
    if not kernels:
        pytest.skip("the profiler sees no kernels on this machine")
    assert len(kernels) == 1, kernels


def test_another_device_than_the_current_one() -> None:
    if torch.cuda.device_count() < 2:
        pytest.skip("one CUDA device only")
    x = torch.ones(5000, device="cuda:1", requires_grad=True)
    y = F.dropout(x, 0.5, rng_state=state((6, 7), "cuda:1"))
    y.sum().backward()
    assert x.grad is not None
    assert y.device == x.grad.device == x.device
    assert_bits(y, expected_dropout(torch.ones(5000), 0.5, (6, 7)))
    with pytest.raises(RuntimeError, match="rng_state must be on the device of the input"):
        F.dropout(x, rng_state=state((6, 7), "cuda:0"))


def test_draw_on_another_device_than_the_current_one() -> None:
    """From the generator of that device alone."""
    if torch.cuda.device_count() < 2:
        pytest.skip("one CUDA device only")
    x = torch.ones(5000, device="cuda:1", requires_grad=True)
    generators = torch.cuda.default_generators[:2]
    before = [generator.get_offset() for generator in generators]
    y = F.dropout(x, 0.5)
    rng_state = draw(x)
    y.sum().backward()
    assert torch.cuda.current_device() == 0
    assert [generator.get_offset() for generator in generators] == [before[0], before[1] + 16]
    seed, offset = generators[1].initial_seed(), before[1] // 4
    assert rng_state.device == x.device
    assert torch.equal(rng_state.cpu(), state((seed, offset + 2)))
    assert_bits(y, expected_dropout(torch.ones(5000), 0.5, (seed, offset)))
    assert x.grad is not None
    assert torch.equal(x.grad, y.detach())
    with pytest.raises(RuntimeError, match="generator must be on the device of the input"):
        F.dropout(x, generator=torch.Generator("cuda:0"))


def test_module_on_cuda() -> None:
    model = torch.nn.Sequential(torch.nn.Linear(64, 64), dropout_ext.Dropout(0.5)).cuda()
    y = model(torch.ones(8, 64, device="cuda"))
    y.sum().backward()
    assert 0 < y.count_nonzero() < y.numel()
    assert torch.equal(model[0].bias.grad, 2.0 * y.count_nonzero(0))
