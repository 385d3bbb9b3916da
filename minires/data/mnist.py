"""MNIST (LeCun, Cortes and Burges 1998): 60,000 + 10,000 images of 28x28, in four files of the IDX format."""

from __future__ import annotations

import math
import struct
from pathlib import Path
from typing import Any

import numpy as np

from minires.data.dataset import Dataset, prepare
from minires.data.files import find, read

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

    Raises ValueError when the file isn't of this form, or is shorter or longer than it says.
    """
    content = read(path)
    rank = content[3] if len(content) >= 4 else 0
    start = 4 + 4 * rank
    if content[:3] != b"\0\0\x08" or len(content) < start:
        raise ValueError(f"{path} is no IDX file of bytes: it begins with {content[:4].hex(' ') or 'nothing'}")
    shape = struct.unpack(f">{rank}I", content[4:start])
    expected = start + math.prod(shape)
    if len(content) != expected:
        raise ValueError(f"{path} has {len(content)} bytes, but says {shape} and needs {expected}; fetch it again")
    return np.frombuffer(content, np.uint8, offset=start).reshape(shape)


def _read_split(folder: Path, prefix: str) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    paths = [find(folder, f"{prefix}-{kind}-ubyte", SOURCE) for kind in ("images-idx3", "labels-idx1")]
    images, labels = map(read_idx, paths)
    if images.ndim != 3 or labels.shape != images.shape[:1]:
        raise ValueError(
            f"mnist: {paths[0]} must be (N, H, W) and {paths[1]} (N,) with the same N, "
            f"got {images.shape} and {labels.shape}"
        )
    return images[:, None], labels  # (N, 1, H, W), (N,)
