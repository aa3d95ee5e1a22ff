"""Memory for backward, torch.compile, generators."""

from collections.abc import Callable, Iterator

import torch

from bench.audit.subjects import Observation, Setting, Subject, agreement, by_chance
from bench.output import brief
from bench.saved import measure_saved

_P = 0.3


def _saved(subject: Subject, setting: Setting) -> Iterator[tuple[str, Observation]]:
    for dtype in ("float32", "bfloat16"):
        module = subject.build(_P)
        found = measure_saved(subject.name, module, dtype, setting.numel, _P, setting.device)
        text = f"{found.saved_bytes:,} B ({found.saved_bytes_per_element:.2g} B an element)"
        values = {"saved_bytes": found.saved_bytes, "retained_bytes": found.retained_bytes}
        yield f"saved for backward, {dtype}, {setting.numel:,} elements", Observation(text, values)


def _compiled(subject: Subject, setting: Setting) -> Observation:
    torch.compiler.reset()
    ones = torch.ones(setting.numel, device=setting.device)
    expected = subject.kept(ones, _P)
    compiled = torch.compile(subject.build(_P), fullgraph=True)
    compiled(ones)
    torch.manual_seed(0)
    return agreement(compiled(ones) != 0, expected, by_chance(_P))


def _attempt(
    measure: Callable[[Subject, Setting], Observation], subject: Subject, setting: Setting
) -> Observation:
    """A refusal is an observation too."""
    try:
        return measure(subject, setting)
    except Exception as error:
        return Observation(f"refused: {brief(error)}", {"error": brief(error)})


def _generator(subject: Subject, setting: Setting) -> Observation:
    ones = torch.ones(4096, device=setting.device)
    generator = torch.Generator(setting.device)
    try:
        module = subject.build(_P, generator=generator)
    except TypeError:
        return Observation("not accepted", {"accepted": False})
    generator.manual_seed(5)
    torch.manual_seed(1)
    first = module(ones)
    generator.manual_seed(5)
    torch.manual_seed(2)
    same = torch.equal(first, module(ones))
    text = "accepted, and decides the mask" if same else "accepted, without effect"
    return Observation(text, {"accepted": True, "decides": same})


def usage(subject: Subject, setting: Setting) -> Iterator[tuple[str, Observation]]:
    """All of the above."""
    yield from _saved(subject, setting)
    yield "compiled and eager mask, same seed", _attempt(_compiled, subject, setting)
    yield "generator argument", _attempt(_generator, subject, setting)
