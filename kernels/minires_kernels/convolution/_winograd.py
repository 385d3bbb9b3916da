"""Winograd's algorithm as the three kernels of a convolution: which shapes, how memory is laid out, which program runs.

The algorithm and its loops are in ``_winograd_loops``.
"""

from __future__ import annotations

from functools import lru_cache
from math import ceil
from typing import Any, NamedTuple

import numba
import numpy as np

from minires_kernels.arena import empty_channels_last, scratch
from minires_kernels.arrays import Array
from minires_kernels.convolution import _winograd_loops as loops
from minires_kernels.convolution._geometry import PHASE, Record, Shape, best_tile, flat, integers, record
from minires_kernels.convolution._winograd_loops import Algorithm
from minires_kernels.flat import pixels
from minires_kernels.simd import Tile, address, in_parallel, kinds, vector
from minires_kernels.window import Window

GRID = integers(
    # x (N, H, W, C) and y (N, OH, OW, O), zeros before x; tiles down and right, in all, and in a block
    *("N", "H", "W", "C", "OH", "OW", "O", "top", "left", "down", "right", "tiles", "block"),
    # channels out padded to a tile's width and channels in to a vector's; numbers between positions of V, M, U
    *("C_padded", "O_padded", "V_step", "M_step", "U_step", "V_size", "M_size"),
    # channels out in a strip: padded to a vector's; numbers in V, M and a strip of one thread
    *("strip_O", "work"),
    # strides of the weight, and its first tap and the step to the next (grad_input turns filters round)
    *("weight_in", "weight_out", "first_tap", "next_tap"),
    *("micro_kernel", "width", "blocks"),
)


BLOCK_TILES = 24, 128
"""The fewest and most tiles in a block. Between them V and M together get half of the second-level cache, which they
share with a strip of x and with U. U is read once for each block: where it is too large for that cache, the fewest
tiles see to it that each of its numbers is used often enough to hide its way."""

NO_PHASES = np.empty(0, PHASE)


class Plan(NamedTuple):
    """Everything about a call that its shapes decide."""

    grid: Record
    programs: tuple[int, int]
    U: int  # numbers in the transformed filters, or in one thread's sums
    work: int  # numbers in V and M of all threads
    lanes: int  # numbers in the threads' buffers for the lanes of gradients of filters


def _program(function: Any, algorithm: Algorithm) -> int:
    x = np.empty(0, algorithm.vector.dtype)
    return address(function, algorithm, 0, 0, np.empty(0, GRID), NO_PHASES, x, x, x, x)


def _grid(m: int, x_shape: Shape, O: int, padding: tuple[int, int], dtype: str, parts: int) -> dict[str, int]:
    N, C, H, W = x_shape
    OH, OW = H + 2 * padding[0] - 2, W + 2 * padding[1] - 2
    down, right = ceil(OH / m), ceil(OW / m)
    tiles, positions = N * down * right, (m + 2) ** 2
    bytes_per_tile = positions * (C + O) * np.dtype(dtype).itemsize
    fewest, most = BLOCK_TILES
    block = max(fewest, min(most, kinds.CACHE_BYTES // 2 // bytes_per_tile // 8 * 8))
    block = min(block, ceil(tiles / parts))
    return {
        **{"N": N, "H": H, "W": W, "C": C, "OH": OH, "OW": OW, "O": O, "top": padding[0], "left": padding[1]},
        **{"down": down, "right": right, "tiles": tiles, "block": block},
    }


def _padded(count: int, unit: int) -> int:
    return ceil(count / unit) * unit


def _layout(grid: dict[str, int], m: int, tile: Tile, lanes: int) -> None:
    positions, gap = (m + 2) ** 2, 16
    grid["C_padded"], grid["O_padded"] = _padded(grid["C"], lanes), _padded(grid["O"], tile.width)
    grid["V_step"] = grid["block"] * grid["C_padded"] + gap
    grid["M_step"] = grid["block"] * grid["O_padded"] + gap
    grid["U_step"] = grid["C"] * grid["O_padded"] + gap
    grid["V_size"], grid["M_size"] = _padded(positions * grid["V_step"], 16), _padded(positions * grid["M_step"], 16)
    grid["strip_O"] = _padded(grid["O"], lanes)
    columns = grid["right"] * m
    strip = max((m + 2) * (columns + 2) * grid["C_padded"], m * columns * grid["strip_O"])
    grid["work"] = grid["V_size"] + grid["M_size"] + _padded(strip, 16)
    grid["width"], grid["blocks"] = tile.width, grid["O_padded"] // tile.width


@lru_cache(maxsize=4096)
def _plan_correlation(
    m: int, x_shape: Shape, O: int, padding: tuple[int, int], turned: bool, dtype: str, parts: int,
    register_bytes: int,
) -> Plan:  # fmt: skip
    """Of forward, or of grad_input (filters ``turned`` round and transposed). ``register_bytes`` is for the key."""
    grid, C = _grid(m, x_shape, O, padding, dtype, parts), x_shape[1]
    algorithm = Algorithm(vector(dtype), m)
    _, tile = best_tile(algorithm.vector, {grid["block"]}, O)
    _layout(grid, m, tile, algorithm.vector.lanes)
    x = np.empty(0, dtype)
    grid["micro_kernel"] = address(loops.products, tile, 0, x, *[0] * 4, x, 0, 0, 0, x, 0, 0, 0)
    if turned:
        grid |= {"weight_in": O * 9, "weight_out": 9, "first_tap": 8, "next_tap": -1}
    else:
        grid |= {"weight_in": 9, "weight_out": C * 9, "first_tap": 0, "next_tap": 1}
    programs = _program(loops.transform_filters, algorithm), _program(loops.correlate, algorithm)
    work = parts * grid["work"]
    U = algorithm.size**2 * grid["U_step"]
    return Plan(record(GRID, grid), programs, U, work, 0)


@lru_cache(maxsize=4096)
def _plan_grad_weight(
    m: int, x_shape: Shape, O: int, padding: tuple[int, int], dtype: str, parts: int, register_bytes: int
) -> Plan:
    grid, C = _grid(m, x_shape, O, padding, dtype, parts), x_shape[1]
    algorithm = Algorithm(vector(dtype), m)
    _, tile = best_tile(algorithm.vector, {C}, O)
    _layout(grid, m, tile, algorithm.vector.lanes)
    x = np.empty(0, dtype)
    grid["micro_kernel"] = address(loops.product_sums, tile, 0, x, *[0] * 4, x, 0, 0, 0, x, 0, 0, 0)
    grid |= {"weight_in": 9, "weight_out": C * 9}
    programs = _program(loops.accumulate, algorithm), _program(loops.gather_filters, algorithm)
    work = parts * grid["work"]
    U = algorithm.size**2 * grid["U_step"]
    return Plan(record(GRID, grid), programs, U, work, parts * 9 * algorithm.vector.lanes)


def covers(kernel: str, *arguments: Any) -> bool:
    """3x3 windows of stride 1, dilation 1, padding 0 to 2, without groups."""
    window, groups = arguments[-2:]
    return bool(groups == 1 and window == Window((3, 3), padding=window.padding) and max(window.padding) <= 2)


def _require(window: Window, groups: int) -> None:
    if not covers("", window, groups):
        raise ValueError(
            f"convolution: Winograd's algorithm needs a 3x3 window of stride 1 and dilation 1, padding 0 to 2 and one "
            f"group, got window {window} and groups = {groups}; call the family's function, which takes another one"
        )


def forward(m: int, x: Array, weight: Array, window: Window, groups: int) -> Array:
    """The contract's forward by F(m x m, 3 x 3). ValueError for a window that ``covers`` refuses."""
    _require(window, groups)
    (N, _, H, W), O = x.shape, weight.shape[0]
    y = empty_channels_last((N, O, *window.output_size(H, W, op="convolution")), x.dtype)
    if y.size:
        _correlate(m, x, weight, window.padding, False, y)
    return y


def grad_input(m: int, grad_output: Array, weight: Array, x_shape: Shape, window: Window, groups: int) -> Array:
    """The contract's grad_input by F(m x m, 3 x 3). ValueError for a window that ``covers`` refuses."""
    _require(window, groups)
    grad_x = empty_channels_last(x_shape, grad_output.dtype)
    if grad_x.size:
        PH, PW = window.padding
        _correlate(m, grad_output, weight, (2 - PH, 2 - PW), True, grad_x)
    return grad_x


def _correlate(m: int, x: Array, weight: Array, padding: tuple[int, int], turned: bool, y: Array) -> None:
    parts, dtype = numba.get_num_threads(), y.dtype
    plan = _plan_correlation(m, x.shape, y.shape[1], padding, turned, dtype.name, parts, kinds.REGISTER_BYTES)
    U, work = scratch("filters", plan.U, dtype), scratch("patches", plan.work, dtype)
    transform, correlate_tiles = plan.programs
    weight = flat(np.ascontiguousarray(weight))
    in_parallel(transform, parts, plan.grid, NO_PHASES, weight, U, U, U)
    in_parallel(correlate_tiles, parts, plan.grid, NO_PHASES, pixels(x), U, pixels(y), work)


def grad_weight(m: int, grad_output: Array, x: Array, window: Window, groups: int) -> Array:
    """The contract's grad_weight by F(m x m, 3 x 3). ValueError for a window that ``covers`` refuses."""
    _require(window, groups)
    parts, dtype, O = numba.get_num_threads(), x.dtype, grad_output.shape[1]
    gradient = np.empty((O, x.shape[1], 3, 3), dtype)
    if x.size == 0 or grad_output.size == 0:
        gradient[...] = 0
    else:
        plan = _plan_grad_weight(m, x.shape, O, window.padding, dtype.name, parts, kinds.REGISTER_BYTES)
        sums, work = scratch("filters", parts * plan.U, dtype), scratch("patches", plan.work, dtype)
        lanes = scratch("lanes", plan.lanes, dtype)
        accumulate_tiles, gather = plan.programs
        in_parallel(accumulate_tiles, parts, plan.grid, NO_PHASES, pixels(x), pixels(grad_output), sums, work)
        in_parallel(gather, parts, plan.grid, NO_PHASES, sums, gradient.reshape(-1), lanes, lanes)
    return gradient
