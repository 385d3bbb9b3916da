"""MNIST (LeCun, Cortes and Burges 1998): 60,000 + 10,000 images of 28x28, in four files of the IDX format."""

from __future__ import annotations

import math
import struct
from pathlib import Path
from typing import Any

import numpy as np

from minires.data.dataset import Dataset, prepare
from minires.data.files import find, read_at_most, unpacked

MOST_LENGTHS = 4
LIMIT = 1 << 30  # bytes of images; the largest relative of MNIST in this format, EMNIST, has 0.6 of them
SOURCE = "get the four files of MNIST, for example from https://ossci-datasets.s3.amazonaws.com/mnist/"


def load_mnist(folder: str | Path) -> Dataset:
    """The images (1, 28, 28) of ``folder``: ``train-images-idx3-ubyte`` and so on, packed (``.gz``) or not.

    Raises FileNotFoundError, with the path and where to get it, and ValueError for a damaged file.
    """
    train, test = (_read_split(Path(folder), prefix) for prefix in ("train", "t10k"))
    if train[0].shape[1:] != test[0].shape[1:]:
        raise ValueError(f"mnist: training images {train[0].shape} and test images {test[0].shape} differ in size")
    return prepare("mnist", train, test, tuple("0123456789"))


def read_idx(path: Path) -> np.ndarray[Any, Any]:
    """The array of unsigned bytes in an IDX file: two zeros, type 8, the rank, each length big-endian, the elements.

    No more is unpacked than the file says. Raises ValueError when it isn't of this form, says more than ``LIMIT`` or
    nothing, or is shorter or longer than it says.
    """
    with unpacked(path) as file:
        head = read_at_most(file, 4)
        rank = head[3] if len(head) == 4 and head[3] <= MOST_LENGTHS else 0
        lengths = read_at_most(file, 4 * rank)
        if head[:3] != b"\0\0\x08" or not rank or len(lengths) < 4 * rank:
            raise ValueError(f"{path} is no IDX file of bytes: it begins with {head.hex(' ') or 'nothing'}; {SOURCE}")
        shape = struct.unpack(f">{rank}I", lengths)
        expected = math.prod(shape)
        if not 0 < expected <= LIMIT:
            raise ValueError(f"{path} says {shape}, {expected} bytes, not 1 to {LIMIT}; it is damaged: {SOURCE}")
        content = read_at_most(file, expected)
        rest = read_at_most(file, 1)
    if len(content) != expected or rest:
        found = f"more than {expected}" if rest else len(content)
        raise ValueError(f"{path} says {shape}, {expected} bytes, but holds {found}; fetch it again")
    return np.frombuffer(content, np.uint8).reshape(shape)


def _read_split(folder: Path, prefix: str) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    paths = [find(folder, f"{prefix}-{kind}-ubyte", SOURCE) for kind in ("images-idx3", "labels-idx1")]
    images, labels = map(read_idx, paths)
    if images.ndim != 3 or labels.shape != images.shape[:1]:
        raise ValueError(
            f"mnist: {paths[0]} must be (N, H, W) and {paths[1]} (N,) with the same N, "
            f"got {images.shape} and {labels.shape}"
        )
    return images[:, None], labels  # (N, 1, H, W), (N,)
