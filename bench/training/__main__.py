"""``python -m bench.training``: do models train as well as with nn.Dropout?"""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import torch
from tqdm import tqdm

from bench.facts import describe, facts
from bench.load import Load, warning
from bench.output import write_json
from bench.training.data import Data, digits, mnist
from bench.training.experiment import Outcome, Task, train
from bench.training.explain import explain
from bench.training.models import FORMS, NETWORKS
from bench.training.report import paired_test, score_table

SCHEMA = "dropout_ext.training/1"


def _options() -> argparse.ArgumentParser:
    options = argparse.ArgumentParser(prog="python -m bench.training", description=__doc__)
    add = options.add_argument
    add("--data", type=Path, metavar="DIR", help="MNIST: idx files or mnist.npz (default: digits)")
    add("--network", choices=tuple(NETWORKS), default="mlp")
    add("--forms", nargs="+", choices=tuple(FORMS), default=tuple(FORMS), metavar="FORM")
    add("--seeds", type=int, default=5)
    add("--epochs", type=int, default=30)
    add("--batch", type=int, default=64)
    add("--learning-rate", type=float, default=1e-3)
    add("--mc-samples", type=int, default=50, help="passes of MC dropout")
    add("--device", choices=("cpu", "cuda"), default="cpu")
    add("--threads", type=int)
    add("--plot", type=Path, metavar="FILE", help="curves of training and test accuracy, PNG")
    add("--json", type=Path, metavar="FILE")
    add("--explain", action="store_true", help="only the arithmetic of dropout, on small numbers")
    return options


def _train_all(task: Task, data: Data, forms: Sequence[str], seeds: int) -> list[Outcome]:
    """Seed by seed, so that a drift of the machine touches all forms alike."""
    outcomes: dict[str, list[Outcome]] = {}
    runs = [(seed, form) for seed in range(seeds) for form in forms]
    for seed, form in tqdm(runs, desc="runs", unit="run", disable=None):
        for outcome in train(task, data, form, seed):
            outcomes.setdefault(outcome.form, []).append(outcome)
    return [outcome for group in outcomes.values() for outcome in group]


def main(arguments: Sequence[str] | None = None) -> int:
    """Trains, prints the table and the paired test, writes what was asked for."""
    chosen = _options().parse_args(arguments)
    if chosen.threads:
        torch.set_num_threads(chosen.threads)
    if chosen.explain:
        torch.manual_seed(0)
        print("\n".join(explain()))
        return 0
    data = (mnist(chosen.data) if chosen.data else digits()).to(chosen.device)
    task = Task(
        chosen.network, chosen.epochs, chosen.batch, chosen.learning_rate, chosen.mc_samples,
        chosen.device,
    )  # fmt: skip
    found = facts(chosen.device, "bench.training")
    widths, probabilities = NETWORKS[chosen.network]
    sizes = [data.train[0].shape[1], *widths, 10]
    title = (
        f"{data.name}, {len(data.train[0])} samples; {'-'.join(map(str, sizes))}, "
        f"p = {'/'.join(f'{p:g}' for p in probabilities)}, {chosen.epochs} epochs of Adam, "
        f"{chosen.seeds} seeds"
    )
    print("\n".join([*describe(found), title, "mean ± standard deviation over the seeds", ""]))
    load = Load()
    outcomes = _train_all(task, data, chosen.forms, chosen.seeds)
    found["cpu_used_by_others"] = load.of_others()
    lines = [*score_table(outcomes), *paired_test(outcomes), *warning(found["cpu_used_by_others"])]
    print("\n".join(lines))
    if chosen.json:
        records = [asdict(outcome) for outcome in outcomes]
        content = {"schema": SCHEMA, "facts": found, "task": asdict(task), "records": records}
        write_json(chosen.json, content)
    if chosen.plot:
        from bench.training.plot import plot

        plot(outcomes, title, chosen.plot)
    return 0


if __name__ == "__main__":
    sys.exit(main())
