"""Initial weights: He et al. 2015 ("Delving Deep into Rectifiers") and Glorot and Bengio 2010. The rng is passed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np

from minires.arguments import described, require_generator, require_integer
from minires.functional.checks import require_addressable

Fan = Literal["fan_in", "fan_out"]
Floats = np.ndarray[Any, np.dtype[np.float32]]


def fans(shape: Sequence[int]) -> tuple[int, int]:
    """(fan_in, fan_out) of a weight: (out, in) for linear, (O, C/groups, KH, KW) for convolution.

    fan_in = in * KH * KW numbers flow into each output, fan_out = out * KH * KW outputs hang on each input.
    Raises TypeError for anything but integers, ValueError for negative ones, for fewer than two axes, and for a weight
    that is larger than memory.
    """
    if isinstance(shape, (str, bytes)) or not isinstance(shape, Sequence):
        raise TypeError(f"fans: the shape of a weight must be a tuple (out, in, ...), got {described(shape)}")
    lengths = [require_integer("fans", "each length of the shape", length) for length in shape]
    if len(lengths) < 2 or min(lengths) < 0:
        raise ValueError(f"fans: a weight has at least two axes (out, in, ...) of 0 or more, got {tuple(shape)}")
    require_addressable("fans", lengths, np.float64)
    taps = math.prod(lengths[2:])
    return lengths[1] * taps, lengths[0] * taps


def he_normal(shape: Sequence[int], *, rng: np.random.Generator, fan: Fan = "fan_in") -> Floats:
    """N(0, 2 / fan), float32: keeps the variance through ReLU, forward (fan_in, eq. 10) or backward (fan_out, eq. 14).

    Raises ValueError for another ``fan`` and for shapes of fewer than two axes.
    """
    return _normal(2 / _chosen(shape, fan), shape, rng)


def he_uniform(shape: Sequence[int], *, rng: np.random.Generator, fan: Fan = "fan_in") -> Floats:
    """U(-b, b) with b = sqrt(6 / fan), float32: the same variance 2 / fan as :func:`he_normal`."""
    return _uniform(6 / _chosen(shape, fan), shape, rng)


def xavier_normal(shape: Sequence[int], *, rng: np.random.Generator) -> Floats:
    """N(0, 2 / (fan_in + fan_out)), float32: for linear and tanh layers (Glorot and Bengio 2010, eq. 12)."""
    return _normal(2 / max(sum(fans(shape)), 1), shape, rng)


def xavier_uniform(shape: Sequence[int], *, rng: np.random.Generator) -> Floats:
    """U(-b, b) with b = sqrt(6 / (fan_in + fan_out)), float32 (Glorot and Bengio 2010, eq. 16)."""
    return _uniform(6 / max(sum(fans(shape)), 1), shape, rng)


def _normal(variance: float, shape: Sequence[int], rng: np.random.Generator) -> Floats:
    draws = require_generator("initializers", rng).standard_normal(tuple(shape))
    return (draws * np.sqrt(variance)).astype(np.float32)  # type: ignore[no-any-return]


def _uniform(squared_bound: float, shape: Sequence[int], rng: np.random.Generator) -> Floats:
    bound = np.sqrt(squared_bound)
    return require_generator("initializers", rng).uniform(-bound, bound, tuple(shape)).astype(np.float32)


def _chosen(shape: Sequence[int], fan: Fan) -> int:
    if fan not in ("fan_in", "fan_out"):
        raise ValueError(f"initializers: fan must be 'fan_in' or 'fan_out', got {fan!r}")
    return max(fans(shape)[fan == "fan_out"], 1)  # a weight of no elements has no variance, but is one
