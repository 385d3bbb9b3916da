"""Patches with Numba: rows of the result in parallel, each written by one thread alone.

``im2col`` copies; ``col2im`` *gathers*: each row of the image asks which windows have read it and adds their entries,
in the same order whatever the number of threads. (To scatter, window by window, would race where windows overlap.)
The inner loops run over output positions without a test for the padding: ``_inside`` gives their range beforehand.
"""

from __future__ import annotations

import numpy as np
from numba import prange

from minires_kernels.arrays import Array
from minires_kernels.jit import njit
from minires_kernels.window import Pair, Window

DEVICE = "cpu"
PREFERENCE = 50


def im2col(x: Array, window: Window) -> Array:
    """See :func:`minires_kernels.patches.im2col`."""
    N, C, H, W = x.shape
    (KH, KW), (OH, OW) = window.size, window.output_size(H, W, op="im2col")
    columns = np.empty((N * C * KH * KW, OH, OW), x.dtype)
    images = np.ascontiguousarray(x).reshape(N * C, H, W)
    _im2col(images, columns, window.size, window.stride, window.padding, window.dilation)
    return columns.reshape(N, C * KH * KW, OH * OW)


def col2im(columns: Array, shape: tuple[int, int, int, int], window: Window) -> Array:
    """See :func:`minires_kernels.patches.col2im`."""
    N, C, H, W = shape
    (KH, KW), (OH, OW) = window.size, window.output_size(H, W, op="col2im")
    images = np.empty((N * C, H, W), columns.dtype)
    columns = np.ascontiguousarray(columns).reshape(N * C * KH * KW, OH, OW)
    _col2im(columns, images, window.size, window.stride, window.padding, window.dilation)
    return images.reshape(shape)


@njit(inline="always")
def _inside(offset: int, stride: int, length: int, positions: int) -> Pair:
    """The range [first, beyond) of positions p with 0 <= p * stride + offset < length."""
    first = min(max(0, -(offset // stride)), positions)  # -(a // b) is -a / b, rounded up
    beyond = min(-((offset - length) // stride), positions)
    return first, max(first, beyond)


@njit(parallel=True, cache=True)
def _im2col(images: Array, columns: Array, size: Pair, stride: Pair, padding: Pair, dilation: Pair) -> None:
    KH, KW = size
    SH, SW = stride
    PH, PW = padding
    DH, DW = dilation
    _, H, W = images.shape
    rows, OH, OW = columns.shape
    for row in prange(rows):  # row = ((n * C + c) * KH + i) * KW + j
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


@njit(parallel=True, cache=True)
def _col2im(columns: Array, images: Array, size: Pair, stride: Pair, padding: Pair, dilation: Pair) -> None:
    KH, KW = size
    SH, SW = stride
    PH, PW = padding
    DH, DW = dilation
    count, H, W = images.shape
    _, OH, OW = columns.shape
    for line in prange(count * H):
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
