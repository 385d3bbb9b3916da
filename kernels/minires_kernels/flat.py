"""Arrays as compiled loops want them: the numbers in the order of memory, under one type.

Numba compiles a function anew for each combination of its arguments' types, and the number of axes, their order and
whether an array may be written all belong to the type. Here every array becomes a one-dimensional, contiguous,
writable view, so that there is one machine code for each dtype.

This module needs Numba: implementation files import it, contracts don't.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np

from minires_kernels.arrays import Array, channels_last, is_channels_last
from minires_kernels.jit import njit
from minires_kernels.simd import Vector, for_each, kinds, vector

THREADED: dict[str, Any] = {"error_model": "numpy", "no_cfunc_wrapper": True}
SERIAL: dict[str, Any] = {"error_model": "numpy", "no_cpython_wrapper": True, "no_cfunc_wrapper": True}

SMALL = 1 << 14
"""Numbers that one thread works through in the time that it takes to wake the others, some microseconds."""


def vector_of(x: Array) -> Vector:
    """The widest vector of ``x``'s dtype; TypeError for anything but float32 and float64."""
    return _vector(x.dtype, kinds.REGISTER_BYTES)


@cache
def _vector(dtype: Any, register_bytes: int) -> Vector:
    return vector(dtype)


def dense(x: Array) -> Array:
    """``x`` itself if its numbers fill a piece of memory, in whatever order of the axes; otherwise a copy that does."""
    return x.copy(order="K") if x.ravel(order="K").flags.owndata else x


def flat(x: Array) -> Array:
    """The numbers of a dense ``x`` in the order of memory, as a one-dimensional view.

    A read-only ``x`` gives a view that claims to be writable, because that is part of the type; nobody writes there.
    """
    line = x.ravel(order="K")
    return line if line.flags.writeable else np.asarray(_Writable(line))


def flat_like(y: Array, x: Array) -> Array:
    """The numbers of ``y`` in the order in which those of the dense ``x``, of the same shape, lie: a view if it can."""
    if y.strides != x.strides:
        aligned = np.empty_like(x, dtype=y.dtype)
        aligned[...] = y
        y = aligned
    return flat(y)


def pixels(x: Array) -> Array:
    """The numbers of an (N, C, H, W) array in the order (N, H, W, C), one-dimensional: a view if x lies so."""
    if not (x.flags.c_contiguous and x.dtype.name in ("float32", "float64") and x.size > SMALL) or is_channels_last(x):
        line = channels_last(x).transpose(0, 2, 3, 1)
        return (line if line.flags.behaved else line.copy()).reshape(-1)
    N, C, H, W = x.shape
    y = np.empty(x.size, x.dtype)
    interleave(flat(x), N, C, H * W, y)
    return y


STRETCH = 16
"""Pixels of a channel that ``interleave`` reads in one go: a cache line of float32. One pixel at a time, all channels
of an image whose size is a power of two would compete for the same few places of the first-level cache."""


@njit(**SERIAL)
def interleave_image(x: Array, C: int, L: int, y: Array, n: int) -> None:
    """Image n."""
    for start in range(0, L, STRETCH):
        for c in range(C):
            for p in range(start, min(start + STRETCH, L)):
                y[(n * L + p) * C + c] = x[(n * C + c) * L + p]


@njit(**THREADED)
def interleave(x: Array, N: int, C: int, L: int, y: Array) -> None:
    """y (N, L, C) = x (N, C, L): images as files and loaders give them, as convolutions read them."""
    for_each(interleave_image, N, (x, C, L, y))


class _Writable:
    """The same memory under the array interface, without the read-only flag."""

    def __init__(self, x: Array) -> None:
        interface = x.__array_interface__
        self.__array_interface__ = {**interface, "data": (interface["data"][0], False)}
        self.owner = x
