"""What a data set is: images and labels, as arrays, split into training and test, normalized alike."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from minires.display import brief_fields

ArrayF32 = np.ndarray[Any, np.dtype[np.float32]]
ArrayI64 = np.ndarray[Any, np.dtype[np.int64]]


@dataclass(frozen=True)
class Split:
    """``images`` float32 (N, C, H, W) and ``labels`` int64 (N,): one of them for each image, from 0 on.

    Raises ValueError for another rank or when the counts differ, TypeError for other dtypes.
    """

    images: ArrayF32
    labels: ArrayI64

    __repr__ = brief_fields

    def __post_init__(self) -> None:
        images, labels = self.images, self.labels
        if images.ndim != 4 or labels.ndim != 1 or len(images) != len(labels):
            raise ValueError(
                "Split: images must be (N, C, H, W) and labels (N,) with the same N, "
                f"got images {images.shape}, labels {labels.shape}"
            )
        if images.dtype != np.float32 or labels.dtype != np.int64:
            raise TypeError(f"Split: images must be float32 and labels int64, got {images.dtype} and {labels.dtype}")

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True)
class Dataset:
    """A training and a test split and what is known about both.

    ``mean`` (C, H, W) was subtracted from all images, ``std`` divides them: both are the training images' own.
    ``classes`` names the labels.
    """

    name: str
    train: Split
    test: Split
    classes: tuple[str, ...]
    mean: ArrayF32
    std: float

    __repr__ = brief_fields

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(C, H, W) of each image."""
        _, C, H, W = self.train.images.shape
        return C, H, W


def prepare(
    name: str,
    train: tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]],
    test: tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]],
    classes: tuple[str, ...],
) -> Dataset:
    """The data set of raw (images, labels), each uint8: (N, C, H, W) and (N,).

    The mean of the training images, pixel by pixel, is subtracted from all (He et al. 2015, section 4.2), and all are
    divided by the standard deviation of all training pixels. The paper doesn't divide; the batch norm behind the first
    convolution makes the scale immaterial there, and a net without one needs it.

    Raises ValueError for a label that names no class, for no training images or pixels, and for images that are all the
    same.
    """
    for split, labels in (("training", train[1]), ("test", test[1])):
        if labels.size and labels.max() >= len(classes):
            raise ValueError(
                f"{name}: {split} label {labels.max()} at position {labels.argmax()} names none of "
                f"{len(classes)} classes; the file is damaged or of another data set"
            )
    if not train[0].size:
        raise ValueError(f"{name}: there are no training images, or no pixels in them: {train[0].shape}")
    mean = train[0].mean(0, dtype=np.float64).astype(np.float32)  # (C, H, W)
    std = float(train[0].std(dtype=np.float64))
    if not std:
        raise ValueError(f"{name}: all training pixels have the same value, {train[0].flat[0]}")
    return Dataset(name, _normalized(*train, mean, std), _normalized(*test, mean, std), classes, mean, std)


def _normalized(images: np.ndarray[Any, Any], labels: np.ndarray[Any, Any], mean: ArrayF32, std: float) -> Split:
    normalized = images.astype(np.float32)
    normalized -= mean
    normalized /= np.float32(std)
    return Split(normalized, labels.astype(np.int64))
