"""Is it the same mask for the same seed, whatever the dtype, layout, size, threads or device?"""

from collections.abc import Iterator

import torch
from torch import Tensor

from bench.audit.subjects import Observation, Setting, Subject, agreement, by_chance
from bench.candidates import SUBJECT
from bench.cases import LAYOUTS, arrange
from bench.dtypes import DTYPES
from bench.extension import dropout_ext

_P = 0.3


def _compare(found: Tensor, expected: Tensor) -> Observation:
    return agreement(found, expected, by_chance(_P))


def _dtypes(subject: Subject, setting: Setting) -> Iterator[tuple[str, Observation]]:
    ones = torch.ones(setting.numel, device=setting.device)
    expected = subject.kept(ones, _P)
    for name, dtype in DTYPES.items():
        if name != "float32":
            found = subject.kept(ones.to(dtype), _P)
            yield f"mask of {name} and of float32", _compare(found, expected)


def _layouts(subject: Subject, setting: Setting) -> Iterator[tuple[str, Observation]]:
    flat = torch.ones(setting.numel, device=setting.device)
    for layout in LAYOUTS:
        strided = arrange(flat, layout)
        torch.manual_seed(0)
        found = subject.build(_P)(strided) != 0
        expected = subject.kept(flat, _P).view(strided.shape)
        if layout != "contiguous":
            yield f"mask of {layout} and of contiguous memory", _compare(found, expected)


def _sizes(subject: Subject, setting: Setting) -> Iterator[tuple[str, Observation]]:
    whole = subject.kept(torch.ones(setting.numel, device=setting.device), _P)
    for numel in (setting.numel - 1, setting.numel // 2 + 3, 32_769, 1_001):
        part = subject.kept(torch.ones(numel, device=setting.device), _P)
        label = f"mask of {numel:,} elements and the start of that of {setting.numel:,}"
        yield label, _compare(part, whole[:numel])


def _ways(subject: Subject, setting: Setting) -> Iterator[tuple[str, Observation]]:
    ones = torch.ones(setting.numel, device=setting.device)
    expected = subject.kept(ones, _P)
    yield "mask in place and out of place", _compare(subject.kept(ones, _P, inplace=True), expected)
    leaf = ones.clone().requires_grad_()
    y = subject.apply(leaf, _P)
    yield "mask with and without a gradient wanted", _compare(y.detach() != 0, expected)
    gradient = torch.autograd.grad(y, leaf, ones)[0]
    yield "mask of the gradient and of the output", _compare(gradient != 0, y.detach() != 0)


def _threads(subject: Subject, setting: Setting) -> Iterator[tuple[str, Observation]]:
    ones = torch.ones(setting.numel)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        expected = subject.kept(ones, _P)
        for count in (2, 3):
            torch.set_num_threads(count)
            yield (
                f"mask with {count} threads and with 1",
                _compare(subject.kept(ones, _P), expected),
            )
    finally:
        torch.set_num_threads(before)


def _devices(subject: Subject, setting: Setting) -> Iterator[tuple[str, Observation]]:
    ones = torch.ones(setting.numel)
    on_gpu = subject.kept(ones.to("cuda"), _P).cpu()
    yield "mask on CUDA and on the CPU, same manual_seed", _compare(on_gpu, subject.kept(ones, _P))
    label = "mask on CUDA and on the CPU, same explicit state"
    if subject.name != SUBJECT:
        yield label, Observation("takes no state", {})
        return
    masks = [
        dropout_ext.functional.dropout_mask(
            (setting.numel,), _P, rng_state=dropout_ext.rng_state(7, 3, device=device)
        ).cpu()
        for device in ("cuda", "cpu")
    ]
    yield label, _compare(masks[0], masks[1])


def sameness(subject: Subject, setting: Setting) -> Iterator[tuple[str, Observation]]:
    """All of the above."""
    yield from _dtypes(subject, setting)
    yield from _layouts(subject, setting)
    yield from _sizes(subject, setting)
    yield from _ways(subject, setting)
    yield from _threads(subject, setting)
    if setting.device == "cuda":
        yield from _devices(subject, setting)
