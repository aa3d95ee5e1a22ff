"""Images of digits: scikit-learn's, which need no download, or MNIST in its usual files."""

import gzip
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True)
class Data:
    """Features of shape (N, D) in [0, 1] and labels of shape (N,)."""

    name: str
    train: tuple[Tensor, Tensor]
    test: tuple[Tensor, Tensor]

    def to(self, device: str) -> "Data":
        """On another device."""
        train, test = (
            (features.to(device), labels.to(device)) for features, labels in (self.train, self.test)
        )
        return Data(self.name, train, test)


def digits(train_size: int = 1000) -> Data:
    """scikit-learn's 1797 digits of 8 x 8, split once, in equal shares of the classes."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    features, labels = load_digits(return_X_y=True)
    parts = train_test_split(
        features / 16, labels, train_size=train_size, stratify=labels, random_state=0
    )
    x_train, x_test, y_train, y_test = parts
    return Data("digits", _tensors(x_train, y_train), _tensors(x_test, y_test))


def mnist(folder: Path) -> Data:
    """From ``mnist.npz`` as of Keras, or from the four idx files, gzipped or not.

    Raises:
        SystemExit: if the folder has neither.
    """
    archive = folder / "mnist.npz"
    if archive.is_file():
        with np.load(archive) as found:
            pairs = [(found[f"x_{part}"], found[f"y_{part}"]) for part in ("train", "test")]
    else:
        pairs = [
            (_idx(folder, f"{part}-images", 3), _idx(folder, f"{part}-labels", 1))
            for part in ("train", "t10k")
        ]
    train, test = (_tensors(x.reshape(len(x), -1) / 255, y) for x, y in pairs)
    return Data("MNIST", train, test)


def _tensors(features: np.ndarray, labels: np.ndarray) -> tuple[Tensor, Tensor]:
    return torch.tensor(features, dtype=torch.float32), torch.tensor(labels, dtype=torch.int64)


def _idx(folder: Path, name: str, ndim: int) -> np.ndarray:
    candidates = [f"{name}{dot}idx{ndim}-ubyte{gz}" for dot in "-." for gz in ("", ".gz")]
    for candidate in candidates:
        file = folder / candidate
        if file.is_file():
            raw = gzip.decompress(file.read_bytes()) if file.suffix == ".gz" else file.read_bytes()
            shape = np.frombuffer(raw, ">u4", ndim, offset=4).astype(int)
            return np.frombuffer(raw, np.uint8, offset=4 + 4 * ndim).reshape(shape)
    raise SystemExit(f"--data: the folder has neither mnist.npz nor any of {', '.join(candidates)}")
