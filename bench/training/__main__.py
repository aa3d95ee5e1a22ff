"""``python -m bench.training``: do models train as well as with nn.Dropout?"""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from tqdm import tqdm

from bench.report import Report, add_options
from bench.tables import as_frame, text
from bench.training.experiment import COMPARED, FORMS, Task, digits, mnist1d, train
from bench.training.summary import paired_test, plot, score_table


def main(arguments: Sequence[str] | None = None) -> int:
    """Trains, prints the table and the paired test, writes what was asked for."""
    options = argparse.ArgumentParser(prog="python -m bench.training", description=__doc__)
    add_options(options)
    add = options.add_argument
    add("--forms", nargs="+", choices=tuple(FORMS), default=COMPARED, metavar="FORM")
    add("--seeds", type=int, default=5)
    add("--plot", type=Path, metavar="FILE", help="curves of training and test accuracy, PNG")
    for name, value in asdict(Task()).items():
        if name != "device":
            add(f"--{name.replace('_', '-')}", type=type(value), default=value)
    chosen = options.parse_args(arguments)
    report = Report("bench.training", chosen)
    task = Task(**{name: getattr(chosen, name) for name in asdict(Task())})
    report.task = asdict(task)
    sets = {"MNIST-1D": mnist1d(), "digits": digits()}
    title = f"Perceptron with hidden layers of {task.width}, {task.width}, p = {task.p:g}, "
    title += f"{chosen.seeds} seeds"
    print(f"{title}, {task.epochs} epochs of Adam; mean ± standard deviation over the seeds\n")
    # Seed by seed, so that a drift of the machine touches all forms alike.
    runs = [(d, seed, form) for d in sets for seed in range(chosen.seeds) for form in chosen.forms]
    for data, seed, form in tqdm(runs, desc="runs", unit="run", disable=None):
        report.records.append({"data": data, **train(task, sets[data], form, seed)})
    frame = as_frame(report.records)
    report.finish([*text(score_table(frame)), "", *paired_test(frame)])
    if chosen.plot:
        plot(frame, title, chosen.plot)
    return 0


if __name__ == "__main__":
    sys.exit(main())
