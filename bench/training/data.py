"""Data that needs no download: MNIST-1D and scikit-learn's digits; MNIST where its files are."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True)
class Data:
    """Features of shape (N, D) and labels of shape (N,), for training and for the test."""

    name: str
    train: tuple[Tensor, Tensor]
    test: tuple[Tensor, Tensor]

    def to(self, device: str) -> "Data":
        """On another device."""
        train, test = ((x.to(device), y.to(device)) for x, y in (self.train, self.test))
        return Data(self.name, train, test)


def _data(name: str, x: Any, y: Any, x_test: Any, y_test: Any) -> Data:
    train, test = (
        (torch.tensor(features, dtype=torch.float32), torch.tensor(labels, dtype=torch.int64))
        for features, labels in ((x, y), (x_test, y_test))
    )
    return Data(name, train, test)


def mnist1d() -> Data:
    """4,000 signals of 40 samples to train on, 1,000 to test: the package's own defaults."""
    from mnist1d.data import get_dataset_args, make_dataset

    made = make_dataset(get_dataset_args())
    return _data("MNIST-1D", made["x"], made["y"], made["x_test"], made["y_test"])


def digits(train_size: int = 1000) -> Data:
    """scikit-learn's 1797 digits of 8 x 8, split once, in equal shares of the classes."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    x, y = load_digits(return_X_y=True)
    parts = train_test_split(x / 16, y, train_size=train_size, stratify=y, random_state=0)
    x, x_test, y, y_test = parts
    return _data("digits", x, y, x_test, y_test)


def mnist(folder: Path) -> Data:
    """From ``mnist.npz`` as of Keras."""
    file = folder / "mnist.npz"
    if not file.is_file():
        raise SystemExit(f"--data: the folder must hold {file.name}, and does not")
    with np.load(file) as found:
        x, x_test = (
            found[name].reshape(len(found[name]), -1) / 255 for name in ("x_train", "x_test")
        )
        return _data("MNIST", x, found["y_train"], x_test, found["y_test"])
