"""CIFAR-10 and CIFAR-100 (Krizhevsky 2009): 50,000 + 10,000 images of 3x32x32, in their binary layout.

A record is one label byte (CIFAR-100: the coarse one, then the fine one, which counts) and 3,072 pixels, channel by
channel: red, green, blue. The other official layout, "python version", is pickled: reading it would run whatever code
it holds, so it isn't read.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from minires.data.dataset import Dataset, prepare
from minires.data.files import find, read

SHAPE = (3, 32, 32)
PIXELS = 3 * 32 * 32
MOST_RECORDS = 50_000  # of any file: CIFAR-100's train.bin
MOST_TEXT = 1 << 16  # bytes of class names


def load_cifar10(folder: str | Path) -> Dataset:
    """The images (3, 32, 32) in ``folder``: ``data_batch_1.bin`` to ``5``, ``test_batch.bin``, ``batches.meta.txt``.

    As float32 they take 740 MB. Raises FileNotFoundError, with the path and where to get it, and ValueError for a
    damaged file.
    """
    batches = [f"data_batch_{i}.bin" for i in range(1, 6)]
    return _load("cifar10", Path(folder), batches, "test_batch.bin", "batches.meta.txt", label_bytes=1)


def load_cifar100(folder: str | Path) -> Dataset:
    """The same for CIFAR-100's ``train.bin``, ``test.bin``, ``fine_label_names.txt``, with the 100 fine labels."""
    return _load("cifar100", Path(folder), ["train.bin"], "test.bin", "fine_label_names.txt", label_bytes=2)


def _load(name: str, folder: Path, train: Sequence[str], test: str, class_names: str, *, label_bytes: int) -> Dataset:
    number = name.removeprefix("cifar")
    source = f"unpack https://www.cs.toronto.edu/~kriz/cifar-{number}-binary.tar.gz there (the binary version)"
    classes = _read_names(find(folder, class_names, source))
    parts = [_read_records(find(folder, file, source), label_bytes) for file in train]
    images, labels = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
    return prepare(name, (images, labels), _read_records(find(folder, test, source), label_bytes), classes)


def _read_names(path: Path) -> tuple[str, ...]:
    try:
        classes = tuple(read(path, MOST_TEXT).decode().split())
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} must be text, a class on each line ({error}); fetch it again") from error
    if not classes or len(set(classes)) < len(classes):
        raise ValueError(f"{path} must name each class once, on a line of its own; fetch it again")
    return classes


def _read_records(path: Path, label_bytes: int) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    length = label_bytes + PIXELS
    content = np.frombuffer(read(path, MOST_RECORDS * length), np.uint8)
    if not content.size or content.size % length:
        raise ValueError(
            f"{path} has {content.size} bytes, which is no whole number of records of {length}; it is damaged, cut "
            "short or of another layout: fetch it again"
        )
    records = content.reshape(-1, length)
    return records[:, label_bytes:].reshape(-1, *SHAPE), records[:, label_bytes - 1]  # (N, 3, 32, 32), (N,)
