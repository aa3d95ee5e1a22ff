"""A small sweep over the CUDA kernels, meant to run under compute-sanitizer.

``compute-sanitizer --tool memcheck python -m bench.gpu.sanitizer_sweep``

Every tensor lies in memory of its own size (run it with PYTORCH_NO_CUDA_MEMORY_CACHING=1, or
torch's allocator hides overruns inside its blocks), and every result is compared bit for bit with
the CPU's. Comparisons and random numbers stay on the CPU, so that few other kernels are watched.
"""

import argparse
import sys
from collections.abc import Iterator

import torch
from torch import Tensor

from bench.cases import DTYPES
from bench.extension import dropout_ext

_MANY_SAMPLES = 65_543  # more than a launch has room for; of one dtype, as each costs a state
_SIZES = (1, 2, 7, 8, 9, 15, 31, 255, 1023, 1025, 4099, _MANY_SAMPLES)
_BITS = {2: torch.int16, 4: torch.int32, 8: torch.int64}


def _inputs(flat: Tensor) -> Iterator[tuple[str, Tensor]]:
    """Every tail, every offset from an aligned address, and layouts with another memory order."""
    for numel in _SIZES:
        yield f"{numel} elements", flat[:numel].clone()
    for start in range(1, 9):
        yield f"1029 elements from element {start}", flat[: start + 1029].clone()[start:]
    yield "long rows of an odd pitch", flat[: 5 * 1025].clone().view(5, 1025)[:, :1000]
    grid = flat[: 36 * 61].clone().view(36, 61)
    image = flat[: 2 * 19 * 9 * 7].clone().view(2, 19, 9, 7)
    yield "transposed", grid.t()
    yield "columns", grid[:, 3:58]
    yield "every other column", grid[:, ::2]
    yield "channels last", image.contiguous(memory_format=torch.channels_last)
    yield "permuted", image.permute(3, 1, 0, 2)
    yield "expanded", flat[:61].clone().expand(36, 61)


def _bits(found: Tensor) -> Tensor:
    return found.cpu().contiguous().view(_BITS[found.element_size()])


def _copy(x: Tensor, device: str) -> Tensor:
    """The same values, strides and start within an allocation of its own, on the device."""
    storage = x.new_empty(0).set_(x.untyped_storage()).to(device, copy=True)
    return storage.as_strided(x.size(), x.stride(), x.storage_offset())


def _results(x: Tensor, p: float, device: str) -> Iterator[tuple[str, Tensor]]:
    """Forward, gradient, in place and mask of one input with one state."""
    dropout = dropout_ext.functional.dropout
    state = dropout_ext.rng_state(2**63 + 11, 5, device=device)
    leaf = x.detach().requires_grad_()
    y = dropout(leaf, p, rng_state=state)
    yield "forward", y.detach()
    one = x.new_ones(()).expand(x.shape)
    yield "gradient", torch.autograd.grad(y, leaf, x, retain_graph=True)[0]
    yield "gradient of an expanded one", torch.autograd.grad(y, leaf, one)[0]
    if 0 not in x.stride():
        yield "in place", dropout(_copy(x, device), p, inplace=True, rng_state=state)
    mask = dropout_ext.functional.dropout_mask(tuple(x.shape), p, rng_state=state)
    yield "mask", mask.to(torch.int16)
    yield "last dimension shared", dropout(x, p, rng_state=state, broadcast_dims=-1)
    if x.size(0) < _MANY_SAMPLES or x.dtype == torch.bfloat16:
        states = torch.tensor([11, 5]) + torch.arange(x.size(0))[:, None]
        yield "a state for each row", torch.ops.dropout_ext.dropout(x, p, states.to(device))


def sweep(device: str) -> list[str]:
    """Runs everything on the device; returns what differs from the CPU."""
    wrong = []
    for dtype in DTYPES.values():
        torch.manual_seed(0)
        flat = torch.randn(max(_SIZES), dtype=torch.float32).to(dtype)
        for name, x in _inputs(flat):
            for p in (0.1, 0.25 + 2.0**-17):
                found, expected = _results(_copy(x, device), p, device), _results(x, p, "cpu")
                for (what, one), (_, other) in zip(found, expected, strict=True):
                    if not torch.equal(_bits(one), _bits(other)):
                        wrong.append(f"{what}, {dtype}, {name}, p = {p:g}")
        module = dropout_ext.Dropout(0.3)
        first, second = (module(flat[:4099].clone().to(device)).cpu() for _ in range(2))
        if torch.equal(first, second):
            wrong.append(f"two draws give one mask, {dtype}")
    return wrong


def main() -> int:
    """Returns 1 if a result differs."""
    options = argparse.ArgumentParser(prog="python -m bench.gpu.sanitizer_sweep")
    options.add_argument("--device", choices=("cpu", "cuda"), default="cuda")
    wrong = sweep(options.parse_args().device)
    print("\n".join(wrong or ["sweep: every result is bit for bit that of the CPU"]))
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
