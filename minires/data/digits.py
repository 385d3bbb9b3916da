"""scikit-learn's 8x8 digits, embedded: real images that need no download and train in seconds.

Source: "Optical Recognition of Handwritten Digits", E. Alpaydin and C. Kaynak, 1998, UCI Machine Learning Repository,
https://doi.org/10.24432/C50P49, licensed CC BY 4.0 (``digits.LICENSE.txt`` beside this file), in scikit-learn's copy.
``digits.npz`` stores the 1,797 images as bytes of 0 to 16, shuffled once, in the order
``numpy.random.default_rng(0).permutation(1797)`` of scikit-learn's, so that the split is a cut.
"""

from __future__ import annotations

from importlib.resources import files

import numpy as np

from minires.data.dataset import Dataset, prepare

TRAINING_IMAGES = 1500


def load_digits() -> Dataset:
    """1,500 training and 297 test images (1, 8, 8) of the digits 0 to 9, normalized by the training images."""
    with (files("minires.data") / "digits.npz").open("rb") as file, np.load(file, allow_pickle=False) as stored:
        images, labels = stored["images"][:, None], stored["labels"]  # (1797, 1, 8, 8), (1797,)
    cut = TRAINING_IMAGES
    return prepare("digits", (images[:cut], labels[:cut]), (images[cut:], labels[cut:]), tuple("0123456789"))
