"""The compiled loops of batch normalization. The page that explains them is ``numba_cpu``'s docstring.

Memory is cut into *pieces*, which threads share out. Within a piece the channels repeat with period ``width``, a
multiple of the lanes, so a piece is a table of *rows* of ``width`` numbers, and a lane of a row always meets the same
channel, whose coefficients and sums are at the same place of a small table in the first-level cache.

- Channels-last (``inner`` = 1): a row is as many pixels side by side as fill at least four whole vectors. C = 16 and
  16 lanes: 4 pixels; C = 3: 32 pixels, 96 numbers.
- C-contiguous (``inner`` = H W): a piece is a part of one plane, its row four vectors, all of one channel.

What is left behind the last whole row is done vector by vector, the last of which is loaded and stored in part. The
pieces don't depend on the number of threads, so neither does any result.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from minires_kernels.arrays import Array
from minires_kernels.flat import SERIAL, THREADED
from minires_kernels.jit import njit
from minires_kernels.simd import broadcast, fma, for_each, gate, load, load_part, maximum, store, store_part

PIECE = 16384
"""Numbers in a piece at most: few enough for a single-precision sum, many enough to forget what a piece costs."""

LEAST_ROWS = 48
"""Rows in a piece at least, where there are that many: what is done once for each piece is done for each channel."""

LEAST_VECTORS = 4
"""Vectors in a row at least: a sum in the cache can be added to again only some ten cycles later."""

SAMPLE = 8
"""Pixels of a piece whose mean stands for the piece's while deviations are summed up."""

SHARES = 16
"""The number of pieces is a multiple of this, so that it divides well among threads."""


class Cut(NamedTuple):
    """How memory is cut into pieces: planes of ``extent`` numbers, each into ``splits``."""

    pieces: int
    extent: int  # numbers in a plane: all there are, if channels-last
    splits: int  # pieces of a plane
    numbers: int  # in a piece; the last one of a plane may have fewer
    width: int  # numbers in a row
    channels: int  # in a piece
    cycle: int  # planes until the channels repeat; C = cycle * channels


@njit(**SERIAL)
def cut(kind: Any, size: int, C: int, inner: int) -> Cut:
    """The pieces of ``size`` numbers of C channels; the numbers of one image and channel lie ``inner`` to a run."""
    extent, channels, cycle = (inner, 1, C) if inner > 1 else (size, C, 1)
    period = channels // math.gcd(channels, kind.lanes) * kind.lanes  # the least common multiple
    width = -(-LEAST_VECTORS * kind.lanes // period) * period
    rows = -(-extent // width)
    splits = max(1, min(-(-extent // (SHARES * PIECE)) * SHARES, rows // LEAST_ROWS))
    numbers = max(1, -(-rows // splits)) * width
    splits = -(-extent // numbers)
    return Cut(size // max(extent, 1) * splits, extent, splits, numbers, width, channels, cycle)


@njit(**SERIAL)
def bounds(cuts: Cut, p: int) -> tuple[int, int, int]:
    """Piece p: its first number, its end, and its first channel."""
    plane, split = p // cuts.splits, p % cuts.splits
    start = plane * cuts.extent + split * cuts.numbers
    return start, min(start + cuts.numbers, (plane + 1) * cuts.extent), plane % cuts.cycle


@njit(**SERIAL)
def spread(values: Array, cuts: Cut) -> Array:
    """For each lane of a piece that begins with a channel, the values that belong to it: (k, cycle, width) from (k, C).

    Both flat.
    """
    width, channels = cuts.width, cuts.channels
    table = np.empty(values.size // channels * width, values.dtype)
    for first in range(values.size // channels):
        for lane in range(width):
            table[first * width + lane] = values[first * channels + lane % channels]
    return table


@njit(**SERIAL)
def part(values: Array, p: int, count: int) -> Array:
    """The p-th ``count`` numbers of ``values``, as a view."""
    return values[p * count : (p + 1) * count]


@njit(**SERIAL)
def fold(values: Array, sums: Array) -> None:
    """sums (channels,) = the sums over the lanes of each channel of one row of ``values``."""
    channels = sums.size
    for c in range(channels):
        sums[c] = values[c]
    for pixel in range(channels, values.size, channels):
        for c in range(channels):
            sums[c] += values[pixel + c]


# --- Statistics ------------------------------------------------------------------------------------------------------


@njit(**SERIAL)
def piece_statistics(kind: Any, cuts: Cut, x: Array, means: Array, squares: Array, p: int) -> None:
    """Mean and sum of squared deviations of each channel of piece p."""
    (start, stop, _), width, channels = bounds(cuts, p), cuts.width, cuts.channels
    m = (stop - start) // channels
    table = np.zeros(3 * width, x.dtype)  # shift, sum, square
    for i in range(start, start + min(SAMPLE, m) * channels, channels):
        for c in range(channels):
            table[c] += x[i + c]
    for c in range(channels):
        table[c] = table[c] / min(SAMPLE, m) if math.isfinite(table[c]) else 0  # infinity minus itself would be NaN
    for lane in range(channels, width):
        table[lane] = table[lane - channels]
    paired = stop - (stop - start) % (2 * width)
    for row in range(start, paired, 2 * width):
        for lane in range(0, width, kind.lanes):
            shift, i, square = load(kind, table, lane), row + lane, lane + 2 * width
            even, odd = load(kind, x, i) - shift, load(kind, x, i + width) - shift
            store(load(kind, table, lane + width) + (even + odd), table, lane + width)
            store(fma(even, even, fma(odd, odd, load(kind, table, square))), table, square)
    for i in range(paired, stop, kind.lanes):
        lane, count = (i - paired) % width, stop - i
        difference = load_part(kind, x, i, count) - load_part(kind, table, lane, count)
        store(load(kind, table, lane + width) + difference, table, lane + width)
        store(fma(difference, difference, load(kind, table, lane + 2 * width)), table, lane + 2 * width)
    mean, square = part(means, p, channels), part(squares, p, channels)
    fold(table[width : 2 * width], mean)
    fold(table[2 * width :], square)
    for c in range(channels):
        offset = mean[c] / m
        square[c] -= mean[c] * offset
        mean[c] = table[c] + offset


@njit(**SERIAL)
def total_statistics(cuts: Cut, size: int, means: Array, squares: Array, mean: Array, variance: Array) -> None:
    """Mean and biased variance (C,) from the pieces' (Chan, Golub and LeVeque 1983, eq. 2.1).

    Means are averaged as differences from the first piece's: shares that don't quite add up to 1 then cost a constant
    channel nothing, and its variance is 0.
    """
    C, channels = mean.size, cuts.channels
    base, total, square = np.zeros(C), np.zeros(C), np.zeros(C)
    for p in range(cuts.pieces - 1, -1, -1):
        first, piece = base[bounds(cuts, p)[2] :], part(means, p, channels)
        for c in range(channels):
            first[c] = piece[c] if math.isfinite(piece[c]) else 0
    for p in range(cuts.pieces):
        start, stop, channel = bounds(cuts, p)
        share, own, piece = (stop - start) / channels / (size / C), total[channel:], part(means, p, channels)
        first = base[channel:]
        for c in range(channels):
            own[c] += share * (piece[c] - first[c])
    for c in range(C):
        total[c] += base[c]
    for p in range(cuts.pieces):
        start, stop, channel = bounds(cuts, p)
        m, own, center = (stop - start) / channels, square[channel:], total[channel:]
        piece, piece_square = part(means, p, channels), part(squares, p, channels)
        for c in range(channels):
            offset = piece[c] - center[c]
            own[c] += piece_square[c] + m * offset * offset
    for c in range(C):
        mean[c], variance[c] = total[c], square[c] / (size / C)


@njit(**THREADED)
def statistics(kind: Any, x: Array, inner: int, mean: Array, variance: Array) -> None:
    """Mean and biased variance (C,) of each channel of x."""
    cuts = cut(kind, x.size, mean.size, inner)
    means, squares = np.empty(cuts.pieces * cuts.channels), np.empty(cuts.pieces * cuts.channels)
    for_each(piece_statistics, cuts.pieces, (kind, cuts, x, means, squares))
    total_statistics(cuts, x.size, means, squares, mean, variance)


# --- Normalize -------------------------------------------------------------------------------------------------------


@njit(**SERIAL)
def affine_map(mean: Array, inverse_std: Array, weight: Array, bias: Array) -> Array:
    """Each channel's (mean, scale, bias): (3, C), flat."""
    C = mean.size
    values = np.empty(3 * C, mean.dtype)
    for c in range(C):
        values[c], values[C + c], values[2 * C + c] = mean[c], inverse_std[c] * weight[c], bias[c]
    return values


@njit(**SERIAL)
def piece_normalize(
    kind: Any,
    cuts: Cut,
    x: Array,
    table: Array,
    addend: Array,
    has_addend: bool,
    relu: bool,
    y: Array,
    p: int,
) -> None:
    """y = (x - mean) scale + bias [+ addend] [then ReLU] on piece p."""
    (start, stop, channel), width, span = bounds(cuts, p), cuts.width, cuts.cycle * cuts.width
    whole, first = stop - (stop - start) % width, channel * width
    floor = broadcast(kind, 0.0 if relu else -np.inf)
    for row in range(start, whole, width):
        for lane in range(0, width, kind.lanes):
            i, k = row + lane, first + lane
            centered = load(kind, x, i) - load(kind, table, k)
            value = fma(centered, load(kind, table, k + span), load(kind, table, k + 2 * span))
            if has_addend:
                value = value + load(kind, addend, i)
            store(maximum(value, floor), y, i)
    for i in range(whole, stop, kind.lanes):
        k, count = first + i - whole, stop - i
        centered = load_part(kind, x, i, count) - load(kind, table, k)
        value = fma(centered, load(kind, table, k + span), load(kind, table, k + 2 * span))
        if has_addend:
            value = value + load_part(kind, addend, i, count)
        store_part(maximum(value, floor), y, i, count)


@njit(**THREADED)
def normalize(
    kind: Any,
    x: Array,
    inner: int,
    mean: Array,
    inverse_std: Array,
    weight: Array,
    bias: Array,
    addend: Array,
    has_addend: bool,
    relu: bool,
    y: Array,
) -> None:
    """y = (x - mean) inverse_std weight + bias [+ addend] [then ReLU]."""
    cuts = cut(kind, x.size, mean.size, inner)
    table = spread(affine_map(mean, inverse_std, weight, bias), cuts)
    for_each(piece_normalize, cuts.pieces, (kind, cuts, x, table, addend, has_addend, relu, y))


# --- Backward --------------------------------------------------------------------------------------------------------


@njit(**SERIAL)
def piece_sums(
    kind: Any,
    cuts: Cut,
    grad: Array,
    output: Array,
    x: Array,
    affine: Array,
    relu: bool,
    again: bool,
    keep: bool,
    gated: Array,
    sums: Array,
    products: Array,
    p: int,
) -> None:
    """The sums of g and g (x - mean) for each channel of piece p; ``gated`` = g where it is to be kept."""
    (start, stop, channel), width, span = bounds(cuts, p), cuts.width, cuts.cycle * cuts.width
    whole, first = stop - (stop - start) % width, channel * width
    table = np.empty(2 * width, x.dtype)  # sum of g, sum of products
    for lane in range(2 * width):
        table[lane] = 0
    for row in range(start, whole, width):
        for lane in range(0, width, kind.lanes):
            i = row + lane
            k = first + lane
            g, centered = load(kind, grad, i), load(kind, x, i) - load(kind, affine, k)
            if again:
                g = gate(g, fma(centered, load(kind, affine, k + span), load(kind, affine, k + 2 * span)))
            elif relu:
                g = gate(g, load(kind, output, i))
            if keep:
                store(g, gated, i)
            store(load(kind, table, lane) + g, table, lane)
            store(fma(g, centered, load(kind, table, lane + width)), table, lane + width)
    for i in range(whole, stop, kind.lanes):
        lane, count, k = i - whole, stop - i, first + i - whole
        g, centered = load_part(kind, grad, i, count), load_part(kind, x, i, count) - load(kind, affine, k)
        if again:
            g = gate(g, fma(centered, load(kind, affine, k + span), load(kind, affine, k + 2 * span)))
        elif relu:
            g = gate(g, load_part(kind, output, i, count))
        if keep:
            store_part(g, gated, i, count)
        store(load(kind, table, lane) + g, table, lane)
        store(fma(g, centered, load(kind, table, lane + width)), table, lane + width)
    fold(table[:width], part(sums, p, cuts.channels))
    fold(table[width:], part(products, p, cuts.channels))


@njit(**SERIAL)
def total_sums(
    cuts: Cut, sums: Array, products: Array, inverse_std: Array, grad_weight: Array, grad_bias: Array
) -> None:
    """The pieces' sums of g and g (x - mean), added up: grad_bias and grad_weight (C,)."""
    channels, total, product = cuts.channels, np.zeros(grad_bias.size), np.zeros(grad_bias.size)
    for p in range(cuts.pieces):
        channel, piece, piece_product = bounds(cuts, p)[2], part(sums, p, channels), part(products, p, channels)
        own, own_product = total[channel:], product[channel:]
        for c in range(channels):
            own[c] += piece[c]
            own_product[c] += piece_product[c]
    for c in range(grad_bias.size):
        grad_bias[c], grad_weight[c] = total[c], product[c] * inverse_std[c]


@njit(**SERIAL)
def gradient_map(
    mean: Array, inverse_std: Array, weight: Array, bias: Array, grad_weight: Array, grad_bias: Array, m: float
) -> Array:
    """Each channel's (mean, scale, bias, slope, offset), where grad_x = scale g + slope (x - mean) + offset: (5, C).

    ``m`` numbers lie in each channel.
    """
    C = mean.size
    values, affine = np.empty(5 * C, mean.dtype), affine_map(mean, inverse_std, weight, bias)
    for i in range(3 * C):
        values[i] = affine[i]
    for c in range(C):
        scale = values[C + c]
        values[3 * C + c] = -scale * inverse_std[c] * grad_weight[c] / m
        values[4 * C + c] = -scale * grad_bias[c] / m
    return values


@njit(**SERIAL)
def piece_gradient(
    kind: Any,
    cuts: Cut,
    grad: Array,
    output: Array,
    x: Array,
    table: Array,
    relu: bool,
    again: bool,
    constant: bool,
    grad_x: Array,
    p: int,
) -> None:
    """grad_x = scale g + slope (x - mean) + offset on piece p; scale g alone if the statistics are ``constant``.

    Alone, since a NaN in x is one in the slope of its channel, and 0 times that would be one in every pixel.
    """
    (start, stop, channel), width, span = bounds(cuts, p), cuts.width, cuts.cycle * cuts.width
    whole, first = stop - (stop - start) % width, channel * width
    for row in range(start, whole, width):
        for lane in range(0, width, kind.lanes):
            i, k = row + lane, first + lane
            g, centered = load(kind, grad, i), load(kind, x, i) - load(kind, table, k)
            if again:
                g = gate(g, fma(centered, load(kind, table, k + span), load(kind, table, k + 2 * span)))
            elif relu:
                g = gate(g, load(kind, output, i))
            value = g * load(kind, table, k + span)
            if not constant:
                value = value + fma(centered, load(kind, table, k + 3 * span), load(kind, table, k + 4 * span))
            store(value, grad_x, i)
    for i in range(whole, stop, kind.lanes):
        k, count = first + i - whole, stop - i
        g, centered = load_part(kind, grad, i, count), load_part(kind, x, i, count) - load(kind, table, k)
        if again:
            g = gate(g, fma(centered, load(kind, table, k + span), load(kind, table, k + 2 * span)))
        elif relu:
            g = gate(g, load_part(kind, output, i, count))
        value = g * load(kind, table, k + span)
        if not constant:
            value = value + fma(centered, load(kind, table, k + 3 * span), load(kind, table, k + 4 * span))
        store_part(value, grad_x, i, count)


@njit(**THREADED)
def backward(
    kind: Any,
    grad: Array,
    output: Array,
    x: Array,
    inner: int,
    mean: Array,
    inverse_std: Array,
    weight: Array,
    bias: Array,
    relu: bool,
    again: bool,
    keep: bool,
    constant: bool,
    gated: Array,
    grad_x: Array,
    grad_weight: Array,
    grad_bias: Array,
) -> None:
    """All gradients of normalize. No gradient flows through ``constant`` statistics; ``keep`` fills ``gated``.

    A ReLU's gate is where ``output`` is positive, or computed ``again`` as normalize did, to the last digit.
    """
    C = mean.size
    cuts = cut(kind, x.size, C, inner)
    sums, products = np.empty(cuts.pieces * cuts.channels), np.empty(cuts.pieces * cuts.channels)
    affine = spread(affine_map(mean, inverse_std, weight, bias), cuts)
    arguments = kind, cuts, grad, output, x, affine, relu, again, keep, gated, sums, products
    for_each(piece_sums, cuts.pieces, arguments)
    total_sums(cuts, sums, products, inverse_std, grad_weight, grad_bias)
    table = spread(gradient_map(mean, inverse_std, weight, bias, grad_weight, grad_bias, x.size / C), cuts)
    source, relu, again = gated if keep else grad, relu and not keep, again and not keep
    for_each(piece_gradient, cuts.pieces, (kind, cuts, source, output, x, table, relu, again, constant, grad_x))
