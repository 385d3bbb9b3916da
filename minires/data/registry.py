"""Data sets by name."""

from __future__ import annotations

import difflib
from pathlib import Path

from minires.data.cifar import load_cifar10, load_cifar100
from minires.data.dataset import Dataset
from minires.data.digits import load_digits
from minires.data.mnist import load_mnist

FOLDERS = {
    "mnist": (load_mnist, "mnist"),
    "cifar10": (load_cifar10, "cifar-10-batches-bin"),
    "cifar100": (load_cifar100, "cifar-100-binary"),
}
"""Each data set that is read from files: its loader and the folder it looks for, named as in its archive."""


def names() -> list[str]:
    """The data sets that :func:`load` knows."""
    return ["digits", *FOLDERS]


def load(name: str, root: str | Path | None = None) -> Dataset:
    """The data set ``name``, normalized, with a training and a test split.

    ``root`` (default ``data``) holds the folders ``mnist``, ``cifar-10-batches-bin``, ``cifar-100-binary``; ``digits``
    is part of the package and takes no root. Raises ValueError with the nearest names for an unknown one,
    FileNotFoundError with the path and where to get it for a missing file.
    """
    if name == "digits":
        if root is not None:
            raise ValueError("data.load: digits is part of the package and takes no root")
        return load_digits()
    if name not in FOLDERS:
        close = difflib.get_close_matches(name, names(), n=3, cutoff=0.4) or names()
        raise ValueError(f"data.load: there is no data set {name!r}; the nearest: {', '.join(close)}")
    loader, folder = FOLDERS[name]
    return loader(Path("data" if root is None else root) / folder)
