"""Winograd's algorithm as the three kernels of a convolution: which shapes, how memory is laid out, which program runs.

The algorithm is in ``_winograd_algorithm``, its loops are in ``_winograd_loops``.
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
from minires_kernels.convolution._winograd_algorithm import Algorithm
from minires_kernels.convolution._winograd_loops import FILTERS
from minires_kernels.flat import pixels
from minires_kernels.simd import Tile, address, in_parallel, kinds, vector
from minires_kernels.window import Window

GRID = integers(
    # x (N, H, W, C) and y (N, OH, OW, O), zeros before x; tiles down and right, in all, and in a block
    *("N", "H", "W", "C", "OH", "OW", "O", "top", "left", "down", "right", "tiles", "block"),
    # channels out padded to a tile's width and channels in to a vector's; numbers between positions of V, M, U, between
    # tiles of V and M; sizes
    *("C_padded", "O_padded", "V_step", "M_step", "U_step", "V_tile", "M_tile", "V_size", "M_size", "U_size"),
    # channels in a strip of y, padded to a vector's; numbers in the work space of one thread
    *("strip_O", "work"),
    # strides of the weight, and its first tap and the step to the next (grad_input turns filters round)
    *("weight_in", "weight_out", "first_tap", "next_tap"),
    *("micro_kernel", "rows", "width", "blocks"),
)


BLOCK_TILES = 24, 128
"""The fewest and most tiles in a block. Between them V and M together get half of the second-level cache, which they
share with a strip of x and with U. U is read once for each block: where it is too large for that cache, the fewest
tiles see to it that each of its numbers is used often enough to hide its way."""

NO_PHASES = np.empty(0, PHASE)


class Plan(NamedTuple):
    """Everything about a call that its shapes decide. Buffers are counted in numbers."""

    grid: Record
    programs: tuple[int, int]
    filters_first: bool
    shared: int  # what all threads read: the transformed filters, or V (and E) of all tiles; or one thread's sums
    work: int  # of all threads
    lanes: int  # the threads' buffers for the lanes of gradients of filters


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


GAP = 16
"""Unused numbers between positions, and between tiles where there are many channels: a cache line."""


def _layout(grid: dict[str, int], m: int, tile: Tile, lanes: int, filters_first: bool, gradient: bool) -> None:
    """What lies where. ``gradient``: M is E, the transformed gradients, and U the sums."""
    positions = (m + 2) ** 2
    grid["C_padded"], grid["O_padded"] = _padded(grid["C"], lanes), _padded(grid["O"], tile.width)
    grid["rows"], grid["width"], grid["blocks"] = tile.rows, tile.width, grid["O_padded"] // tile.width
    V_tiles, M_tiles, strip_O = grid["block"], grid["block"], _padded(grid["O"], lanes)
    grid["V_tile"], grid["M_tile"] = grid["C_padded"], grid["O_padded"]
    filters = grid["C"] * grid["O_padded"]
    if filters_first:
        V_tiles = M_tiles = max(grid["tiles"], tile.rows)
        filters = min(FILTERS, max(grid["C"], tile.rows)) * tile.width
        grid["V_tile"] += GAP
        grid["M_tile"] = grid["O_padded"] + GAP if gradient else tile.width
        strip_O = strip_O if gradient else tile.width
    grid["V_step"], grid["M_step"] = V_tiles * grid["V_tile"] + GAP, M_tiles * grid["M_tile"] + GAP
    grid["U_step"], grid["strip_O"] = filters + GAP, strip_O
    for name in ("V", "M", "U"):
        grid[f"{name}_size"] = _padded(positions * grid[f"{name}_step"], 16)
    columns = grid["right"] * m
    strip = max((m + 2) * (columns + 2) * grid["C_padded"], m * columns * strip_O)
    beside = grid["V_size"] + grid["M_size"]
    if filters_first:
        beside = grid["U_size"] + (0 if gradient else grid["M_size"])
    grid["work"] = beside + _padded(strip, 16)


def _filters_first(m: int, grid: dict[str, int], dtype: str) -> bool:
    """Whether the transformed filters would be larger than all transformed patches, and than the cache."""
    size = (m + 2) ** 2 * grid["C"] * grid["O"] * np.dtype(dtype).itemsize
    return grid["O"] > grid["tiles"] and size > kinds.CACHE_BYTES


@lru_cache(maxsize=4096)
def _plan_correlation(
    m: int, x_shape: Shape, O: int, padding: tuple[int, int], turned: bool, dtype: str, parts: int,
    register_bytes: int,
) -> Plan:  # fmt: skip
    """Of forward, or of grad_input (filters ``turned`` round and transposed). ``register_bytes`` is for the key."""
    grid, C = _grid(m, x_shape, O, padding, dtype, parts), x_shape[1]
    algorithm, filters_first = Algorithm(vector(dtype), m), _filters_first(m, grid, dtype)
    _, tile = best_tile(algorithm.vector, {grid["tiles"] if filters_first else grid["block"]}, O)
    _layout(grid, m, tile, algorithm.vector.lanes, filters_first, gradient=False)
    x = np.empty(0, dtype)
    grid["micro_kernel"] = address(loops.products, tile, 0, x, *[0] * 4, x, 0, 0, 0, 0, x, 0, 0, 0, 0)
    if turned:
        grid |= {"weight_in": O * 9, "weight_out": 9, "first_tap": 8, "next_tap": -1}
    else:
        grid |= {"weight_in": 9, "weight_out": C * 9, "first_tap": 0, "next_tap": 1}
    steps = (loops.spread_patches, loops.correlate_filters) if filters_first else (
        loops.transform_filters, loops.correlate)  # fmt: skip
    shared = grid["V_size"] if filters_first else grid["U_size"]
    return _plan(grid, algorithm, steps, filters_first, shared, parts)


@lru_cache(maxsize=4096)
def _plan_grad_weight(
    m: int, x_shape: Shape, O: int, padding: tuple[int, int], dtype: str, parts: int, register_bytes: int
) -> Plan:
    grid, C = _grid(m, x_shape, O, padding, dtype, parts), x_shape[1]
    algorithm, filters_first = Algorithm(vector(dtype), m), _filters_first(m, grid, dtype)
    _, tile = best_tile(algorithm.vector, {min(C, FILTERS) if filters_first else C}, O)
    _layout(grid, m, tile, algorithm.vector.lanes, filters_first, gradient=True)
    x = np.empty(0, dtype)
    grid["micro_kernel"] = address(loops.product_sums, tile, 0, x, *[0] * 4, x, 0, 0, 0, x, *[0] * 4)
    grid |= {"weight_in": 9, "weight_out": C * 9}
    steps = (loops.spread_patches, loops.accumulate_filters) if filters_first else (
        loops.accumulate, loops.gather_filters)  # fmt: skip
    shared = grid["V_size"] + grid["M_size"] if filters_first else parts * grid["U_size"]
    return _plan(grid, algorithm, steps, filters_first, shared, parts)


def _plan(
    grid: dict[str, int], algorithm: Algorithm, steps: tuple[Any, Any], filters_first: bool, shared: int, parts: int
) -> Plan:
    first, second = (_program(step, algorithm) for step in steps)
    lanes = parts * 9 * algorithm.vector.lanes
    return Plan(record(GRID, grid), (first, second), filters_first, shared, parts * grid["work"], lanes)


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
    shared, work = scratch("shared", plan.shared, dtype), scratch("patches", plan.work, dtype)
    first, second = plan.programs
    weight, source, y = flat(np.ascontiguousarray(weight)), pixels(x), pixels(y)
    if plan.filters_first:
        in_parallel(first, parts, plan.grid, NO_PHASES, source, source[:0], shared, work)
        in_parallel(second, parts, plan.grid, NO_PHASES, shared, weight, y, work)
    else:
        in_parallel(first, parts, plan.grid, NO_PHASES, weight, shared, shared, shared)
        in_parallel(second, parts, plan.grid, NO_PHASES, source, shared, y, work)


def grad_weight(m: int, grad_output: Array, x: Array, window: Window, groups: int) -> Array:
    """The contract's grad_weight by F(m x m, 3 x 3). ValueError for a window that ``covers`` refuses."""
    _require(window, groups)
    parts, dtype, O = numba.get_num_threads(), x.dtype, grad_output.shape[1]
    gradient = np.empty((O, x.shape[1], 3, 3), dtype)
    if x.size == 0 or grad_output.size == 0:
        gradient[...] = 0
    else:
        plan = _plan_grad_weight(m, x.shape, O, window.padding, dtype.name, parts, kinds.REGISTER_BYTES)
        shared, work = scratch("shared", plan.shared, dtype), scratch("patches", plan.work, dtype)
        lanes, line = scratch("lanes", plan.lanes, dtype), gradient.reshape(-1)
        first, second = plan.programs
        if plan.filters_first:
            in_parallel(first, parts, plan.grid, NO_PHASES, pixels(x), pixels(grad_output), shared, work)
            in_parallel(second, parts, plan.grid, NO_PHASES, shared, line, lanes, work)
        else:
            in_parallel(first, parts, plan.grid, NO_PHASES, pixels(x), pixels(grad_output), shared, work)
            in_parallel(second, parts, plan.grid, NO_PHASES, shared, line, lanes, lanes)
    return gradient
