"""Subsampling and padding with Numba, channels-last: a pixel's channels are copied as vectors, all else is zeros.

The bound is memory: each number of the result is written once, in the order of memory, and nothing is read that isn't
kept. Threads share out rows of the result.
"""

from __future__ import annotations

from typing import Any

from minires_kernels.arena import empty_channels_last
from minires_kernels.arrays import Array, channels_last
from minires_kernels.flat import SERIAL, THREADED, flat, vector_of
from minires_kernels.jit import njit
from minires_kernels.simd import for_each, load, load_part, store, store_part, zero

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
def copy_and_pad(kind: Any, x: Array, i: int, kept: int, y: Array, j: int, count: int) -> None:
    """y[j : j + count] = the ``kept`` numbers from x[i] on, then zeros."""
    whole = kept - kept % kind.lanes
    for c in range(0, whole, kind.lanes):
        store(load(kind, x, i + c), y, j + c)
    if whole < kept:
        store_part(load_part(kind, x, i + whole, kept - whole), y, j + whole, kept - whole)
    last = count - (count - kept) % kind.lanes
    for c in range(kept, last, kind.lanes):
        store(zero(kind), y, j + c)
    if last < count:  # a store of part of a vector costs as much as many whole ones
        store_part(zero(kind), y, j + last, count - last)


@njit(**SERIAL)
def subsample_row(kind: Any, x: Array, C: int, H: int, W: int, stride: int, y: Array, channels: int, row: int) -> None:
    """Row ``row`` of all rows of all images of the result."""
    OH, OW = (H + stride - 1) // stride, (W + stride - 1) // stride
    n, h = row // OH, row % OH * stride
    for ow in range(OW):
        copy_and_pad(kind, x, ((n * H + h) * W + ow * stride) * C, C, y, (row * OW + ow) * channels, channels)


@njit(**THREADED)
def subsample(kind: Any, x: Array, C: int, H: int, W: int, stride: int, y: Array, channels: int) -> None:
    """y (N, OH, OW, channels) from x (N, H, W, C)."""
    rows = y.size // max((W + stride - 1) // stride * channels, 1)
    for_each(subsample_row, rows, (kind, x, C, H, W, stride, y, channels))


@njit(**SERIAL)
def put_back_row(
    kind: Any, grad: Array, channels: int, C: int, H: int, W: int, stride: int, grad_x: Array, row: int
) -> None:
    """Row ``row`` of all rows of all images of grad_x: zeros, or a pixel and zeros up to the next one, in turn."""
    OH, OW = (H + stride - 1) // stride, (W + stride - 1) // stride
    n, h = row // H, row % H
    if h % stride > 0:
        copy_and_pad(kind, grad, 0, 0, grad_x, row * W * C, W * C)
    else:
        source = (n * OH + h // stride) * OW
        for ow in range(OW):
            w = ow * stride
            span = min(stride, W - w) * C
            copy_and_pad(kind, grad, (source + ow) * channels, C, grad_x, (row * W + w) * C, span)


@njit(**THREADED)
def put_back(kind: Any, grad: Array, channels: int, C: int, H: int, W: int, stride: int, grad_x: Array) -> None:
    """grad_x (N, H, W, C) from grad (N, OH, OW, channels)."""
    for_each(put_back_row, grad_x.size // max(W * C, 1), (kind, grad, channels, C, H, W, stride, grad_x))
