"""The loops of Winograd's algorithm, whose mathematics and letters (V, U, M, A, B, G) are in ``_winograd_algorithm``.

Memory. *Tiles first*: a block of tiles is transformed, multiplied and transformed back before the next, so V and M stay
in the second-level cache, while all of U is read for each block. *Filters first*, where U would be larger than all of
V: V is made for all tiles, then one block of channels out after the other has its filters transformed, multiplied and
forgotten; U, four times as large as the weights, never exists as a whole. For grad_weight likewise, so that threads
need no sums of their own. The plan chooses. A number of forward or grad_input has the same terms in the same order
in both.

x and y are met in *strips*: the rows of some neighbouring tiles, copied in the order of memory, with the zeros around
the image and channels filled up to whole vectors. The transforms then know no borders, and memory is read and written
in long runs; reading each patch where it lies took three times as long. Between two positions lie some unused numbers:
at a distance of a power of two, all positions of a patch would compete for the same few places of the first-level
cache.
"""

from __future__ import annotations

from typing import Any

from minires_kernels import simd
from minires_kernels.convolution._direct import copy, fill_zero
from minires_kernels.convolution._winograd_algorithm import Algorithm
from minires_kernels.jit import njit
from minires_kernels.simd import Tile, Vector

CHANNELS = 16
"""Channels that the products of forward and grad_input sum up before they are added to what is there: of all their
rounding errors, that of one long sum would be the largest."""

FILTERS = 64
"""Channels in whose transformed filters, to one block of channels out, are made at once where filters come first."""


@njit(error_model="numpy")
def transform_filter(kind: Algorithm, grid: Any, weight: Any, o: int, c: int, U: Any, at: int) -> None:
    """U = G g G^T for the filters from channel in ``c`` to a vector of channels out; zeros beyond the last O."""
    filters = simd.tile_zero(kind.filters)
    if o < grid.O:
        first = c * grid.weight_in + o * grid.weight_out + grid.first_tap
        filters = simd.tile_gather(
            kind.filters, weight, first, 3 * grid.next_tap, grid.next_tap, grid.weight_out, grid.O - o
        )
    simd.tile_scatter(simd.tile_sandwich(kind.filter, filters), U, at, kind.size * grid.U_step, grid.U_step)


@njit(error_model="numpy")
def transform_filters(
    kind: Algorithm, part: int, parts: int, grids: Any, _phases: Any, weight: Any, U: Any, _third: Any, _fourth: Any
) -> None:
    """All filters, as panels (position, block of channels out, channel in, tile's width)."""
    grid = grids[0]
    count = grid.O_padded // kind.vector.lanes * grid.C
    for k in range(part * count // parts, (part + 1) * count // parts):
        o, c = k // grid.C * kind.vector.lanes, k % grid.C  # neighbouring channels in: neighbours in weight and U
        block = o // grid.width
        transform_filter(kind, grid, weight, o, c, U, (block * grid.C + c) * grid.width + o - block * grid.width)


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
def neighbours(kind: Algorithm, grid: Any, first: int, last: int) -> tuple[int, int, int, int]:
    """(tiles, n, h, w): how many of the tiles ``first`` ... ``last`` lie side by side; the first's image and corner."""
    row = first // grid.right
    right = first - row * grid.right
    n = row // grid.down
    return min(grid.right - right, last - first), n, (row - n * grid.down) * kind.m, right * kind.m


@njit(error_model="numpy")
def transform_patches(
    kind: Algorithm, grid: Any, x: Any, first: int, last: int, V: Any, at: int, strip: Any, strip_at: int
) -> None:
    """V = B^T d B of the patches ``first`` ... ``last``: (position, tile, channel)."""
    C, step = grid.C_padded, grid.V_step
    while first < last:
        tiles, n, h, w = neighbours(kind, grid, first, last)
        h, w, columns = h - grid.top, w - grid.left, tiles * kind.m + 2
        pack_strip(kind.vector, x, n, grid.H, grid.W, grid.C, h, kind.size, w, columns, strip, strip_at, C)
        for start in range(strip_at, strip_at + tiles * kind.m * C, kind.m * C):
            for c in range(0, C, kind.vector.lanes):
                patch = simd.tile_load(kind.patch, strip, start + c, columns * C, C)
                simd.tile_scatter(simd.tile_sandwich(kind.input, patch), V, at + c, kind.size * step, step)
            at += grid.V_tile
        first += tiles


@njit(error_model="numpy")
def transform_outputs(
    kind: Algorithm, grid: Any, M: Any, at: int, first: int, last: int, y: Any, strip: Any, strip_at: int, channel: int
) -> None:
    """y = A^T M A of the tiles ``first`` ... ``last``; M holds the channels from ``channel`` on."""
    O, step = grid.strip_O, grid.M_step
    while first < last:
        tiles, n, h, w = neighbours(kind, grid, first, last)
        columns = tiles * kind.m
        for start in range(strip_at, strip_at + columns * O, kind.m * O):
            for o in range(0, O, kind.vector.lanes):
                patch = simd.tile_load(kind.patch, M, at + o, kind.size * step, step)
                simd.tile_scatter(simd.tile_sandwich(kind.output, patch), strip, start + o, columns * O, O)
            at += grid.M_tile
        unpack_strip(kind.vector, strip, strip_at, O, kind.m, columns, y, n, grid.OH, grid.OW, grid.O, h, w, channel)
        first += tiles


@njit(error_model="numpy")
def products(
    tile: Tile, positions: int, V: Any, v_at: int, v_step: int, v_tile: int, tiles: int, U: Any, u_at: int, u_step: int,
    channels: int, blocks: int, M: Any, m_at: int, m_step: int, m_tile: int, before: int,
) -> None:  # fmt: skip
    """The micro-kernel of forward: for each position M[tiles, O] = V[tiles, C] U[C, O].

    It is added to what is there if channels in have been summed up ``before``.
    """
    tiles = max(tiles, tile.rows)  # rows beyond the last tile hold numbers that nobody looks at
    for position in range(positions):
        for block in range(blocks):
            panel = u_at + position * u_step + block * channels * tile.width
            for t in range(0, tiles, tile.rows):
                row = min(t, tiles - tile.rows)  # the last rows overlap their neighbours,
                done = before > 0 and row < t  # to which a sum must not be added twice
                m = m_at + position * m_step + row * m_tile + block * tile.width
                v = v_at + position * v_step + row * v_tile
                for first in range(0, channels, CHANNELS):
                    sums = simd.tile_zero(tile)
                    for c in range(first, min(first + CHANNELS, channels)):
                        sums = simd.tile_outer(sums, V, v + c, v_tile, U, panel + c * tile.width)
                    if before + first == 0:
                        simd.tile_store(sums, M, m, m_tile)
                    else:
                        simd.tile_add(sums, M, m, m_tile, t - row if done else 0)


@njit(error_model="numpy")
def correlate(
    kind: Algorithm, part: int, parts: int, grids: Any, _phases: Any, x: Any, U: Any, y: Any, work: Any
) -> None:
    """Blocks of tiles: transformed, multiplied at each position, transformed back."""
    grid = grids[0]
    first, last = part * grid.tiles // parts, (part + 1) * grid.tiles // parts
    v_at = part * grid.work
    m_at = v_at + grid.V_size
    strip = m_at + grid.M_size
    for t in range(first, last, grid.block):
        end = min(t + grid.block, last)
        transform_patches(kind, grid, x, t, end, work, v_at, work, strip)
        simd.call(
            grid.micro_kernel,
            (
                kind.size * kind.size, work, v_at, grid.V_step, grid.V_tile, end - t, U, 0, grid.U_step,
                grid.C, grid.blocks, work, m_at, grid.M_step, grid.M_tile, 0,
            ),
        )  # fmt: skip
        transform_outputs(kind, grid, work, m_at, t, end, y, work, strip, 0)


@njit(error_model="numpy")
def spread_patches(
    kind: Algorithm, part: int, parts: int, grids: Any, _phases: Any, x: Any, grad_output: Any, V: Any, work: Any
) -> None:
    """Filters first: V of all tiles, and behind it E of all tiles if there is a ``grad_output``."""
    grid = grids[0]
    first, last = part * grid.tiles // parts, (part + 1) * grid.tiles // parts
    transform_patches(kind, grid, x, first, last, V, first * grid.V_tile, work, part * grid.work)
    if grad_output.size > 0:
        e_at = grid.V_size + first * grid.M_tile
        transform_gradients(kind, grid, grad_output, first, last, V, e_at, work, part * grid.work)


@njit(error_model="numpy")
def correlate_filters(
    kind: Algorithm, part: int, parts: int, grids: Any, _phases: Any, V: Any, weight: Any, y: Any, work: Any
) -> None:
    """Filters first: a block of channels out at a time, for all tiles. Its filters are transformed, used, forgotten."""
    grid = grids[0]
    u_at = part * grid.work
    m_at = u_at + grid.U_size
    strip = m_at + grid.M_size
    for block in range(part * grid.blocks // parts, (part + 1) * grid.blocks // parts):
        for c in range(0, grid.C, FILTERS):
            channels = min(FILTERS, grid.C - c)
            for k in range(channels):
                for lane in range(0, grid.width, kind.vector.lanes):
                    o = block * grid.width + lane
                    transform_filter(kind, grid, weight, o, c + k, work, u_at + k * grid.width + lane)
            simd.call(
                grid.micro_kernel,
                (
                    kind.size * kind.size, V, c, grid.V_step, grid.V_tile, grid.tiles, work, u_at, grid.U_step,
                    channels, 1, work, m_at, grid.M_step, grid.M_tile, c,
                ),
            )  # fmt: skip
        transform_outputs(kind, grid, work, m_at, 0, grid.tiles, y, work, strip, block * grid.width)


@njit(error_model="numpy")
def transform_gradients(
    kind: Algorithm, grid: Any, grad_output: Any, first: int, last: int, E: Any, at: int, strip: Any, strip_at: int
) -> None:
    """E = A grad_y A^T of the tiles ``first`` ... ``last``: (position, tile, channel)."""
    O, step = grid.strip_O, grid.M_step
    while first < last:
        tiles, n, h, w = neighbours(kind, grid, first, last)
        columns = tiles * kind.m
        pack_strip(kind.vector, grad_output, n, grid.OH, grid.OW, grid.O, h, kind.m, w, columns, strip, strip_at, O)
        for start in range(strip_at, strip_at + columns * O, kind.m * O):
            for o in range(0, O, kind.vector.lanes):
                outputs = simd.tile_load(kind.outputs, strip, start + o, columns * O, O)
                simd.tile_scatter(simd.tile_sandwich(kind.grad_output, outputs), E, at + o, kind.size * step, step)
            at += grid.M_tile
        first += tiles


@njit(error_model="numpy")
def product_sums(
    tile: Tile, positions: int, V: Any, v_at: int, v_step: int, v_tile: int, tiles: int, E: Any, e_at: int,
    e_step: int, e_tile: int, sums: Any, at: int, step: int, channels: int, width: int,
) -> None:  # fmt: skip
    """The micro-kernel of grad_weight: for each position sums[C, O] += V[tiles, C]^T E[tiles, O], O being ``width``."""
    for position in range(positions):
        for c in range(0, channels, tile.rows):
            row = min(c, channels - tile.rows)
            for o in range(0, width, tile.width):
                block = simd.tile_zero(tile)
                v, e = v_at + position * v_step + row, e_at + position * e_step + o
                for _ in range(tiles):
                    block = simd.tile_outer(block, V, v, 1, E, e)
                    v += v_tile
                    e += e_tile
                simd.tile_add(block, sums, at + position * step + row * width + o, width, c - row)


@njit(error_model="numpy")
def accumulate(
    kind: Algorithm, part: int, parts: int, grids: Any, _phases: Any, x: Any, grad_output: Any, sums: Any, work: Any
) -> None:
    """One thread's sums over its tiles, for each position; added up by blocks, which bounds the rounding error."""
    grid = grids[0]
    positions = kind.size * kind.size
    fill_zero(kind.vector, sums, part * positions * grid.U_step, positions * grid.U_step)
    first, last = part * grid.tiles // parts, (part + 1) * grid.tiles // parts
    v_at = part * grid.work
    e_at = v_at + grid.V_size
    strip = e_at + grid.M_size
    for t in range(first, last, grid.block):
        end = min(t + grid.block, last)
        transform_patches(kind, grid, x, t, end, work, v_at, work, strip)
        transform_gradients(kind, grid, grad_output, t, end, work, e_at, work, strip)
        simd.call(
            grid.micro_kernel,
            (
                positions, work, v_at, grid.V_step, grid.V_tile, end - t, work, e_at, grid.M_step, grid.M_tile,
                sums, part * positions * grid.U_step, grid.U_step, grid.C, grid.O_padded,
            ),
        )  # fmt: skip


@njit(error_model="numpy")
def transform_sums(
    kind: Algorithm, grid: Any, total: Any, o: int, c: int, grad_weight: Any, lanes: Any, buffer: int
) -> None:
    """grad_weight = G^T (the sum over tiles) G, for the filters from channel in ``c`` to a vector of channels out."""
    n = kind.vector.lanes
    simd.tile_scatter(simd.tile_sandwich(kind.grad_filter, total), lanes, buffer, 3 * n, n)
    for lane in range(min(n, grid.O - o)):
        for k in range(9):
            grad_weight[(o + lane) * grid.weight_out + c * grid.weight_in + k] = lanes[buffer + k * n + lane]


@njit(error_model="numpy")
def gather_filters(
    kind: Algorithm,
    part: int,
    parts: int,
    grids: Any,
    _phases: Any,
    sums: Any,
    grad_weight: Any,
    lanes: Any,
    _fourth: Any,
) -> None:
    """grad_weight from the sums of all threads, added in their order."""
    grid, n = grids[0], kind.vector.lanes
    size = kind.size * kind.size * grid.U_step
    for c in range(part * grid.C // parts, (part + 1) * grid.C // parts):
        for o in range(0, grid.O, n):
            at = c * grid.O_padded + o
            total = simd.tile_load(kind.patch, sums, at, kind.size * grid.U_step, grid.U_step)
            for other in range(1, parts):
                more = simd.tile_load(kind.patch, sums, other * size + at, kind.size * grid.U_step, grid.U_step)
                total = simd.tile_plus(total, more)
            transform_sums(kind, grid, total, o, c, grad_weight, lanes, part * 9 * n)


@njit(error_model="numpy")
def accumulate_filters(
    kind: Algorithm, part: int, parts: int, grids: Any, _phases: Any, V: Any, grad_weight: Any, lanes: Any, work: Any
) -> None:
    """Filters first: the sums of a block of channels out over all tiles, transformed before the next block begins."""
    grid, n = grids[0], kind.vector.lanes
    positions, at = kind.size * kind.size, part * grid.work
    for block in range(part * grid.blocks // parts, (part + 1) * grid.blocks // parts):
        first = block * grid.width
        for c in range(0, grid.C, FILTERS):
            channels = min(FILTERS, grid.C - c)
            if channels < grid.rows:  # the tiles of the last, narrow piece overlap its neighbour: begin earlier
                c, channels = max(grid.C - grid.rows, 0), min(grid.rows, grid.C)
            fill_zero(kind.vector, work, at, positions * grid.U_step)
            for t in range(0, grid.tiles, grid.block):
                simd.call(
                    grid.micro_kernel,
                    (
                        positions, V, t * grid.V_tile + c, grid.V_step, grid.V_tile, min(grid.block, grid.tiles - t),
                        V, grid.V_size + t * grid.M_tile + first, grid.M_step, grid.M_tile,
                        work, at, grid.U_step, channels, grid.width,
                    ),
                )  # fmt: skip
            for k in range(channels):
                for o in range(first, min(first + grid.width, grid.O), n):
                    total = simd.tile_load(
                        kind.patch, work, at + k * grid.width + o - first, kind.size * grid.U_step, grid.U_step
                    )
                    transform_sums(kind, grid, total, o, c + k, grad_weight, lanes, part * 9 * n)
