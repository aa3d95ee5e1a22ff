"""The two implementations under audit, and what a measurement of one of them yields."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from bench.candidates import RIVAL, SUBJECT
from bench.extension import dropout_ext


@dataclass(frozen=True)
class Observation:
    """What was seen: a phrase for the table, and the figures behind it."""

    text: str
    values: dict[str, Any]


@dataclass(frozen=True)
class Setting:
    """Where the audit runs, and on how many elements (a multiple of 65,536)."""

    device: str
    numel: int


@dataclass(frozen=True)
class Subject:
    """An implementation; every output follows from the seed given with it."""

    name: str
    build: Callable[..., nn.Module]

    def apply(self, x: Tensor, p: float, seed: int = 0, inplace: bool = False) -> Tensor:
        """The output in training, after torch.manual_seed(seed)."""
        torch.manual_seed(seed)
        result: Tensor = self.build(p, inplace)(x)
        return result

    def kept(self, like: Tensor, p: float, seed: int = 0, inplace: bool = False) -> Tensor:
        """The mask that `apply` uses for a tensor of this shape, dtype and layout: True = kept."""
        return self.apply(torch.ones_like(like), p, seed, inplace) != 0


Measure = Callable[[Subject, Setting], Iterator[tuple[str, Observation]]]
"""Yields (property, observation): the same properties, in the same order, for every subject."""

SUBJECTS = (Subject(RIVAL, nn.Dropout), Subject(SUBJECT, dropout_ext.Dropout))


def agreement(found: Tensor, expected: Tensor, chance: float) -> Observation:
    """How often two masks agree, against `chance`; z is in standard errors of that rate."""
    same = found == expected
    rate, count = same.double().mean().item(), same.numel()
    z = (rate - chance) / (chance * (1 - chance) / count) ** 0.5
    text = "identical" if rate == 1 else f"agree at {rate:.2%} (chance {chance:.2%}, z = {z:+.1f})"
    return Observation(text, {"rate": rate, "chance": chance, "z": z, "count": count})


def by_chance(p: float) -> float:
    """How often two independent masks agree."""
    return p * p + (1 - p) * (1 - p)
