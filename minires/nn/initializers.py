"""Initial weights: He et al. 2015 ("Delving Deep into Rectifiers") and Glorot and Bengio 2010. The rng is passed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np

from minires.arguments import require_generator

Fan = Literal["fan_in", "fan_out"]
Floats = np.ndarray[Any, np.dtype[np.float32]]


def fans(shape: Sequence[int]) -> tuple[int, int]:
    """(fan_in, fan_out) of a weight: (out, in) for linear, (O, C/groups, KH, KW) for convolution.

    fan_in = in * KH * KW numbers flow into each output, fan_out = out * KH * KW outputs hang on each input.
    Raises ValueError for fewer than two axes.
    """
    if len(shape) < 2:
        raise ValueError(f"fans: a weight has at least two axes (out, in, ...), got shape {tuple(shape)}")
    taps = int(np.prod(shape[2:]))
    return shape[1] * taps, shape[0] * taps


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
    return _normal(2 / sum(fans(shape)), shape, rng)


def xavier_uniform(shape: Sequence[int], *, rng: np.random.Generator) -> Floats:
    """U(-b, b) with b = sqrt(6 / (fan_in + fan_out)), float32 (Glorot and Bengio 2010, eq. 16)."""
    return _uniform(6 / sum(fans(shape)), shape, rng)


def _normal(variance: float, shape: Sequence[int], rng: np.random.Generator) -> Floats:
    draws = require_generator("initializers", rng).standard_normal(tuple(shape))
    return (draws * np.sqrt(variance)).astype(np.float32)  # type: ignore[no-any-return]


def _uniform(squared_bound: float, shape: Sequence[int], rng: np.random.Generator) -> Floats:
    bound = np.sqrt(squared_bound)
    return require_generator("initializers", rng).uniform(-bound, bound, tuple(shape)).astype(np.float32)


def _chosen(shape: Sequence[int], fan: Fan) -> int:
    if fan not in ("fan_in", "fan_out"):
        raise ValueError(f"initializers: fan must be 'fan_in' or 'fan_out', got {fan!r}")
    return fans(shape)[fan == "fan_out"]
