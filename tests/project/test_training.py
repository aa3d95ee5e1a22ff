"""bench.training: its data, one run of each form, the comparison of ours with nn.Dropout.

Catches: features and labels mixed up; a form that does not train; a difference that is not seen.
The comparison over seeds itself is the benchmark's: `python -m bench.training`.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

pytest.importorskip("cpuinfo", reason="needs the packages of the extra bench")
pytest.importorskip("mnist1d", reason="needs the packages of the extra bench")
pytest.importorskip("pandas", reason="needs the packages of the extra bench")

# Last, so that an installed dropout_ext comes before the sources in the checkout.
sys.path.append(str(Path(__file__).resolve().parent.parent))

from bench.tables import as_frame
from bench.training import experiment, summary


@pytest.mark.thorough
def test_mnist1d_is_learned(set_threads: Callable[[int], None]) -> None:
    """Twice as often right as by guessing after two epochs: labels belong to their signals."""
    set_threads(1)
    task = experiment.Task(epochs=2)
    found = experiment.train(task, experiment.mnist1d(), "no dropout", seed=0)
    assert found["test"] > 0.2


@pytest.mark.parametrize("form", experiment.FORMS)
@pytest.mark.thorough
def test_every_form_trains(form: str, set_threads: Callable[[int], None]) -> None:
    """Far above the tenth that guessing gives, after six epochs."""
    set_threads(1)
    task = experiment.Task(epochs=6, batch=64)
    found = experiment.train(task, experiment.digits(400), form, seed=0)
    assert found["form"] == form
    assert found["test"] > 0.5
    assert len(found["train_curve"]) == len(found["test_curve"]) == 6


def test_paired_test_sees_a_difference_and_its_absence() -> None:
    def lines(shift: float) -> list[str]:
        noise = [0.001, -0.002, 0.0015, 0.0005, -0.001]
        forms = {"dropout_ext": [shift + n for n in noise], "nn.Dropout": [-n for n in noise]}
        return summary.paired_test(
            as_frame(
                {"data": "digits", "form": form, "seed": seed, "test": 0.9 + extra}
                for form, extras in forms.items()
                for seed, extra in enumerate(extras)
            )
        )

    assert len(lines(0.0)) == len(lines(0.05)) == 1
    assert "no difference" in lines(0.0)[0]
    assert "they differ" in lines(0.05)[0]
