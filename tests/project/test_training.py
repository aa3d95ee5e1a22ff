"""bench.training: data in every format, one run of each form, the arithmetic it prints.

Catches: images and labels mixed up; a form that does not train; enumeration and samples that
disagree. The comparison over seeds itself is the benchmark's: `python -m bench.training`.
"""

from __future__ import annotations

import gzip
import struct
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

pytest.importorskip("sklearn", reason="needs scikit-learn")
pytest.importorskip("tqdm", reason="needs tqdm")

# Last, so that an installed dropout_ext comes before the sources in the checkout.
sys.path.append(str(Path(__file__).resolve().parent.parent))

from bench.training import __main__ as command
from bench.training import data, experiment, explain, models, report

IMAGES: NDArray[np.uint8] = np.arange(6 * 28 * 28, dtype=np.uint8).reshape(6, 28, 28)
LABELS: NDArray[np.uint8] = np.array([3, 1, 4, 1, 5, 9], dtype=np.uint8)


def idx(array: NDArray[np.uint8]) -> bytes:
    head = struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape)
    return head + array.tobytes()


def write(folder: Path, form: str) -> None:
    if form == "npz":
        np.savez(
            folder / "mnist.npz",
            x_train=IMAGES, y_train=LABELS, x_test=IMAGES[:2], y_test=LABELS[:2],
        )  # fmt: skip
        return
    dot, suffix = ("-", ".gz") if form == "idx.gz" else (".", "")
    for part, count in (("train", 6), ("t10k", 2)):
        for kind, array in (("images", IMAGES), ("labels", LABELS)):
            raw = idx(array[:count])
            file = folder / f"{part}-{kind}{dot}idx{array.ndim}-ubyte{suffix}"
            file.write_bytes(gzip.compress(raw) if suffix else raw)


@pytest.mark.parametrize("form", ["npz", "idx", "idx.gz"])
def test_mnist_files(tmp_path: Path, form: str) -> None:
    write(tmp_path, form)
    found = data.mnist(tmp_path)
    assert torch.equal(found.train[0], torch.tensor(IMAGES.reshape(6, 784) / 255).float())
    assert found.train[1].tolist() == LABELS.tolist()
    assert found.test[0].shape == (2, 784)


def test_missing_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="train-images-idx3-ubyte"):
        data.mnist(tmp_path)


@pytest.mark.parametrize("form", models.FORMS)
def test_every_form_trains(form: str, set_threads: Callable[[int], None]) -> None:
    """Far above the tenth that guessing gives, after three epochs."""
    set_threads(1)
    task = experiment.Task("mlp", 3, 64, 1e-3, mc_samples=3, device="cpu")
    found = experiment.train(task, data.digits(400), form, seed=0)
    assert found[0].form == form
    assert len(found) == (2 if form == models.ELEMENTWISE else 1)
    for outcome in found:
        assert outcome.accuracy > 0.5
        assert outcome.macro_f1 > 0.5
        assert outcome.step_seconds > 0


def test_paired_test_sees_a_difference_and_its_absence() -> None:
    def outcomes(shift: float) -> list[experiment.Outcome]:
        noise = [0.001, -0.002, 0.0015, 0.0005, -0.001]
        return [
            experiment.Outcome(form, seed, 0.9 + extra, 0.9 + extra, 0.05, 0.01)
            for form, extras in (
                (models.ELEMENTWISE, [shift + n for n in noise]),
                ("nn.Dropout", [-n for n in noise]),
            )
            for seed, extra in enumerate(extras)
        ]

    assert all("no difference" in line for line in report.paired_test(outcomes(0.0))[1:])
    assert all("they differ" in line for line in report.paired_test(outcomes(0.05))[1:])


def test_explanation(capsys: pytest.CaptureFixture[str]) -> None:
    """E[z] = (1 - p)(w1 x + w2 y) = -1.25 for the classic form, z = -2.5 inverted."""
    assert command.main(["--explain"]) == 0
    lines = capsys.readouterr().out.splitlines()
    for head in ("E[z], enumerated", "E[z], formula"):
        (line,) = (line for line in lines if line.startswith(head))
        assert line.split()[-2:] == ["-1.25", "-2.5"]
    (sampled,) = (line for line in lines if line.startswith("sampled mean"))
    words = sampled.replace("sampled mean ± error", "").replace("±", " ").split()
    classic, classic_error, inverted, inverted_error = map(float, words)
    assert abs(classic + 1.25) < 5 * classic_error
    assert abs(inverted + 2.5) < 5 * inverted_error
    assert explain.SAMPLES >= 10**6
