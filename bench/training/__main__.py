"""``python -m bench.training``: do models train as well as with nn.Dropout?"""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from tqdm import tqdm

from bench.report import Report, add_options
from bench.tables import as_frame, text
from bench.training.data import digits, mnist, mnist1d
from bench.training.experiment import COMPARED, FORMS, Task, train
from bench.training.summary import paired_test, plot, score_table


def _options() -> argparse.ArgumentParser:
    options = argparse.ArgumentParser(prog="python -m bench.training", description=__doc__)
    add_options(options)
    add, default = options.add_argument, Task()
    add("--data", type=Path, metavar="DIR", help="train on the MNIST of DIR/mnist.npz")
    add("--forms", nargs="+", choices=tuple(FORMS), default=COMPARED, metavar="FORM")
    add("--widths", nargs="+", type=int, default=default.widths, help="of the hidden layers")
    add("--p", type=float, default=default.p)
    add("--seeds", type=int, default=5)
    add("--epochs", type=int, default=default.epochs)
    add("--batch", type=int, default=default.batch)
    add("--learning-rate", type=float, default=default.learning_rate)
    add("--plot", type=Path, metavar="FILE", help="curves of training and test accuracy, PNG")
    return options


def main(arguments: Sequence[str] | None = None) -> int:
    """Trains, prints the table and the paired test, writes what was asked for."""
    chosen = _options().parse_args(arguments)
    report = Report("bench.training", chosen)
    task = Task(**{name: getattr(chosen, name) for name in asdict(Task())})
    report.task = asdict(task)
    sets = [mnist(chosen.data)] if chosen.data else [mnist1d(), digits()]
    title = (
        f"Perceptron with hidden layers of {', '.join(map(str, task.widths))}, p = {task.p:g}, "
        f"{chosen.seeds} seeds"
    )
    print(f"{title}, {task.epochs} epochs of Adam; mean ± standard deviation over the seeds\n")
    # Seed by seed, so that a drift of the machine touches all forms alike.
    runs = [(d, seed, form) for d in sets for seed in range(chosen.seeds) for form in chosen.forms]
    for data, seed, form in tqdm(runs, desc="runs", unit="run", disable=None):
        report.records.append(train(task, data.to(task.device), form, seed))
    frame = as_frame(report.records)
    report.finish([*text(score_table(frame)), "", *paired_test(frame)])
    if chosen.plot:
        plot(frame, title, chosen.plot)
    return 0


if __name__ == "__main__":
    sys.exit(main())
