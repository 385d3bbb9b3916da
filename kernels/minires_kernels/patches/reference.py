"""Patches by array slicing: for each tap of the window, one strided slice of the padded image."""

from __future__ import annotations

from minires_kernels.arrays import Array, array_module
from minires_kernels.window import Window

DEVICE = "any"


def im2col(x: Array, window: Window) -> Array:
    """See :func:`minires_kernels.patches.im2col`."""
    xp = array_module(x)
    N, C, H, W = x.shape
    (KH, KW), (PH, PW) = window.size, window.padding
    OH, OW = window.output_size(H, W, op="im2col")
    padded = xp.pad(x, ((0, 0), (0, 0), (PH, PH), (PW, PW)))
    columns = xp.empty((N, C, KH, KW, OH, OW), x.dtype)
    for i, j, pixels in window.taps(OH, OW):
        columns[:, :, i, j] = padded[pixels]
    return columns.reshape(N, C * KH * KW, OH * OW)


def col2im(columns: Array, shape: tuple[int, int, int, int], window: Window) -> Array:
    """See :func:`minires_kernels.patches.col2im`."""
    xp = array_module(columns)
    N, C, H, W = shape
    (KH, KW), (PH, PW) = window.size, window.padding
    OH, OW = window.output_size(H, W, op="col2im")
    columns = columns.reshape(N, C, KH, KW, OH, OW)
    padded = xp.zeros((N, C, H + 2 * PH, W + 2 * PW), columns.dtype)
    for i, j, pixels in window.taps(OH, OW):
        padded[pixels] += columns[:, :, i, j]
    return xp.ascontiguousarray(padded[:, :, PH : PH + H, PW : PW + W])
