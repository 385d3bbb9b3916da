"""Pooling by array slicing: a running maximum or sum over the taps of the window, in row order."""

from __future__ import annotations

from typing import Any

from minires_kernels.arrays import Array, array_module
from minires_kernels.fit import require_integers
from minires_kernels.window import Pair, Window

DEVICE = "any"


def max_pool(x: Array, window: Window, ceil_mode: bool = False) -> tuple[Array, Array]:
    """See :func:`minires_kernels.pooling.max_pool`."""
    xp = array_module(x)
    N, C, H, W = x.shape
    OH, OW = window.output_size(H, W, ceil_mode=ceil_mode, op="max_pool")
    borders = _borders(window, (H, W), (OH, OW))
    padded = xp.pad(x, ((0, 0), (0, 0), *borders), constant_values=-xp.inf)
    places = xp.pad(xp.arange(H * W, dtype="int32").reshape(H, W), borders, constant_values=-1)
    y = xp.full((N, C, OH, OW), -xp.inf, x.dtype)
    argmax = xp.full((N, C, OH, OW), -1, "int32")
    for _, _, pixels in window.taps(OH, OW):
        seen, place = padded[pixels], places[pixels]
        beats = (argmax < 0) | (seen > y) | (xp.isnan(seen) & ~xp.isnan(y))
        wins = (place >= 0) & beats
        y = xp.where(wins, seen, y)
        argmax = xp.where(wins, place, argmax)
    return y, argmax


def max_pool_backward(grad_output: Array, argmax: Array, x_shape: tuple[int, int, int, int]) -> Array:
    """See :func:`minires_kernels.pooling.max_pool_backward`."""
    xp = array_module(grad_output)
    N, C, H, W = x_shape
    require_integers("max_pool_backward", "argmax", argmax, -1, H * W)
    plane = xp.arange(N * C).reshape(N, C, 1, 1)
    seen = argmax >= 0
    grad_x = xp.zeros(N * C * H * W, grad_output.dtype)
    xp.add.at(grad_x, (plane * (H * W) + argmax)[seen], grad_output[seen])
    return grad_x.reshape(x_shape)


def avg_pool(x: Array, window: Window, ceil_mode: bool = False, count_include_pad: bool = True) -> Array:
    """See :func:`minires_kernels.pooling.avg_pool`."""
    xp = array_module(x)
    N, C, H, W = x.shape
    OH, OW = window.output_size(H, W, ceil_mode=ceil_mode, op="avg_pool")
    padded = xp.pad(x, ((0, 0), (0, 0), *_borders(window, (H, W), (OH, OW))))
    total = xp.zeros((N, C, OH, OW))  # in double precision: one long sum for each window
    for _, _, pixels in window.taps(OH, OW):
        total += padded[pixels]
    return (total / _tap_counts(xp, window, (H, W), (OH, OW), count_include_pad)).astype(x.dtype)


def avg_pool_backward(
    grad_output: Array,
    x_shape: tuple[int, int, int, int],
    window: Window,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
) -> Array:
    """See :func:`minires_kernels.pooling.avg_pool_backward`."""
    xp = array_module(grad_output)
    N, C, H, W = x_shape
    OH, OW = window.output_size(H, W, ceil_mode=ceil_mode, op="avg_pool_backward")
    (top, bottom), (left, right) = _borders(window, (H, W), (OH, OW))
    share = grad_output / _tap_counts(xp, window, (H, W), (OH, OW), count_include_pad)
    grad_padded = xp.zeros((N, C, top + H + bottom, left + W + right))
    for _, _, pixels in window.taps(OH, OW):
        grad_padded[pixels] += share
    return grad_padded[:, :, top : top + H, left : left + W].astype(grad_output.dtype)


def _borders(window: Window, image: Pair, output: Pair) -> tuple[Pair, Pair]:
    """((top, bottom), (left, right)): the padding, and behind it what the last window of ``ceil_mode`` sticks out."""

    def border(axis: int) -> Pair:
        padding = window.padding[axis]
        reach = (output[axis] - 1) * window.stride[axis] + window.span[axis]
        return padding, max(padding, reach - padding - image[axis])

    return border(0), border(1)


def _tap_counts(xp: Any, window: Window, image: Pair, output: Pair, count_include_pad: bool) -> Array:
    """By how much to divide each window's sum, (OH, OW): how many of its taps count, or 1 where none does."""

    def counts(axis: int) -> Array:
        margin = window.padding[axis] if count_include_pad else 0
        first = xp.arange(output[axis]) * window.stride[axis] - window.padding[axis]
        beyond = xp.minimum(first + window.size[axis], image[axis] + margin)
        return xp.maximum(beyond - xp.maximum(first, -margin), 0)

    return xp.maximum(counts(0)[:, None] * counts(1), 1)
