"""Patches with Numba: rows of the result in parallel, each written by one thread alone.

``im2col`` copies; ``col2im`` *gathers*: each row of the image asks which windows have read it and adds their entries,
in the same order whatever the number of threads. (To scatter, window by window, would race where windows overlap.)
The inner loops run over output positions without a test for the padding: ``_inside`` gives their range beforehand.
"""

from __future__ import annotations

import numpy as np

from minires_kernels.arrays import Array
from minires_kernels.flat import SERIAL, THREADED
from minires_kernels.jit import njit
from minires_kernels.simd import for_each
from minires_kernels.window import Pair, Window

DEVICE = "cpu"
PREFERENCE = 50


def im2col(x: Array, window: Window) -> Array:
    """See :func:`minires_kernels.patches.im2col`."""
    N, C, H, W = x.shape
    (KH, KW), (OH, OW) = window.size, window.output_size(H, W, op="im2col")
    columns = np.empty((N * C * KH * KW, OH, OW), x.dtype)
    images = np.ascontiguousarray(x).reshape(N * C, H, W)
    copy_rows(images, columns, window.size, window.stride, window.padding, window.dilation)
    return columns.reshape(N, C * KH * KW, OH * OW)


def col2im(columns: Array, shape: tuple[int, int, int, int], window: Window) -> Array:
    """See :func:`minires_kernels.patches.col2im`."""
    N, C, H, W = shape
    (KH, KW), (OH, OW) = window.size, window.output_size(H, W, op="col2im")
    images = np.empty((N * C, H, W), columns.dtype)
    columns = np.ascontiguousarray(columns).reshape(N * C * KH * KW, OH, OW)
    gather_rows(columns, images, window.size, window.stride, window.padding, window.dilation)
    return images.reshape(shape)


@njit(inline="always")
def _inside(offset: int, stride: int, length: int, positions: int) -> Pair:
    """The range [first, beyond) of positions p with 0 <= p * stride + offset < length."""
    first = min(max(0, -(offset // stride)), positions)  # -(a // b) is -a / b, rounded up
    beyond = min(-((offset - length) // stride), positions)
    return first, max(first, beyond)


@njit(**SERIAL)
def copy_row(
    images: Array, columns: Array, size: Pair, stride: Pair, padding: Pair, dilation: Pair, row: int
) -> None:  # fmt: skip
    """Row ((n * C + c) * KH + i) * KW + j of all columns."""
    KH, KW = size
    SH, SW = stride
    PH, PW = padding
    DH, DW = dilation
    _, H, W = images.shape
    _, OH, OW = columns.shape
    image, i, j = row // (KH * KW), row // KW % KH, row % KW
    shift = j * DW - PW
    first, beyond = _inside(shift, SW, W, OW)
    for oh in range(OH):
        h = oh * SH + i * DH - PH
        if 0 <= h < H:
            columns[row, oh, :first] = 0
            for ow in range(first, beyond):
                columns[row, oh, ow] = images[image, h, ow * SW + shift]
            columns[row, oh, beyond:] = 0
        else:
            columns[row, oh, :] = 0


@njit(**THREADED)
def copy_rows(images: Array, columns: Array, size: Pair, stride: Pair, padding: Pair, dilation: Pair) -> None:
    """All columns, from all images."""
    for_each(copy_row, len(columns), (images, columns, size, stride, padding, dilation))


@njit(**SERIAL)
def gather_row(
    columns: Array, images: Array, size: Pair, stride: Pair, padding: Pair, dilation: Pair, line: int
) -> None:  # fmt: skip
    """Row ``line`` of all rows of all images."""
    KH, KW = size
    SH, SW = stride
    PH, PW = padding
    DH, DW = dilation
    _, H, W = images.shape
    _, OH, OW = columns.shape
    image, h = line // H, line % H
    images[image, h, :] = 0
    for i in range(KH):
        oh, remainder = divmod(h + PH - i * DH, SH)
        if remainder == 0 and 0 <= oh < OH:
            for j in range(KW):
                row = (image * KH + i) * KW + j
                shift = j * DW - PW
                first, beyond = _inside(shift, SW, W, OW)
                for ow in range(first, beyond):
                    images[image, h, ow * SW + shift] += columns[row, oh, ow]


@njit(**THREADED)
def gather_rows(columns: Array, images: Array, size: Pair, stride: Pair, padding: Pair, dilation: Pair) -> None:
    """All images, from all columns."""
    for_each(gather_row, images.shape[0] * images.shape[1], (columns, images, size, stride, padding, dilation))
