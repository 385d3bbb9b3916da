"""Subsampling and padding with Numba, channels-last: a pixel's channels are copied as vectors, all else is zeros.

The bound is memory: each number of the result is written once, in the order of memory, and nothing is read that isn't
kept. Threads share out rows of the result.
"""

from __future__ import annotations

from typing import Any

from numba import prange

from minires_kernels.arena import empty_channels_last
from minires_kernels.arrays import Array, channels_last
from minires_kernels.flat import PARALLEL, SERIAL, flat, vector_of
from minires_kernels.jit import njit
from minires_kernels.simd import load, load_part, store, store_part, zero

DEVICE = "cpu"
PREFERENCE = 100


def subsample_and_pad(x: Array, channels: int, stride: int) -> Array:
    """See :func:`minires_kernels.shortcut.subsample_and_pad`."""
    N, C, H, W = x.shape
    y = empty_channels_last((N, channels, -(-H // stride), -(-W // stride)), x.dtype)
    subsample(vector_of(x), flat(channels_last(x)), C, H, W, stride, flat(y), channels)
    return y


def subsample_and_pad_backward(grad_output: Array, x_shape: tuple[int, int, int, int], stride: int) -> Array:
    """See :func:`minires_kernels.shortcut.subsample_and_pad_backward`."""
    _, C, H, W = x_shape
    grad_x, line = empty_channels_last(x_shape, grad_output.dtype), flat(channels_last(grad_output))
    put_back(vector_of(grad_output), line, grad_output.shape[1], C, H, W, stride, flat(grad_x))
    return grad_x


@njit(**SERIAL)
def copy_pixel(kind: Any, x: Array, i: int, kept: int, y: Array, j: int, channels: int) -> None:
    """y[j : j + channels] = the ``kept`` numbers from x[i] on, then zeros."""
    whole = kept - kept % kind.lanes
    for c in range(0, whole, kind.lanes):
        store(load(kind, x, i + c), y, j + c)
    if whole < kept:
        store_part(load_part(kind, x, i + whole, kept - whole), y, j + whole, kept - whole)
    last = channels - (channels - kept) % kind.lanes
    for c in range(kept, last, kind.lanes):
        store(zero(kind), y, j + c)
    if last < channels:  # a store of part of a vector costs as much as many whole ones
        store_part(zero(kind), y, j + last, channels - last)


@njit(**PARALLEL)
def subsample(kind: Any, x: Array, C: int, H: int, W: int, stride: int, y: Array, channels: int) -> None:
    """y (N, OH, OW, channels) from x (N, H, W, C)."""
    OH, OW = (H + stride - 1) // stride, (W + stride - 1) // stride
    rows = y.size // max(OW * channels, 1)
    for row in prange(rows):
        n, h = row // OH, row % OH * stride
        for ow in range(OW):
            copy_pixel(kind, x, ((n * H + h) * W + ow * stride) * C, C, y, (row * OW + ow) * channels, channels)


@njit(**PARALLEL)
def put_back(kind: Any, grad: Array, channels: int, C: int, H: int, W: int, stride: int, grad_x: Array) -> None:
    """grad_x (N, H, W, C) from grad (N, OH, OW, channels)."""
    OH, OW = (H + stride - 1) // stride, (W + stride - 1) // stride
    rows = grad_x.size // max(W * C, 1)
    for row in prange(rows):
        n, h = row // H, row % H
        for w in range(W):
            kept = C if h % stride == 0 and w % stride == 0 else 0
            source = ((n * OH + h // stride) * OW + w // stride) * channels
            copy_pixel(kind, grad, source, kept, grad_x, (row * W + w) * C, C)
