"""The transforms of Winograd's algorithm, of many patches, filters or sums; letters as in ``_winograd_algorithm``.

Each is compiled for itself, and the loops in ``_winograd_loops`` call it by its address: so the loops are compiled
once, whatever the algorithm.

x and y are met in *strips*: the rows of some neighbouring tiles, copied in the order of memory, with the zeros around
the image and channels filled up to whole vectors. The transforms then know no borders, and memory is read and written
in long runs; reading each patch where it lies took three times as long. Between two positions lie some unused numbers:
at a distance of a power of two, all positions of a patch would compete for the same few places of the first-level
cache.

What the inverse transforms make is *watched* while it is in registers: 0 times the sum of a tile's outputs is 0, unless
one of them is infinite or NaN. What a thread has seen of all its tiles so far is a vector behind its strip (or behind
its lanes); ``_winograd`` looks at these when the threads are done.
"""

from __future__ import annotations

from typing import Any

from minires_kernels import simd
from minires_kernels.convolution._direct import copy, fill_zero
from minires_kernels.convolution._winograd_algorithm import Algorithm, PatchTransform
from minires_kernels.jit import njit
from minires_kernels.simd import Vector


@njit(error_model="numpy")
def pack_strip(
    kind: Vector, x: Any, n: int, H: int, W: int, C: int, h: int, rows: int, w: int, columns: int,
    strip: Any, at: int, padded: int,
) -> None:  # fmt: skip
    """strip[at : ...] (rows, columns, padded) = rows ``h`` ... and columns ``w`` ... of image n of x (N, H, W, C).

    Zeros outside the image, and in channels from C to ``padded``.
    """
    first, last = min(max(-w, 0), columns), max(min(W - w, columns), 0)
    for i in range(h, h + rows):
        if 0 <= i < H:
            source, to = ((n * H + i) * W + w + first) * C, at + first * padded
            fill_zero(kind, strip, at, first * padded)
            if padded == C:
                copy(kind, x, source, strip, to, (last - first) * C)
            else:
                for p in range(last - first):
                    copy(kind, x, source + p * C, strip, to + p * padded, C)
                    fill_zero(kind, strip, to + p * padded + C, padded - C)
            fill_zero(kind, strip, at + last * padded, (columns - last) * padded)
        else:
            fill_zero(kind, strip, at, columns * padded)
        at += columns * padded


@njit(error_model="numpy")
def unpack_strip(
    kind: Vector, strip: Any, at: int, padded: int, rows: int, columns: int,
    y: Any, n: int, H: int, W: int, C: int, h: int, w: int, first: int,
) -> None:  # fmt: skip
    """The reverse: what lies inside image n of y (N, H, W, C), the strip's channels being those from ``first`` on."""
    inside = min(W - w, columns)
    for i in range(h, min(h + rows, H)):
        to = ((n * H + i) * W + w) * C + first
        if padded == C:
            copy(kind, strip, at, y, to, inside * C)
        else:
            for p in range(inside):
                copy(kind, strip, at + p * padded, y, to + p * C, min(padded, C - first))
        at += columns * padded


@njit(error_model="numpy")
def neighbours(grid: Any, first: int, last: int) -> tuple[int, int, int, int]:
    """(tiles, n, down, right): how many of the tiles ``first`` ... ``last`` lie side by side; where the first lies."""
    row = first // grid.right
    right = first - row * grid.right
    n = row // grid.down
    return min(grid.right - right, last - first), n, row - n * grid.down, right


@njit(error_model="numpy")
def transform_patches(
    kind: PatchTransform, grids: Any, sides: Any, k: int, x: Any, first: int, last: int, V: Any, at: int, strip: Any,
    strip_at: int,
) -> None:  # fmt: skip
    """V = B^T d B of the patches ``first`` ... ``last`` of side k: (position, tile, channel)."""
    grid, side = grids[0], sides[k]
    C, position_step, step, size = side.padded, side.position_step, side.step, kind.patch.rows
    while first < last:
        tiles, n, down, right = neighbours(grid, first, last)
        h, w, columns = down * step - side.top, right * step - side.left, (tiles - 1) * step + size
        simd.call(grid.pack_strip, (x, n, side.H, side.W, side.C, h, size, w, columns, strip, strip_at, C))
        for start in range(strip_at, strip_at + tiles * step * C, step * C):
            for c in range(0, C, kind.vector.lanes):
                patch = simd.tile_sandwich(kind.matrix, simd.tile_load(kind.patch, strip, start + c, columns * C, C))
                simd.tile_scatter(patch, V, at + c, kind.size * position_step, position_step)
            at += side.tile_step
        first += tiles


@njit(error_model="numpy")
def transform_outputs(
    kind: Algorithm, grids: Any, M: Any, at: int, first: int, last: int, y: Any, strip: Any, strip_at: int, channel: int
) -> None:
    """y = A^T M A of the tiles ``first`` ... ``last``; M holds the channels from ``channel`` on."""
    grid = grids[0]
    O, step, rows = grid.strip_O, grid.M_step, kind.output_size
    watch, nought = simd.load(kind.vector, strip, strip_at + grid.strip), simd.zero(kind.vector)
    while first < last:
        tiles, n, down, right = neighbours(grid, first, last)
        h, w, columns = down * rows, right * rows, tiles * rows
        for start in range(strip_at, strip_at + columns * O, rows * O):
            for o in range(0, O, kind.vector.lanes):
                products = simd.tile_load(kind.positions, M, at + o, kind.size * step, step)
                outputs = simd.tile_sandwich(kind.output, products)
                simd.tile_scatter(outputs, strip, start + o, columns * O, O)
                watch = simd.fma(simd.tile_total(outputs), nought, watch)
            at += grid.M_tile
        simd.call(
            grid.unpack_strip,
            (strip, strip_at, O, rows, columns, y, n, grid.OH, grid.OW, grid.O, h, w, channel),
        )
        first += tiles
    simd.store(watch, strip, strip_at + grid.strip)


@njit(error_model="numpy")
def transform_filters(kind: Algorithm, grids: Any, weight: Any, o: int, c: int, channels: int, U: Any, at: int) -> None:
    """U = G g G^T for the filters from channels in ``c`` ... to a vector of channels out; zeros beyond the last O."""
    grid = grids[0]
    for k in range(channels):
        filters = simd.tile_zero(kind.filters)
        if o < grid.O:
            first = (c + k) * grid.weight_in + o * grid.weight_out + grid.first_tap
            filters = simd.tile_gather(
                kind.filters, weight, first, 3 * grid.next_tap, grid.next_tap, grid.weight_out, grid.O - o
            )
        U_at = at + k * grid.width
        simd.tile_scatter(simd.tile_sandwich(kind.filter, filters), U, U_at, kind.size * grid.U_step, grid.U_step)


@njit(error_model="numpy")
def transform_sums(
    kind: Algorithm, grids: Any, sums: Any, at: int, width: int, parts: int, o: int, c: int, channels: int,
    grad_weight: Any, lanes: Any, buffer: int,
) -> None:  # fmt: skip
    """grad_weight = G^T (the sum over tiles) G, for the filters from channels in ``c`` ... to a vector of channels out.

    The sum is that of ``parts`` sums, added in their order.
    """
    grid, n = grids[0], kind.vector.lanes
    size = kind.size * kind.size * grid.U_step
    watch, nought = simd.load(kind.vector, lanes, buffer + 9 * n), simd.zero(kind.vector)
    for k in range(channels):
        total = simd.tile_load(kind.positions, sums, at + k * width, kind.size * grid.U_step, grid.U_step)
        for part in range(1, parts):
            start = at + k * width + part * size
            more = simd.tile_load(kind.positions, sums, start, kind.size * grid.U_step, grid.U_step)
            total = simd.tile_plus(total, more)
        filters = simd.tile_sandwich(kind.grad_filter, total)
        simd.tile_scatter(filters, lanes, buffer, 3 * n, n)
        watch = simd.fma(simd.tile_total(filters), nought, watch)
        for lane in range(min(n, grid.O - o)):
            for tap in range(9):
                grad_weight[(o + lane) * grid.weight_out + (c + k) * grid.weight_in + tap] = lanes[
                    buffer + tap * n + lane
                ]
    simd.store(watch, lanes, buffer + 9 * n)
