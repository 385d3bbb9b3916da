"""Winograd's algorithm as the three kernels of a convolution: which shapes, how memory is laid out, which program runs.

The algorithm is in ``_winograd_algorithm``, its loops are in ``_winograd_loops`` and ``_winograd_transforms``.
"""

from __future__ import annotations

from math import ceil
from typing import Any, NamedTuple

import numba
import numpy as np

from minires_kernels.arena import empty_channels_last, scratch
from minires_kernels.arrays import Array
from minires_kernels.convolution import _winograd_loops as loops
from minires_kernels.convolution import _winograd_transforms as transforms
from minires_kernels.convolution import numba_cpu
from minires_kernels.convolution._geometry import Record, Shape, best_tile, flat, integers, record
from minires_kernels.convolution._kept import kept
from minires_kernels.convolution._winograd_algorithm import Algorithm, PatchTransform
from minires_kernels.convolution._winograd_loops import FILTERS, LANES
from minires_kernels.flat import pixels
from minires_kernels.simd import Tile, address, in_parallel, kinds, vector
from minires_kernels.window import Pair, Window

FORWARD = {(2, 1): "F2", (4, 1): "F4", (2, 2): "F2 of stride 2"}
"""The algorithm of forward and grad_weight for (m, stride)."""

ADJOINT = FORWARD | {(2, 2): "F2 of stride 2, adjoint"}
"""The algorithm of grad_input."""

GRID = integers(
    # images, channels of x, and y (N, OH, OW, O); tiles down and right, in all, and in a block
    *("N", "C", "OH", "OW", "O", "down", "right", "tiles", "block"),
    # channels out padded to a tile's width and channels in to a vector's; numbers between positions of V, M, U, between
    # tiles of V and M; sizes
    *("C_padded", "O_padded", "V_step", "M_step", "U_step", "V_tile", "M_tile", "V_size", "M_size", "U_size"),
    # channels in a strip of y, padded to a vector's; numbers in a strip; in one thread's work space, at whose end lie a
    # strip and what has been watched of outputs
    *("strip_O", "strip", "work"),
    # strides of the weight, and its first tap and the step to the next (grad_input turns filters round)
    *("weight_in", "weight_out", "first_tap", "next_tap"),
    # positions of a patch; channels that are summed up in one go
    *("positions", "longest_sum"),
    *("rows", "width", "blocks"),
    # addresses; those of transforms that the plan doesn't need are 0
    *("micro_kernel", "pack_strip", "unpack_strip", "transform_outputs", "transform_filters", "transform_sums"),
)

SIDE = integers(
    # images, and channels filled up to whole vectors; zeros before them
    *("H", "W", "C", "padded", "top", "left"),
    # rows and columns from one patch to the next; numbers between positions and between tiles of V or E
    *("step", "position_step", "tile_step"),
    # the address of its transform
    "transform",
)
"""What is cut into patches: x, whose transform is V, and grad_output, whose transform is E."""


BLOCK_TILES = 24, 128
"""The fewest and most tiles in a block. Between them V and M together get half of the second-level cache, which they
share with a strip of x and with U. U is read once for each block: where it is too large for that cache, the fewest
tiles see to it that each of its numbers is used often enough to hide its way."""


class Plan(NamedTuple):
    """Everything about a call that its shapes decide. Buffers are counted in numbers."""

    grid: Record
    sides: Record
    programs: tuple[int, int]
    shares: tuple[int, int]  # in how many parts each of the programs runs
    filters_first: bool
    shared: int  # what all threads read: the transformed filters, or V (and E) of all tiles; or one thread's sums
    work: int  # of all threads
    lanes: int  # the threads' buffers for the lanes of gradients of filters


def _program(function: Any, dtype: Any) -> int:
    x = np.empty(0, dtype)
    return address(function, vector(dtype), 0, 0, 0, np.empty(0, GRID), np.empty(0, SIDE), x, x, x, x)


def _transforms(algorithm: Algorithm, *names: str) -> dict[str, int]:
    """The addresses of these transforms, and of the strips that all need."""
    x, grids = np.empty(0, algorithm.vector.dtype), np.empty(0, GRID)
    examples: dict[str, tuple[Any, ...]] = {
        "transform_outputs": (grids, x, 0, 0, 0, x, x, 0, 0),
        "transform_filters": (grids, x, 0, 0, 0, x, 0),
        "transform_sums": (grids, x, *[0] * 6, x, x, 0),
    }
    addresses = {name: address(getattr(transforms, name), algorithm, *examples[name]) for name in names}
    pack = address(transforms.pack_strip, algorithm.vector, x, *[0] * 8, x, 0, 0)
    unpack = address(transforms.unpack_strip, algorithm.vector, x, *[0] * 4, x, *[0] * 7)
    return {**addresses, "pack_strip": pack, "unpack_strip": unpack}


def _x_side(algorithm: Algorithm, grid: dict[str, int], shape: Shape, before: Pair) -> Record:
    """``before``: rows and columns of zeros before x."""
    _, C, H, W = shape
    fields = {"H": H, "W": W, "C": C, "padded": grid["C_padded"], "top": before[0], "left": before[1]}
    fields |= {"step": algorithm.filtering.step, "position_step": grid["V_step"], "tile_step": grid["V_tile"]}
    return _side(algorithm.input, fields)


def _gradient_side(algorithm: Algorithm, grid: dict[str, int], shape: Shape) -> Record:
    _, O, OH, OW = shape
    fields = {"H": OH, "W": OW, "C": O, "padded": grid["strip_O"]}
    fields |= {"step": algorithm.output_size, "position_step": grid["M_step"], "tile_step": grid["M_tile"]}
    return _side(algorithm.grad_output, fields)


def _side(kind: PatchTransform, fields: dict[str, int]) -> Record:
    x = np.empty(0, kind.vector.dtype)
    examples = np.empty(0, GRID), np.empty(0, SIDE), 0, x, 0, 0, x, 0, x, 0
    return record(SIDE, fields | {"transform": address(transforms.transform_patches, kind, *examples)})


def _grid(algorithm: Algorithm, x_shape: Shape, y_shape: Shape, parts: int) -> dict[str, int]:
    (N, C, _, _), (_, O, OH, OW) = x_shape, y_shape
    down, right = ceil(OH / algorithm.output_size), ceil(OW / algorithm.output_size)
    tiles, positions = N * down * right, algorithm.size**2
    bytes_per_tile = positions * (C + O) * np.dtype(algorithm.vector.dtype).itemsize
    fewest, most = BLOCK_TILES
    block = max(fewest, min(most, kinds.CACHE_BYTES // 2 // bytes_per_tile // 8 * 8))
    block = min(block, ceil(tiles / parts))
    return {
        **{"N": N, "C": C, "OH": OH, "OW": OW, "O": O, "down": down, "right": right, "tiles": tiles, "block": block},
        "positions": positions,
    }


def _padded(count: int, unit: int) -> int:
    return ceil(count / unit) * unit


WATCHED = 16
"""Numbers that a thread has for what it has watched: the widest vector."""

GAP = 16
"""Unused numbers between positions, and between tiles where there are many channels: a cache line."""


def _layout(grid: dict[str, int], algorithm: Algorithm, tile: Tile, filters_first: bool, gradient: bool) -> None:
    """What lies where. ``gradient``: M is E, the transformed gradients, and U the sums."""
    positions, lanes = algorithm.size**2, algorithm.vector.lanes
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
    seen, made = algorithm.patch_size, algorithm.output_size
    columns = (grid["right"] - 1) * algorithm.filtering.step + seen
    strip = max(seen * columns * grid["C_padded"], made * grid["right"] * made * strip_O)
    beside = grid["V_size"] + grid["M_size"]
    if filters_first:
        beside = grid["U_size"] + (0 if gradient else grid["M_size"])
    grid["strip"] = _padded(strip, WATCHED)
    grid["work"] = beside + grid["strip"] + WATCHED


def _filters_first(algorithm: Algorithm, grid: dict[str, int]) -> bool:
    """Whether the transformed filters would be larger than all transformed patches, and than the cache."""
    size = algorithm.size**2 * grid["C"] * grid["O"] * np.dtype(algorithm.vector.dtype).itemsize
    return grid["O"] > grid["tiles"] and size > kinds.CACHE_BYTES


@kept
def _plan_correlation(
    name: str, x_shape: Shape, y_shape: Shape, before: Pair, turned: bool, dtype: Any, parts: int,
    register_bytes: int,
) -> Plan:  # fmt: skip
    """Of forward, or of grad_input (filters ``turned`` round and transposed). ``register_bytes`` is for the key."""
    algorithm, C, O = Algorithm(vector(dtype), name), x_shape[1], y_shape[1]
    grid = _grid(algorithm, x_shape, y_shape, parts)
    filters_first = _filters_first(algorithm, grid)
    _, tile = best_tile(algorithm.vector, {grid["tiles"] if filters_first else grid["block"]}, O)
    _layout(grid, algorithm, tile, filters_first, gradient=False)
    x = np.empty(0, dtype)
    grid["micro_kernel"] = address(loops.products, tile, 0, x, *[0] * 4, x, *[0] * 5, x, *[0] * 4)
    if turned:
        grid |= {"weight_in": O * 9, "weight_out": 9, "first_tap": 8, "next_tap": -1}
    else:
        grid |= {"weight_in": 9, "weight_out": C * 9, "first_tap": 0, "next_tap": 1}
    # What grad_input rounds decides no ReLU: it may sum up more channels in one go, which takes less time.
    grid["longest_sum"] = min(algorithm.filtering.longest_sum * (2 if turned else 1), FILTERS)
    grid |= _transforms(algorithm, "transform_outputs", "transform_filters")
    if filters_first:
        steps, shares, shared = (loops.spread_patches, loops.correlate_filters), _shares(grid), grid["V_size"]
    else:
        steps, shared = (loops.spread_filters, loops.correlate), grid["U_size"]
        shares = grid["O_padded"] // algorithm.vector.lanes, ceil(grid["tiles"] / grid["block"])
    sides = _x_side(algorithm, grid, x_shape, before)
    return _plan(grid, sides, algorithm, steps, shares, filters_first, shared, parts)


@kept
def _plan_grad_weight(
    name: str, x_shape: Shape, y_shape: Shape, before: Pair, dtype: Any, parts: int, register_bytes: int
) -> Plan:
    algorithm, C, O = Algorithm(vector(dtype), name), x_shape[1], y_shape[1]
    grid = _grid(algorithm, x_shape, y_shape, parts)
    filters_first = _filters_first(algorithm, grid)
    _, tile = best_tile(algorithm.vector, {min(C, FILTERS) if filters_first else C}, O)
    _layout(grid, algorithm, tile, filters_first, gradient=True)
    x = np.empty(0, dtype)
    grid["micro_kernel"] = address(loops.product_sums, tile, 0, x, *[0] * 4, x, 0, 0, 0, x, *[0] * 4)
    grid |= {"weight_in": 9, "weight_out": C * 9}
    grid |= _transforms(algorithm, "transform_sums")
    if filters_first:
        steps, shares = (loops.spread_patches, loops.accumulate_filters), _shares(grid)
        shared = grid["V_size"] + grid["M_size"]
    else:
        steps, shares = (loops.accumulate, loops.gather_filters), (parts, parts)
        shared = parts * grid["U_size"]
    sides = np.concatenate([_x_side(algorithm, grid, x_shape, before), _gradient_side(algorithm, grid, y_shape)])
    return _plan(grid, sides, algorithm, steps, shares, filters_first, shared, parts)


def _shares(grid: dict[str, int]) -> tuple[int, int]:
    """Where filters come first: rows of tiles, and blocks of channels out."""
    return grid["N"] * grid["down"], grid["blocks"]


def _plan(
    grid: dict[str, int], sides: Record, algorithm: Algorithm, steps: tuple[Any, Any], shares: tuple[int, int],
    filters_first: bool, shared: int, parts: int,
) -> Plan:  # fmt: skip
    first, second = (_program(step, algorithm.vector.dtype) for step in steps)
    lanes = parts * LANES * algorithm.vector.lanes
    return Plan(record(GRID, grid), sides, (first, second), shares, filters_first, shared, parts * grid["work"], lanes)


def covers(m: int, window: Window, groups: int) -> bool:
    """3x3 windows without dilation and groups: of stride 1 with padding 0 to 2, or for m = 2 of stride 2, padding 1."""
    stride, padding = window.stride, window.padding
    if groups != 1 or window.size != (3, 3) or window.dilation != (1, 1):
        return False
    return (stride == (1, 1) and max(padding) <= 2) or (m == 2 and stride == (2, 2) and padding == (1, 1))


def _require(m: int, window: Window, groups: int) -> None:
    if not covers(m, window, groups):
        raise ValueError(
            f"convolution: Winograd's F({m}x{m}, 3x3) needs a 3x3 window of dilation 1 and one group, of stride 1 with "
            f"padding 0 to 2{' or of stride 2 with padding 1' if m == 2 else ''}, got window {window} and groups = "
            f"{groups}; call the family's function, which takes another algorithm"
        )


def forward(m: int, x: Array, weight: Array, window: Window, groups: int) -> Array:
    """The contract's forward by F(m x m, 3 x 3). ValueError for a window that ``covers`` refuses."""
    _require(m, window, groups)
    (N, _, H, W), O = x.shape, weight.shape[0]
    y = empty_channels_last((N, O, *window.output_size(H, W, op="convolution")), x.dtype)
    if x.size == 0 or y.size == 0:
        y[...] = 0
    elif not _correlate(FORWARD[m, window.stride[0]], x, weight, window.padding, False, y):
        return numba_cpu.forward(x, weight, window, groups)
    return y


def grad_input(m: int, grad_output: Array, weight: Array, x_shape: Shape, window: Window, groups: int) -> Array:
    """The contract's grad_input by F(m x m, 3 x 3). ValueError for a window that ``covers`` refuses."""
    _require(m, window, groups)
    grad_x = empty_channels_last(x_shape, grad_output.dtype)
    stride, (PH, PW) = window.stride[0], window.padding
    before = (2 - PH, 2 - PW) if stride == 1 else (0, 0)
    if grad_output.size == 0 or grad_x.size == 0:
        grad_x[...] = 0
    elif not _correlate(ADJOINT[m, stride], grad_output, weight, before, True, grad_x):
        return numba_cpu.grad_input(grad_output, weight, x_shape, window, groups)
    return grad_x


def _correlate(name: str, x: Array, weight: Array, before: Pair, turned: bool, y: Array) -> bool:
    """Fills y. Whether all of it is finite, so that it may be trusted."""
    parts, dtype = numba.get_num_threads(), y.dtype
    plan = _plan_correlation(name, x.shape, y.shape, before, turned, dtype, parts, kinds.REGISTER_BYTES)
    shared, work = scratch("shared", plan.shared, dtype), scratch("patches", plan.work, dtype)
    watched = work.reshape(parts, -1)[:, -WATCHED:]
    watched[...] = 0
    (first, second), (first_parts, second_parts) = plan.programs, plan.shares
    weight, source, y = flat(np.ascontiguousarray(weight)), pixels(x), pixels(y)
    if plan.filters_first:
        in_parallel(first, first_parts, plan.grid, plan.sides, source, source[:0], shared, work)
        in_parallel(second, second_parts, plan.grid, plan.sides, shared, weight, y, work)
    else:
        in_parallel(first, first_parts, plan.grid, plan.sides, weight, shared, shared, shared)
        in_parallel(second, second_parts, plan.grid, plan.sides, source, shared, y, work)
    return not watched.any()


def grad_weight(m: int, grad_output: Array, x: Array, window: Window, groups: int) -> Array:
    """The contract's grad_weight by F(m x m, 3 x 3). ValueError for a window that ``covers`` refuses."""
    _require(m, window, groups)
    parts, dtype, O = numba.get_num_threads(), x.dtype, grad_output.shape[1]
    gradient = np.empty((O, x.shape[1], 3, 3), dtype)
    if x.size == 0 or grad_output.size == 0:
        gradient[...] = 0
    else:
        plan = _plan_grad_weight(
            FORWARD[m, window.stride[0]], x.shape, grad_output.shape, window.padding, dtype, parts,
            kinds.REGISTER_BYTES,
        )  # fmt: skip
        shared, work = scratch("shared", plan.shared, dtype), scratch("patches", plan.work, dtype)
        lanes, line = scratch("lanes", plan.lanes, dtype), gradient.reshape(-1)
        watched = lanes.reshape(parts, LANES, -1)[:, -1]
        watched[...] = 0
        (first, second), (first_parts, second_parts) = plan.programs, plan.shares
        if plan.filters_first:
            in_parallel(first, first_parts, plan.grid, plan.sides, pixels(x), pixels(grad_output), shared, work)
            in_parallel(second, second_parts, plan.grid, plan.sides, shared, line, lanes, work)
        else:
            in_parallel(first, first_parts, plan.grid, plan.sides, pixels(x), pixels(grad_output), shared, work)
            in_parallel(second, second_parts, plan.grid, plan.sides, shared, line, lanes, lanes)
        if watched.any():
            return numba_cpu.grad_weight(grad_output, x, window, groups)
    return gradient
