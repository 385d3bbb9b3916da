"""The papers' augmentation of CIFAR images, on whole batches, drawn from a passed generator.

"4 pixels are padded on each side, and a 32x32 crop is randomly sampled from the padded image or its horizontal flip"
(He et al. 2015, section 4.2). The per-pixel mean is subtracted before (:func:`minires.data.dataset.prepare`), so that
the zeros of the border are average pixels.
"""

from __future__ import annotations

from typing import Any

import numpy as np

Images = np.ndarray[Any, Any]


def random_crop(images: Images, *, padding: int = 4, rng: np.random.Generator) -> Images:
    """Each image (N, C, H, W) shifted by up to ``padding`` pixels each way, every shift equally likely.

    That is: padded with zeros on each side, then cropped to H x W at a random place. Raises ValueError for another
    rank or a negative padding.
    """
    _require_batch("random_crop", images)
    if padding < 0:
        raise ValueError(f"random_crop: padding must not be negative, got {padding}")
    N, _, H, W = images.shape
    padded = np.pad(images, ((0, 0), (0, 0), (padding, padding), (padding, padding)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (H, W), (2, 3))  # (N, C, shifts, shifts, H, W)
    rows, columns = rng.integers(2 * padding + 1, size=(2, N))
    return windows[np.arange(N), :, rows, columns]  # (N, C, H, W)


def random_flip(images: Images, *, rng: np.random.Generator) -> Images:
    """Each image (N, C, H, W) mirrored left to right with probability 1/2. Raises ValueError for another rank."""
    _require_batch("random_flip", images)
    mirrored = rng.integers(2, size=len(images)).astype(bool)
    return np.where(mirrored[:, None, None, None], images[..., ::-1], images)


def crop_and_flip(images: Images, rng: np.random.Generator) -> Images:
    """The papers' augmentation: :func:`random_crop` with padding 4, then :func:`random_flip`. A Loader's transform."""
    return random_flip(random_crop(images, rng=rng), rng=rng)


def _require_batch(op: str, images: Images) -> None:
    if images.ndim != 4:
        raise ValueError(f"{op}: images must be (N, C, H, W), got shape {images.shape}")
