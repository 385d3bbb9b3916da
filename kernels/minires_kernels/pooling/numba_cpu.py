"""Pooling with Numba, channels-last: the numbers of a window meet channel by channel, many channels at a time.

Threads share out rows of the result. Whatever is written belongs to one thread: averages are shared out to an image by
*gathering* (each pixel asks which windows have seen it), maxima by giving each thread images, or channels, of its own.
So nothing depends on the number of threads.

- ``avg_pool`` and its backward keep vectors of sums in registers for all taps of a window: one for a stretch of a row,
  one for the row, one for all rows, since large windows would lose digits in one long sum.
- ``max_pool`` keeps one vector of maxima and one of their places in registers for all taps of a window.
- ``max_pool_backward`` alone is scalar: each number goes to a place of its own.

Every number of the image is loaded once for each window that it's in, from the caches after the first time; with 9 taps
comparisons and memory take about the same time, everything else is bound by memory.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba import get_num_threads

from minires_kernels.arena import empty_channels_last
from minires_kernels.arrays import Array, channels_last
from minires_kernels.fit import require_integers
from minires_kernels.flat import SERIAL, THREADED, flat, vector_of
from minires_kernels.jit import njit
from minires_kernels.pooling._vectors import broadcast_place, store_places, where_beats
from minires_kernels.simd import broadcast, for_each, load_part, store_part, zero
from minires_kernels.window import Pair, Window

DEVICE = "cpu"
PREFERENCE = 100

BLOCK = 16
"""Channels to which a thread keeps when there are few images: a cache line of float32, so that no two threads share."""


def max_pool(x: Array, window: Window, ceil_mode: bool = False) -> tuple[Array, Array]:
    """See :func:`minires_kernels.pooling.max_pool`."""
    N, C, H, W = x.shape
    OH, OW = window.output_size(H, W, ceil_mode=ceil_mode, op="max_pool")
    y, argmax = empty_channels_last((N, C, OH, OW), x.dtype), empty_channels_last((N, C, OH, OW), np.int32)
    geometry = window.size, window.stride, window.padding, window.dilation
    largest(vector_of(x), flat(channels_last(x)), flat(y), flat(argmax), C, (H, W), (OH, OW), *geometry)
    return y, argmax


def max_pool_backward(grad_output: Array, argmax: Array, x_shape: tuple[int, int, int, int]) -> Array:
    """See :func:`minires_kernels.pooling.max_pool_backward`."""
    N, C, H, W = x_shape
    grad_x = empty_channels_last(x_shape, grad_output.dtype)
    block = BLOCK if get_num_threads() > N // 4 else C
    astray = np.zeros(1, np.int64)
    scatter(flat(channels_last(grad_output)), flat(channels_last(argmax)), flat(grad_x), N, C, block, astray)
    if astray[0]:
        require_integers("max_pool_backward", "argmax", argmax, -1, H * W)
    return grad_x


def avg_pool(x: Array, window: Window, ceil_mode: bool = False, count_include_pad: bool = True) -> Array:
    """See :func:`minires_kernels.pooling.avg_pool`."""
    N, C, H, W = x.shape
    OH, OW = window.output_size(H, W, ceil_mode=ceil_mode, op="avg_pool")
    y = empty_channels_last((N, C, OH, OW), x.dtype)
    geometry = window.size, window.stride, window.padding, count_include_pad
    average(vector_of(x), flat(channels_last(x)), flat(y), C, (H, W), (OH, OW), *geometry)
    return y


def avg_pool_backward(
    grad_output: Array,
    x_shape: tuple[int, int, int, int],
    window: Window,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
) -> Array:
    """See :func:`minires_kernels.pooling.avg_pool_backward`."""
    _, C, H, W = x_shape
    OH, OW = window.output_size(H, W, ceil_mode=ceil_mode, op="avg_pool_backward")
    grad_x, line = empty_channels_last(x_shape, grad_output.dtype), flat(channels_last(grad_output))
    geometry = window.size, window.stride, window.padding, count_include_pad
    share_out(vector_of(grad_output), line, flat(grad_x), C, (H, W), (OH, OW), *geometry)
    return grad_x


STRETCH = 256
"""Pixels of a row up to which they are added up in one go: more sums would cost time and hardly spare a digit."""


# --- Maximum ---------------------------------------------------------------------------------------------------------


@njit(**SERIAL)
def inside(start: int, dilation: int, size: int, length: int) -> Pair:
    """Along one axis, the range of the taps of a window beginning at ``start`` that lie in the image."""
    first = 0 if start >= 0 else -(start // dilation)
    beyond = size if start + (size - 1) * dilation < length else (length - start + dilation - 1) // dilation
    return first, beyond


@njit(**SERIAL)
def largest_row(
    kind: Any,
    x: Array,
    y: Array,
    argmax: Array,
    C: int,
    image: Pair,
    output: Pair,
    size: Pair,
    stride: Pair,
    padding: Pair,
    dilation: Pair,
    row: int,
) -> None:
    """Row ``row`` of all rows of all images of the result. Places are counted from the window's first tap."""
    H, W = image
    n, top = row // output[0], row % output[0] * stride[0] - padding[0]
    i_first, i_beyond = inside(top, dilation[0], size[0], H)
    for ow in range(output[1]):
        left, at = ow * stride[1] - padding[1], (row * output[1] + ow) * C
        j_first, j_beyond = inside(left, dilation[1], size[1], W)
        origin, start = top * W + left, i_first * dilation[0] * W + j_first * dilation[1]
        if i_first >= i_beyond or j_first >= j_beyond:
            start = -1 - origin
        for c in range(0, C, kind.lanes):
            best, place = broadcast(kind, -np.inf), broadcast_place(kind, start)
            for i in range(i_first, i_beyond):
                for j in range(j_first, j_beyond):
                    tap = i * dilation[0] * W + j * dilation[1]
                    number = load_part(kind, x, (n * H * W + origin + tap) * C + c, C - c)
                    place = where_beats(number, best, broadcast_place(kind, tap), place)
                    best = where_beats(number, best, number, best)
            store_part(best, y, at + c, C - c)
            store_places(place, argmax, at + c, origin, C - c)


@njit(**THREADED)
def largest(
    kind: Any,
    x: Array,
    y: Array,
    argmax: Array,
    C: int,
    image: Pair,
    output: Pair,
    size: Pair,
    stride: Pair,
    padding: Pair,
    dilation: Pair,
) -> None:
    """The maxima (N, OH, OW, C) of the windows over x (N, H, W, C) and their places, all flat."""
    rows = y.size // max(output[1] * C, 1)
    for_each(largest_row, rows, (kind, x, y, argmax, C, image, output, size, stride, padding, dilation))


@njit(**SERIAL)
def scatter_piece(
    grad: Array, argmax: Array, grad_x: Array, N: int, C: int, block: int, astray: Array, piece: int
) -> None:
    """A block of channels of one image of grad_x: zeros, and each gradient added where its maximum was.

    A place outside the image is left out and noted in ``astray``. Unsigned indices: Numba would test each signed one
    for being negative; and as an unsigned number, a negative place is larger than any image.
    """
    blocks = -(-C // block)
    n, first = piece // blocks, piece % blocks * block
    beyond = min(first + block, C)
    pixels, outputs = grad_x.size // (N * C), grad.size // (N * C)
    for pixel in range(n * pixels, (n + 1) * pixels):
        grad_x[pixel * C + first : pixel * C + beyond] = 0
    for window in range(n * outputs, (n + 1) * outputs):
        for c in range(first, beyond):
            k = np.uintp(window * C + c)
            if np.uintp(argmax[k]) < np.uintp(pixels):
                grad_x[np.uintp((n * pixels + argmax[k]) * C + c)] += grad[k]
            elif argmax[k] != -1:
                astray[0] = 1


@njit(**THREADED)
def scatter(grad: Array, argmax: Array, grad_x: Array, N: int, C: int, block: int, astray: Array) -> None:
    """grad_x (N, H, W, C) from grad and argmax (N, OH, OW, C), all flat; ``block`` channels to a piece of work."""
    for_each(scatter_piece, N * -(-C // max(block, 1)), (grad, argmax, grad_x, N, C, block, astray))


# --- Average ---------------------------------------------------------------------------------------------------------


@njit(**SERIAL)
def reach(o: int, size: int, stride: int, padding: int, length: int, margin: int) -> tuple[int, int, int]:
    """Along one axis, window o: its first pixel, the end of its pixels, and how many taps count.

    ``margin`` is how much of the padding counts.
    """
    first = o * stride - padding
    taps = min(first + size, length + margin) - max(first, -margin)
    return max(first, 0), min(first + size, length), max(taps, 0)


@njit(**SERIAL)
def seen_by(pixel: int, size: int, stride: int, padding: int, windows: int) -> tuple[int, int]:
    """Along one axis, the range of the windows that see ``pixel``."""
    return max(0, -((size - 1 - pixel - padding) // stride)), min(windows, (pixel + padding) // stride + 1)


@njit(**SERIAL)
def long_sum(kind: Any, x: Array, row: int, left: int, right: int, C: int, c: int) -> Any:
    """The channels from c on, summed over the pixels ``left`` ... ``right`` of a row that begins at pixel ``row``.

    In stretches: about as many as they have pixels.
    """
    line, stretch = zero(kind), int(math.sqrt(right - left))
    for start in range(left, right, stretch):
        part = zero(kind)
        for w in range(start, min(start + stretch, right)):
            part = part + load_part(kind, x, (row + w) * C + c, C - c)
        line = line + part
    return line


@njit(**SERIAL)
def average_row(
    kind: Any,
    x: Array,
    y: Array,
    C: int,
    image: Pair,
    output: Pair,
    size: Pair,
    stride: Pair,
    padding: Pair,
    count_include_pad: bool,
    row: int,
) -> None:
    """Row ``row`` of all rows of all images of the result."""
    H, W = image
    n, oh = row // output[0], row % output[0]
    top, bottom, rows = reach(oh, size[0], stride[0], padding[0], H, padding[0] * count_include_pad)
    for ow in range(output[1]):
        left, right, columns = reach(ow, size[1], stride[1], padding[1], W, padding[1] * count_include_pad)
        share = 1 / max(rows * columns, 1)
        for c in range(0, C, kind.lanes):
            total = zero(kind)
            if right - left > STRETCH:
                for h in range(top, bottom):
                    total = total + long_sum(kind, x, (n * H + h) * W, left, right, C, c)
            else:
                for h in range(top, bottom):
                    line = zero(kind)
                    for w in range(left, right):
                        line = line + load_part(kind, x, ((n * H + h) * W + w) * C + c, C - c)
                    total = total + line
            store_part(total * share, y, (row * output[1] + ow) * C + c, C - c)


@njit(**THREADED)
def average(
    kind: Any,
    x: Array,
    y: Array,
    C: int,
    image: Pair,
    output: Pair,
    size: Pair,
    stride: Pair,
    padding: Pair,
    count_include_pad: bool,
) -> None:
    """The means (N, OH, OW, C) of the windows over x (N, H, W, C), flat."""
    rows = y.size // max(output[1] * C, 1)
    for_each(average_row, rows, (kind, x, y, C, image, output, size, stride, padding, count_include_pad))


@njit(**SERIAL)
def share_out_row(
    kind: Any,
    grad: Array,
    grad_x: Array,
    C: int,
    image: Pair,
    output: Pair,
    size: Pair,
    stride: Pair,
    padding: Pair,
    count_include_pad: bool,
    row: int,
) -> None:
    """Row ``row`` of all rows of all images of grad_x."""
    H, W = image
    OH, OW = output
    n, h = row // H, row % H
    top, bottom = seen_by(h, size[0], stride[0], padding[0], OH)
    for w in range(W):
        left, right = seen_by(w, size[1], stride[1], padding[1], OW)
        for c in range(0, C, kind.lanes):
            total = zero(kind)
            for oh in range(top, bottom):
                rows = reach(oh, size[0], stride[0], padding[0], H, padding[0] * count_include_pad)[2]
                line = zero(kind)
                for ow in range(left, right):
                    columns = reach(ow, size[1], stride[1], padding[1], W, padding[1] * count_include_pad)[2]
                    g = load_part(kind, grad, ((n * OH + oh) * OW + ow) * C + c, C - c)
                    line = line + g * (1 / max(rows * columns, 1))
                total = total + line
            store_part(total, grad_x, (row * W + w) * C + c, C - c)


@njit(**THREADED)
def share_out(
    kind: Any,
    grad: Array,
    grad_x: Array,
    C: int,
    image: Pair,
    output: Pair,
    size: Pair,
    stride: Pair,
    padding: Pair,
    count_include_pad: bool,
) -> None:
    """grad_x (N, H, W, C) of the means whose gradients are grad (N, OH, OW, C), flat."""
    rows = grad_x.size // max(image[1] * C, 1)
    for_each(share_out_row, rows, (kind, grad, grad_x, C, image, output, size, stride, padding, count_include_pad))
