"""One network trained with one form of dropout from one seed, and what came of it."""

import statistics
import time
from dataclasses import dataclass, field

import torch
from sklearn.metrics import f1_score
from torch import Tensor, nn

from bench.extension import dropout_ext
from bench.training.data import Data
from bench.training.models import ELEMENTWISE, MONTE_CARLO, network

CURVE_SAMPLES = 10_000
"""Training samples that the accuracy curves look at."""


@dataclass(frozen=True)
class Task:
    """What is trained, and how."""

    network: str
    epochs: int
    batch: int
    learning_rate: float
    mc_samples: int
    device: str


@dataclass
class Outcome:
    """Of one training run. Scores are on the test set, in [0, 1]."""

    form: str
    seed: int
    accuracy: float
    macro_f1: float
    gap: float
    """Training accuracy minus test accuracy, both evaluated without dropout."""
    step_seconds: float
    train_curve: list[float] = field(default_factory=list)
    test_curve: list[float] = field(default_factory=list)


def _accuracy(logits: Tensor, labels: Tensor) -> float:
    return (logits.argmax(1) == labels).float().mean().item()


def _macro_f1(logits: Tensor, labels: Tensor) -> float:
    return float(f1_score(labels.cpu(), logits.argmax(1).cpu(), average="macro"))


@torch.no_grad()
def _curves(model: nn.Module, data: Data, outcome: Outcome) -> None:
    model.eval()
    features, labels = (tensor[:CURVE_SAMPLES] for tensor in data.train)
    outcome.train_curve.append(_accuracy(model(features), labels))
    outcome.test_curve.append(_accuracy(model(data.test[0]), data.test[1]))
    model.train()


def _epoch(
    model: nn.Module, optimizer: torch.optim.Optimizer, data: Data, batches: list[Tensor]
) -> list[float]:
    seconds = []
    features, labels = data.train
    for index in batches:
        begin = time.perf_counter()
        loss = nn.functional.cross_entropy(model(features[index]), labels[index])
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        if loss.is_cuda:
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - begin)
    return seconds


def train(task: Task, data: Data, form: str, seed: int) -> list[Outcome]:
    """Weights and order of the samples depend on the seed alone, not on the form.

    Returns:
        The outcome; for the elementwise form also that of Monte Carlo dropout, whose training is
        the same.
    """
    torch.manual_seed(seed)
    model = network(task.network, form, data.train[0].shape[1]).to(task.device).train()
    order = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.Adam(model.parameters(), lr=task.learning_rate)
    outcome = Outcome(form, seed, 0.0, 0.0, 0.0, 0.0)
    seconds: list[float] = []
    for _ in range(task.epochs):
        shuffled = torch.randperm(len(data.train[0]), generator=order).to(task.device)
        seconds += _epoch(model, optimizer, data, list(shuffled.split(task.batch)))
        _curves(model, data, outcome)
    features, labels = data.test
    with torch.no_grad():
        logits = model.eval()(features)
    outcome.accuracy, outcome.macro_f1 = _accuracy(logits, labels), _macro_f1(logits, labels)
    outcome.gap = outcome.train_curve[-1] - outcome.accuracy
    outcome.step_seconds = statistics.median(seconds)
    if form != ELEMENTWISE:
        return [outcome]
    return [outcome, _monte_carlo(task, model, data, outcome)]


def _monte_carlo(task: Task, model: nn.Module, data: Data, trained: Outcome) -> Outcome:
    (features, labels), train_labels = data.test, data.train[1][:CURVE_SAMPLES]
    logits = dropout_ext.mc_predict(model, features, samples=task.mc_samples).mean
    seen = dropout_ext.mc_predict(
        model, data.train[0][:CURVE_SAMPLES], samples=task.mc_samples
    ).mean
    accuracy = _accuracy(logits, labels)
    return Outcome(
        MONTE_CARLO, trained.seed, accuracy, _macro_f1(logits, labels),
        _accuracy(seen, train_labels) - accuracy, trained.step_seconds,
    )  # fmt: skip
