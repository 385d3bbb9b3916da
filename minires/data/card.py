"""What a trained net must know of its data: the images' shape, the classes, and how the images were normalized."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from minires.data.dataset import ArrayF32, Dataset, Split


@dataclass(frozen=True, eq=False)
class DataCard:
    """``mean`` (C, H, W) was subtracted from all images, ``std`` divided them; ``classes`` names the labels.

    >>> from minires.data import DataCard, load_digits
    >>> card = DataCard.of(load_digits())
    >>> card.name, card.image_shape, card.classes[3]
    ('digits', (1, 8, 8), '3')
    """

    name: str
    classes: tuple[str, ...]
    mean: ArrayF32
    std: float

    @classmethod
    def of(cls, dataset: Dataset) -> DataCard:
        """The card of ``dataset``."""
        return cls(dataset.name, dataset.classes, dataset.mean, dataset.std)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(C, H, W) of each image."""
        C, H, W = self.mean.shape
        return C, H, W

    def normalize(self, dataset: Dataset) -> Dataset:
        """``dataset`` normalized by this card's mean and deviation instead of its own: as a net knows its images.

        Raises ValueError when it is other data: another shape of images, or other classes.
        """
        differences = []
        if dataset.image_shape != self.image_shape:
            differences.append(f"images of shape {dataset.image_shape}, not {self.image_shape}")
        if dataset.classes != self.classes:
            differences.append(f"the classes {_listed(dataset.classes)}, not {_listed(self.classes)}")
        if differences:
            raise ValueError(
                f"the net was trained on {self.name}, and {dataset.name} has {' and '.join(differences)}: what it "
                f"would say of them means nothing; give it {self.name}, or train a net on {dataset.name}"
            )
        if dataset.std == self.std and np.array_equal(dataset.mean, self.mean):
            return dataset
        train, test = (self._normalized(split, dataset) for split in (dataset.train, dataset.test))
        return Dataset(dataset.name, train, test, dataset.classes, self.mean, self.std)

    def _normalized(self, split: Split, dataset: Dataset) -> Split:
        raw = split.images * np.float32(dataset.std) + dataset.mean
        return Split((raw - self.mean) / np.float32(self.std), split.labels)

    def to_json(self) -> dict[str, Any]:
        """The card in types that JSON has; nothing is lost."""
        return {
            "name": self.name,
            "classes": list(self.classes),
            "image_shape": list(self.image_shape),
            "mean": [float(str(value)) for value in self.mean.ravel()],  # the fewest digits that mean this float32
            "std": self.std,
        }

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> DataCard:
        """What :meth:`to_json` gave. Raises ValueError, TypeError or KeyError for anything else."""
        name, classes, std = stored["name"], stored["classes"], stored["std"]
        if not isinstance(classes, list) or not all(isinstance(each, str) for each in (name, *classes)):
            raise TypeError("the name of its data must be a text, and the classes a list of texts")
        if not all(each.isprintable() for each in (name, *classes)):  # else it could give a terminal commands
            raise ValueError("the name of its data and the classes must be printable")
        if not classes:
            raise ValueError("the classes of its data must be at least one")
        shape = stored["image_shape"]
        if not isinstance(shape, list) or len(shape) != 3 or not all(type(size) is int and size > 0 for size in shape):
            raise ValueError(f"image_shape of its data must be [C, H, W], each at least 1, got {shape!r:.50}")
        with np.errstate(over="ignore"):  # what overflows isn't finite
            mean = np.array(stored["mean"], np.float32).reshape(shape)  # (C, H, W)
        if not np.isfinite(mean).all() or not 0 < float(std) < np.inf:
            raise ValueError("mean (C, H, W) and std of its data must be finite, and std above 0")
        return cls(name, tuple(classes), mean, float(std))


def _listed(classes: tuple[str, ...]) -> str:
    return f"{', '.join(classes[:10])}{' ...' if classes[10:] else ''} ({len(classes)})"
