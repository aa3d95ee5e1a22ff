"""One network trained with one form of dropout from one seed, and what came of it."""

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from bench.candidates import BASELINE, OURS
from bench.extension import dropout_ext
from bench.training.data import Data

WITHOUT = "no dropout"
COMPARED = (WITHOUT, BASELINE, OURS)

FORMS: dict[str, Callable[[float, nn.Linear], Sequence[nn.Module]]] = {
    WITHOUT: lambda p, layer: [layer],
    BASELINE: lambda p, layer: [nn.Dropout(p), layer],
    OURS: lambda p, layer: [dropout_ext.Dropout(p), layer],
    "node-wise": lambda p, layer: [dropout_ext.Dropout(p, broadcast_dims=0), layer],
    "DropConnect": lambda p, layer: [dropout_ext.drop_connect(layer, p)],
    "classic": lambda p, layer: [dropout_ext.Dropout(p, mode="downscale_in_infer"), layer],
}
"""What stands between an activation and the layer that follows, for a probability."""

_CURVE_SAMPLES = 10_000
"""Training samples that the accuracy curves look at."""


@dataclass(frozen=True)
class Task:
    """What is trained, and how."""

    widths: Sequence[int] = (256, 256)
    p: float = 0.5
    epochs: int = 60
    batch: int = 128
    learning_rate: float = 1e-3
    device: str = "cpu"


def network(task: Task, form: str, features: int, classes: int = 10) -> nn.Sequential:
    """Linear layers with ReLU; the form of dropout before every layer but the first."""
    sizes = [features, *task.widths, classes]
    first, *others = itertools.starmap(nn.Linear, itertools.pairwise(sizes))
    layers: list[nn.Module] = [first]
    for layer in others:
        layers += [nn.ReLU(), *FORMS[form](task.p, layer)]
    return nn.Sequential(*layers)


@torch.no_grad()
def _accuracy(model: nn.Module, samples: tuple[Tensor, Tensor]) -> float:
    features, labels = (tensor[:_CURVE_SAMPLES] for tensor in samples)
    hits: Tensor = model.eval()(features).argmax(1) == labels
    model.train()
    return hits.float().mean().item()


def train(task: Task, data: Data, form: str, seed: int) -> dict[str, Any]:
    """Weights and order of the samples depend on the seed alone, not on the form.

    Returns:
        Accuracy without dropout, in [0, 1], on training and test data after each epoch, and the
        gap between the two at the end.
    """
    torch.manual_seed(seed)
    features, labels = data.train
    model = network(task, form, features.shape[1]).to(task.device).train()
    order = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.Adam(model.parameters(), lr=task.learning_rate)
    curves: dict[str, list[float]] = {"train_curve": [], "test_curve": []}
    for _ in range(task.epochs):
        shuffled = torch.randperm(len(features), generator=order).to(task.device)
        for index in shuffled.split(task.batch):
            optimizer.zero_grad(set_to_none=True)
            nn.functional.cross_entropy(model(features[index]), labels[index]).backward()
            optimizer.step()
        for part, samples in (("train", data.train), ("test", data.test)):
            curves[f"{part}_curve"].append(_accuracy(model, samples))
    ends = {part: curves[f"{part}_curve"][-1] for part in ("train", "test")}
    place = {"data": data.name, "form": form, "seed": seed}
    return {**place, **ends, "gap": ends["train"] - ends["test"], **curves}
