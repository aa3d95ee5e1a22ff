"""Data that needs no download, and one network trained with one form of dropout from one seed."""

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from bench.candidates import BASELINE, OURS
from bench.extension import dropout_ext

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

Arrays = Sequence[Any]
"""Features (N, D) and labels (N,) to train on, then those of the test."""


def mnist1d() -> Arrays:
    """4,000 signals of 40 samples to train on, 1,000 to test: the package's own defaults."""
    from mnist1d.data import get_dataset_args, make_dataset

    made = make_dataset(get_dataset_args())
    return [made[name] for name in ("x", "y", "x_test", "y_test")]


def digits(train_size: int = 1000) -> Arrays:
    """scikit-learn's 1797 digits of 8 x 8, split once, in equal shares of the classes."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    x, y = load_digits(return_X_y=True)
    split = train_test_split(x / 16, y, train_size=train_size, stratify=y, random_state=0)
    return [split[part] for part in (0, 2, 1, 3)]


@dataclass(frozen=True)
class Task:
    """How a perceptron is trained."""

    width: int = 256
    p: float = 0.5
    epochs: int = 60
    batch: int = 128
    learning_rate: float = 1e-3
    device: str = "cpu"


def network(task: Task, form: str, features: int) -> nn.Sequential:
    """Two hidden layers with ReLU; the form of dropout after each."""
    sizes = [features, task.width, task.width, 10]
    first, *others = itertools.starmap(nn.Linear, itertools.pairwise(sizes))
    layers: list[nn.Module] = [first]
    for layer in others:
        layers += [nn.ReLU(), *FORMS[form](task.p, layer)]
    return nn.Sequential(*layers).to(task.device)


@torch.no_grad()
def _accuracy(model: nn.Module, features: Tensor, labels: Tensor) -> float:
    hits: Tensor = model.eval()(features).argmax(1) == labels
    model.train()
    return hits.float().mean().item()


def train(task: Task, data: Arrays, form: str, seed: int) -> dict[str, Any]:
    """Weights and order of the samples depend on the seed alone, not on the form.

    Returns:
        Accuracy without dropout, in [0, 1], on training and test data after each epoch, and the
        gap between the two at the end.
    """
    kinds = (torch.float32, torch.int64) * 2
    x, y, *test = (
        torch.tensor(a, dtype=k, device=task.device) for a, k in zip(data, kinds, strict=True)
    )
    torch.manual_seed(seed)
    model = network(task, form, x.size(1))
    order = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.Adam(model.parameters(), lr=task.learning_rate)
    curves: tuple[list[float], list[float]] = ([], [])
    for _ in range(task.epochs):
        for index in torch.randperm(len(x), generator=order).to(task.device).split(task.batch):
            optimizer.zero_grad(set_to_none=True)
            nn.functional.cross_entropy(model(x[index]), y[index]).backward()
            optimizer.step()
        for curve, samples in zip(curves, ((x, y), test), strict=True):
            curve.append(_accuracy(model, *samples))
    ends = {"train": curves[0][-1], "test": curves[1][-1], "gap": curves[0][-1] - curves[1][-1]}
    return {"form": form, "seed": seed, **ends, "train_curve": curves[0], "test_curve": curves[1]}
