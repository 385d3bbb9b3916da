"""The loops of Winograd's algorithm, whose mathematics and letters (V, U, M, A, B, G) are in ``_winograd_algorithm``.

*Tiles first*: a block of tiles is transformed, multiplied and transformed back before the next, so V and M stay
in the second-level cache, while all of U is read for each block. *Filters first*, where U would be larger than all of
V: V is made for all tiles, then one block of channels out after the other has its filters transformed, multiplied and
forgotten; U, up to four times as large as the weights, never exists as a whole. For grad_weight likewise, so that
threads need no sums of their own. The plan chooses. A number of forward or grad_input has the same terms in the same
order in both.

None of this depends on the algorithm: its transforms (``_winograd_transforms``) and the products on its register tiles
are called by their addresses, which the grid holds. ``part``, ``parts`` and ``worker`` as in ``_direct``.
``sides`` are what is cut into patches: x and, for grad_weight, grad_output.
"""

from __future__ import annotations

from typing import Any

from minires_kernels import simd
from minires_kernels.convolution._direct import fill_zero
from minires_kernels.jit import njit
from minires_kernels.simd import Tile, Vector

FILTERS = 64
"""Channels in whose transformed filters, to one block of channels out, are made at once where filters come first."""

LANES = 10
"""Vectors that a thread's gradients of filters need before their lanes part: nine taps, and what it has watched."""


@njit(error_model="numpy")
def spread_filters(
    kind: Vector, part: int, parts: int, worker: int, grids: Any, _sides: Any, weight: Any, U: Any, _third: Any,
    _fourth: Any,
) -> None:  # fmt: skip
    """U of all filters, as panels (position, block of channels out, channel in, tile's width)."""
    grid = grids[0]
    count = grid.O_padded // kind.lanes * grid.C
    k, last = part * count // parts, (part + 1) * count // parts
    while k < last:
        o, c = k // grid.C * kind.lanes, k % grid.C  # neighbouring channels in: neighbours in weight and U
        block, channels = o // grid.width, min(grid.C - c, last - k)
        at = (block * grid.C + c) * grid.width + o - block * grid.width
        simd.call(grid.transform_filters, (grids, weight, o, c, channels, U, at))
        k += channels


@njit(error_model="numpy")
def spread_patches(
    kind: Vector, part: int, parts: int, worker: int, grids: Any, sides: Any, x: Any, grad_output: Any, V: Any,
    work: Any,
) -> None:  # fmt: skip
    """Filters first: V of all tiles, and behind it E of all tiles if the other side is a ``grad_output``."""
    grid = grids[0]
    first, last = part * grid.tiles // parts, (part + 1) * grid.tiles // parts
    strip = worker * grid.work
    simd.call(sides[0].transform, (grids, sides, 0, x, first, last, V, first * grid.V_tile, work, strip))
    if sides.size > 1:
        e_at = grid.V_size + first * grid.M_tile
        simd.call(sides[1].transform, (grids, sides, 1, grad_output, first, last, V, e_at, work, strip))


# --- forward and grad_input -------------------------------------------------------------------------------------------


@njit(error_model="numpy")
def products(
    tile: Tile, positions: int, V: Any, v_at: int, v_step: int, v_tile: int, tiles: int, U: Any, u_at: int, u_step: int,
    channels: int, blocks: int, longest: int, M: Any, m_at: int, m_step: int, m_tile: int, before: int,
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
                for first in range(0, channels, longest):
                    sums = simd.tile_zero(tile)
                    for c in range(first, min(first + longest, channels)):
                        sums = simd.tile_outer(sums, V, v + c, v_tile, U, panel + c * tile.width)
                    if before + first == 0:
                        simd.tile_store(sums, M, m, m_tile)
                    else:
                        simd.tile_add(sums, M, m, m_tile, t - row if done else 0)


@njit(error_model="numpy")
def correlate(
    kind: Vector, part: int, parts: int, worker: int, grids: Any, sides: Any, x: Any, U: Any, y: Any, work: Any
) -> None:
    """Blocks of tiles: transformed, multiplied at each position, transformed back."""
    grid = grids[0]
    first, last = part * grid.tiles // parts, (part + 1) * grid.tiles // parts
    v_at = worker * grid.work
    m_at = v_at + grid.V_size
    strip = m_at + grid.M_size
    for t in range(first, last, grid.block):
        end = min(t + grid.block, last)
        simd.call(sides[0].transform, (grids, sides, 0, x, t, end, work, v_at, work, strip))
        simd.call(
            grid.micro_kernel,
            (
                grid.positions, work, v_at, grid.V_step, grid.V_tile, end - t, U, 0, grid.U_step,
                grid.C, grid.blocks, grid.longest_sum, work, m_at, grid.M_step, grid.M_tile, 0,
            ),
        )  # fmt: skip
        simd.call(grid.transform_outputs, (grids, work, m_at, t, end, y, work, strip, 0))


@njit(error_model="numpy")
def correlate_filters(
    kind: Vector, part: int, parts: int, worker: int, grids: Any, _sides: Any, V: Any, weight: Any, y: Any, work: Any
) -> None:
    """Filters first: a block of channels out at a time, for all tiles. Its filters are transformed, used, forgotten."""
    grid = grids[0]
    u_at = worker * grid.work
    m_at = u_at + grid.U_size
    strip = m_at + grid.M_size
    for block in range(part * grid.blocks // parts, (part + 1) * grid.blocks // parts):
        for c in range(0, grid.C, FILTERS):
            channels = min(FILTERS, grid.C - c)
            for lane in range(0, grid.width, kind.lanes):
                o = block * grid.width + lane
                simd.call(grid.transform_filters, (grids, weight, o, c, channels, work, u_at + lane))
            simd.call(
                grid.micro_kernel,
                (
                    grid.positions, V, c, grid.V_step, grid.V_tile, grid.tiles, work, u_at, grid.U_step,
                    channels, 1, grid.longest_sum, work, m_at, grid.M_step, grid.M_tile, c,
                ),
            )  # fmt: skip
        simd.call(grid.transform_outputs, (grids, work, m_at, 0, grid.tiles, y, work, strip, block * grid.width))


# --- grad_weight ------------------------------------------------------------------------------------------------------


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
    kind: Vector, part: int, parts: int, worker: int, grids: Any, sides: Any, x: Any, grad_output: Any, sums: Any,
    work: Any,
) -> None:  # fmt: skip
    """One thread's sums over its tiles, for each position; added up by blocks, which bounds the rounding error."""
    grid = grids[0]
    size = grid.positions * grid.U_step
    fill_zero(kind, sums, part * size, size)
    first, last = part * grid.tiles // parts, (part + 1) * grid.tiles // parts
    v_at = worker * grid.work
    e_at = v_at + grid.V_size
    strip = e_at + grid.M_size
    for t in range(first, last, grid.block):
        end = min(t + grid.block, last)
        simd.call(sides[0].transform, (grids, sides, 0, x, t, end, work, v_at, work, strip))
        simd.call(sides[1].transform, (grids, sides, 1, grad_output, t, end, work, e_at, work, strip))
        simd.call(
            grid.micro_kernel,
            (
                grid.positions, work, v_at, grid.V_step, grid.V_tile, end - t, work, e_at, grid.M_step, grid.M_tile,
                sums, part * size, grid.U_step, grid.C, grid.O_padded,
            ),
        )  # fmt: skip


@njit(error_model="numpy")
def gather_filters(
    kind: Vector, part: int, parts: int, worker: int, grids: Any, _sides: Any, sums: Any, grad_weight: Any, lanes: Any,
    _fourth: Any,
) -> None:  # fmt: skip
    """grad_weight from the sums of all threads, added in their order."""
    grid = grids[0]
    c, end = part * grid.C // parts, (part + 1) * grid.C // parts
    for o in range(0, grid.O, kind.lanes):
        at = c * grid.O_padded + o
        buffer = worker * LANES * kind.lanes
        simd.call(
            grid.transform_sums,
            (grids, sums, at, grid.O_padded, parts, o, c, end - c, grad_weight, lanes, buffer),
        )


@njit(error_model="numpy")
def accumulate_filters(
    kind: Vector, part: int, parts: int, worker: int, grids: Any, _sides: Any, V: Any, grad_weight: Any, lanes: Any,
    work: Any,
) -> None:  # fmt: skip
    """Filters first: the sums of a block of channels out over all tiles, transformed before the next block begins."""
    grid = grids[0]
    at, buffer = worker * grid.work, worker * LANES * kind.lanes
    for block in range(part * grid.blocks // parts, (part + 1) * grid.blocks // parts):
        first = block * grid.width
        for c in range(0, grid.C, FILTERS):
            channels = min(FILTERS, grid.C - c)
            if channels < grid.rows:  # the tiles of the last, narrow piece overlap its neighbour: begin earlier
                c, channels = max(grid.C - grid.rows, 0), min(grid.rows, grid.C)
            fill_zero(kind, work, at, grid.positions * grid.U_step)
            for t in range(0, grid.tiles, grid.block):
                simd.call(
                    grid.micro_kernel,
                    (
                        grid.positions, V, t * grid.V_tile + c, grid.V_step, grid.V_tile,
                        min(grid.block, grid.tiles - t), V, grid.V_size + t * grid.M_tile + first, grid.M_step,
                        grid.M_tile, work, at, grid.U_step, channels, grid.width,
                    ),
                )  # fmt: skip
            for o in range(first, min(first + grid.width, grid.O), kind.lanes):
                simd.call(
                    grid.transform_sums,
                    (grids, work, at + o - first, grid.width, 1, o, c, channels, grad_weight, lanes, buffer),
                )
