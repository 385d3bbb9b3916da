"""How the direct convolution walks over memory: strides, blocks and tiles, worked out once for each geometry.

A *scan* slides a window over a source and meets an output; it is one record of numbers. Its *phases* are the cases in
which a window's taps meet the source at whole steps: one for forward; for grad_input one for each remainder (h mod SH,
w mod SW), because the output pixels of one phase see the same subset of the taps. A phase of grad_input is itself a
convolution of stride 1, whatever the stride, and so forward and grad_input are one program.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from functools import lru_cache
from math import ceil, gcd
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from minires_kernels.arrays import Array
from minires_kernels.convolution import _direct
from minires_kernels.simd import Tile, Vector, address, kinds, registers, vector
from minires_kernels.window import Pair, Window

PACKED_BYTES = kinds.CACHE_BYTES // 4
"""How much a thread packs at once: a quarter of the second-level cache, so that panels and output fit beside it."""

PIECE_BYTES = 1 << 14
"""The most of a panel that tiles meet at once, and half of the least that is cut: a whole panel of many channels would
come from the second-level cache anew for each tile, and that is too slow for tiles of 16 registers.
"""

CHUNK_BYTES, CHUNK_PIXELS = 1 << 15, (32, 128)
"""Pixels between two additions to the running sums of grad_weight: as many as have their numbers, of x and of
grad_output, in a first-level cache of this size, but not fewer or more than these. Fewer, and the additions would cost
too much; and a sum of sums has a smaller rounding error than one long sum."""

Shape: TypeAlias = tuple[int, int, int, int]
Record: TypeAlias = np.ndarray[Any, Any]


def integers(*names: str) -> np.dtype[Any]:
    """The type of a record of integers with these names."""
    return np.dtype([(name, np.int64) for name in names])


SCAN = integers(
    # the source: N images (H, W, channels); when packed, rows of ``row`` numbers with zeros ``top`` and ``left``
    *("N", "H", "W", "channels", "top", "left", "row", "x_image", "packs", "packed_size"),
    # the walk: source rows a step down; numbers a step down and right, a tap down and right; rows that a window spans
    *("step", "row_step", "pixel", "tap_row", "tap", "span"),
    # the shares: rows of positions, bands of an image and their rows, images at once
    *("rows", "bands", "band_rows", "images"),
    *("y_image", "y_row", "y_pixel"),
    # channels, and strides of the weight
    *("groups", "group_in", "group_out", "weight_group", "weight_in", "weight_out"),
    # the micro-kernel's address, width and taps of its tile, tiles that cover a group's channels
    *("micro_kernel", "width", "taps", "blocks"),
    # grad_weight: whether x (and not grad_output) gives the scalars, rows of pixels at once, layout of the sums
    *("swapped", "scalars", "vectors", "chunk", "sums_row", "sums_size"),
    *("sums_group", "sums_tap_row", "sums_tap", "sums_in", "sums_out"),
)

PHASE = integers(
    *("rows", "columns", "start", "y", "panel"),
    # taps; a run is a stretch of source numbers, channels of neighbouring taps, that one stretch of a panel meets
    *("taps_h", "taps_w", "stacks", "tap_groups", "run", "first_tap", "next_tap_row", "next_tap"),
    # pieces of a run, and numbers in a piece, where a panel is met piece by piece; 0 where it is met as a whole
    *("pieces", "piece"),
)


def record(kind: np.dtype[Any], fields: dict[str, int]) -> Record:
    """An array of one record; fields that aren't given are 0."""
    assert kind.names is not None
    assert fields.keys() <= set(kind.names)
    return np.array([tuple(fields.get(name, 0) for name in kind.names)], kind)


class Plan(NamedTuple):
    """Everything about a call that its shapes decide."""

    scan: Record  # one SCAN
    phases: Record  # PHASE, one or more
    programs: tuple[int, int]  # what runs in parallel, one after the other
    weights: int  # numbers in all panels (forward, grad_input), in one thread's sums (grad_weight)
    packed: int  # numbers in every thread's packed images


@dataclass(frozen=True)
class AxisPhase:
    """Along one axis: the positions ``offset``, ``offset`` + S, ... of the output, and the taps that they see."""

    offset: int
    count: int
    start: int  # of the first tap of the first position, in source pixels; negative: in the zeros before the image
    taps: tuple[int, ...]  # in the order of the source


Axes: TypeAlias = tuple[list[AxisPhase], list[AxisPhase]]


def forward_phases(K: int, P: int, positions: int) -> list[AxisPhase]:
    """Forward has one phase: all positions, all taps."""
    return [AxisPhase(0, positions, -P, tuple(range(K)))]


def grad_input_phases(K: int, S: int, P: int, D: int, length: int) -> list[AxisPhase]:
    """Pixel h was tap k of window (h + P - k D) / S. For the pixels h = S a + offset: the taps with a whole quotient.

    While the taps go down by S / gcd(S, D), the windows go up by D / gcd(S, D).
    """
    phases = []
    for offset in range(min(S, length)):
        taps = tuple(k for k in reversed(range(K)) if (offset + P - k * D) % S == 0)
        start = (offset + P - taps[0] * D) // S if taps else 0
        phases.append(AxisPhase(offset, ceil((length - offset) / S), start, taps))
    return phases


def best_tile(kind: Vector, rows: set[int], width: int, *, taps: int = 1, exact: bool = False) -> tuple[float, Tile]:
    """(cycles, tile): the tile that covers ``rows`` x ``width`` numbers in the fewest cycles for one step.

    A step takes half a cycle per multiply-add or per load, whichever are more, and 4 cycles, the latency of a
    multiply-add, at least. Several ``rows`` are to be covered one after the other. ``exact``: no lane may stick out.
    """
    candidates = []
    blocks = ceil(width / kind.lanes)
    for columns in range(1, min(blocks, 4) + 1):
        most = min(*rows, 64, (registers() - 1 - taps * columns) // columns)
        if columns > 1 and (most < 1 or (exact and width % (columns * kind.lanes))):
            continue
        for height in range(1, max(1, most) + 1):
            loads = height + taps - 1 + 1.25 * taps * columns  # vectors come from farther away than scalars
            cycles = max(height * columns * taps, loads, 8) / 2 + 0.5
            count = ceil(blocks / columns) * sum(ceil(row / height) for row in rows)
            candidates.append((cycles * count, Tile(kind, height, columns, taps)))
    return min(candidates, key=lambda candidate: (candidate[0], -candidate[1].rows * candidate[1].columns))


def _scan(source: Shape, output: Shape, axes: Axes, step: Pair, tap: Pair, y_step: Pair, groups: int,
          must_pack: bool = False) -> dict[str, int]:  # fmt: skip
    """The fields of a SCAN that don't depend on a tile."""
    N, channels, H, W = source
    _, out_channels, OH, OW = output
    top, left = (max(0, *(-phase.start for phase in axis)) for axis in axes)
    span, span_w = (
        max(phase.start + before + (len(phase.taps) - 1) * distance + 1 if phase.taps else 1 for phase in axis)
        for axis, before, distance in zip(axes, (top, left), tap, strict=True)
    )
    rows, columns = (max(phase.count for phase in axis) for axis in axes)
    height, width = (rows - 1) * step[0] + span, (columns - 1) * step[1] + span_w
    packs = must_pack or top > 0 or left > 0 or height > H or width > W
    row = (width if packs else W) * channels
    return {
        "N": N,
        "H": H,
        "W": W,
        "channels": channels,
        "top": top,
        "left": left,
        "row": row,
        "x_image": H * W * channels,
        "packs": int(packs),
        "step": step[0],
        "row_step": step[0] * row,
        "pixel": step[1] * channels,
        "tap_row": tap[0] * row,
        "tap": tap[1] * channels,
        "span": span,
        "rows": rows,
        "y_image": OH * OW * out_channels,
        "y_row": y_step[0] * OW * out_channels,
        "y_pixel": y_step[1] * out_channels,
        "groups": groups,
        "group_in": channels // groups,
        "group_out": out_channels // groups,
    }


def _divide(s: dict[str, int], parts: int, reused: int, itemsize: int) -> None:
    """Cuts the source into bands of rows or blocks of images, for each of ``parts`` threads.

    A block holds several images when what is ``reused`` for each block (panels, sums) is too large for the cache.
    """
    N, rows, step, span = s["N"], s["rows"], s["step"], s["span"]
    large = reused * itemsize > PACKED_BYTES // 2
    room = PACKED_BYTES // (itemsize * s["row"])  # in rows of the source
    whole = (rows - 1) * step + span
    bands = 1 if whole <= room else ceil(rows / max(1, (room - span) // step + 1))
    most = min(rows, bands * parts)
    while bands < most and N * bands % parts and N * bands < 8 * parts:
        bands += 1
    band_rows = ceil(rows / bands)
    bands = ceil(rows / band_rows)
    share = ceil(N / parts)
    fitting = max(1, min(4 * room // whole, share)) if bands == 1 and large else 1
    images = ceil(share / ceil(share / fitting))
    packed_size = images * ((band_rows - 1) * step + span) * s["row"]
    s |= {"bands": bands, "band_rows": band_rows, "images": images, "packed_size": _on_cache_line(packed_size + 64)}


def _window_sums(tile: Tile) -> int:
    x = np.empty(0, tile.vector.dtype)
    return address(_direct.window_sums, tile, 0, x, *[0] * 7, x, 0, x, 0, 0, 0, 0)


def _product_sums(tile: Tile) -> int:
    x = np.empty(0, tile.vector.dtype)
    return address(_direct.product_sums, tile, *(x, 0, 0, 0, 0, 0), *(x, 0, 0, 0, 0), *[0] * 4, x, *[0] * 4)


def program(function: Any, dtype: str) -> int:
    """The address of one of the four programs of ``_direct``, for ``in_parallel``."""
    x = np.empty(0, dtype)
    return address(function, vector(dtype), 0, 0, np.empty(0, SCAN), np.empty(0, PHASE), x, x, x, x)


def _on_cache_line(count: int) -> int:
    return ceil(count / 16) * 16


def _correlation(
    s: dict[str, int], axes: Axes, output: Shape, tap: Pair, window: Window, dtype: str, parts: int
) -> Plan:
    """The plan of forward or grad_input."""
    down, right = axes
    _, out_channels, _, OW = output
    channels, groups, width = s["channels"], s["groups"], s["group_out"]
    adjacent = s["pixel"] == s["tap"]  # a pixel's next tap is its neighbour's tap
    taps = 3 if adjacent and all(len(phase.taps) == 3 for phase in right) else 1
    _, tile = best_tile(vector(dtype, width), {phase.count for phase in right}, width, taps=taps)
    s |= {"width": tile.width, "taps": taps, "blocks": ceil(width / tile.width)}
    s["micro_kernel"] = _window_sums(tile)
    merged = tap[1] == 1 and groups == 1 and taps == 1  # the channels of neighbouring taps are neighbours
    phases, panels = [], 0
    for v, h in itertools.product(down, right):
        taps_h, taps_w = (len(v.taps), len(h.taps)) if v.taps and h.taps else (0, 0)
        fields = {
            "rows": v.count,
            "columns": h.count,
            "panel": panels,
            "taps_h": taps_h,
            "taps_w": taps_w,
            "start": (v.start + s["top"]) * s["row"] + (h.start + s["left"]) * channels,
            "y": (v.offset * OW + h.offset) * out_channels,
            "tap_groups": 1 if merged else taps_w // taps,
            "run": taps_w * channels if merged else s["group_in"],
        }
        if taps_h:
            next_row, next_tap = ((axis.taps[1] - axis.taps[0] if len(axis.taps) > 1 else 0) for axis in (v, h))
            fields |= {
                "first_tap": v.taps[0] * window.size[1] + h.taps[0],
                "next_tap_row": next_row * window.size[1],
                "next_tap": next_tap,
            }
            fields |= _pieces(fields, s, tile, np.dtype(dtype).itemsize)
        phases.append(record(PHASE, fields))
        panels += taps_h * taps_w * channels * s["blocks"] * tile.width
    _divide(s, parts, panels, np.dtype(dtype).itemsize)
    packed = parts * s["packed_size"] if s["packs"] else 0
    programs = program(_direct.pack_weight, dtype), program(_direct.correlate, dtype)
    return Plan(record(SCAN, s), np.concatenate(phases), programs, panels, packed)


def _pieces(phase: dict[str, int], s: dict[str, int], tile: Tile, itemsize: int) -> dict[str, int]:
    """How a panel is cut for the first-level cache: into equal pieces of a run. Blocks with idle lanes stay whole."""
    run = phase["run"] * tile.taps * tile.width * itemsize
    if phase["taps_h"] * phase["tap_groups"] * run <= 2 * PIECE_BYTES or s["group_out"] % tile.width:
        return {}
    pieces = next(count for count in range(ceil(run / PIECE_BYTES), phase["run"] + 1) if phase["run"] % count == 0)
    return {"pieces": pieces, "piece": phase["run"] // pieces}


def _one_image(window: Window, N: int, *sizes: int) -> tuple[int, ...]:
    """(N, *sizes), but for a 1x1 convolution one image: its pixels see no neighbours, and rows may suit the tiles."""
    if window != Window((1, 1)):
        return N, *sizes
    pixels = N * sizes[0] * sizes[1]
    width = next(
        (width for width in (56, 64, 48, 40, 49, 32, 28, 24, 16, 14, 12, 10, 9, 8, 7) if pixels % width == 0), 0
    )
    return (1, *(pixels // width, width) * (len(sizes) // 2)) if width else (1, *(1, pixels) * (len(sizes) // 2))


@lru_cache(maxsize=4096)
def plan_forward(
    x_shape: Shape, weight_shape: Shape, window: Window, groups: int, dtype: str, parts: int, register_bytes: int
) -> Plan:
    """The plan of forward. ``register_bytes`` is only part of the cache's key."""
    N, C, H, W = x_shape
    O = weight_shape[0]
    (KH, KW), (PH, PW) = window.size, window.padding
    N, H, W, OH, OW = _one_image(window, N, H, W, *window.output_size(H, W, op="convolution"))
    axes = forward_phases(KH, PH, OH), forward_phases(KW, PW, OW)
    output = (N, O, OH, OW)
    s = _scan((N, C, H, W), output, axes, window.stride, window.dilation, (1, 1), groups)
    s |= {
        "weight_group": O // groups * C // groups * KH * KW,
        "weight_out": C // groups * KH * KW,
        "weight_in": KH * KW,
    }
    return _correlation(s, axes, output, window.dilation, window, dtype, parts)


@lru_cache(maxsize=4096)
def plan_grad_input(
    grad_shape: Shape, weight_shape: Shape, x_shape: Shape, window: Window, groups: int, dtype: str, parts: int,
    register_bytes: int,
) -> Plan:  # fmt: skip
    """The plan of grad_input: a scan over grad_output that writes grad_x."""
    N, C, H, W = x_shape
    _, O, OH, OW = grad_shape
    (KH, KW), (SH, SW), (PH, PW), (DH, DW) = window.size, window.stride, window.padding, window.dilation
    N, H, W, OH, OW = _one_image(window, N, H, W, OH, OW)
    axes = grad_input_phases(KH, SH, PH, DH, H), grad_input_phases(KW, SW, PW, DW, W)
    tap = DH // gcd(SH, DH), DW // gcd(SW, DW)
    output = (N, C, H, W)
    s = _scan((N, O, OH, OW), output, axes, (1, 1), tap, (SH, SW), groups)
    s |= {
        "weight_group": O // groups * C // groups * KH * KW,
        "weight_out": KH * KW,
        "weight_in": C // groups * KH * KW,
    }
    return _correlation(s, axes, output, tap, window, dtype, parts)


@lru_cache(maxsize=4096)
def plan_grad_weight(
    grad_shape: Shape, x_shape: Shape, window: Window, groups: int, dtype: str, parts: int, register_bytes: int
) -> Plan:
    """The plan of grad_weight: forward's scan over x, in which the output is read.

    A tile multiplies scalars of one operand with vectors of the other. Vectors are runs of x, (KW, C) in one stretch,
    and scalars grad_output, unless lanes would be wasted that channels of grad_output fill exactly; then it is the
    other way round, and where one run leaves a tile too small to hide latency, the runs of all KH rows are stacked.
    """
    N, C, H, W = x_shape
    O, OH, OW = grad_shape[1:]
    (KH, KW), (PH, PW) = window.size, window.padding
    N, H, W, OH, OW = _one_image(window, N, H, W, OH, OW)
    group_out = O // groups
    merged = window.dilation[1] == 1 and groups == 1
    run, tap_groups = (KW * C, 1) if merged else (C // groups, KW)
    cycles, tile = best_tile(vector(dtype, run), {group_out}, run)
    swapped = False
    if group_out % vector(dtype, group_out).lanes == 0:
        swapped_cycles, swapped_tile = best_tile(vector(dtype, group_out), {run}, group_out, exact=True)
        if swapped_cycles < 0.9 * cycles:
            swapped, tile = True, swapped_tile
    sticks_out = not swapped and run % tile.width > 0  # a vector may read past its run, so never at the end of x itself
    axes = forward_phases(KH, PH, OH), forward_phases(KW, PW, OW)
    s = _scan((N, C, H, W), (N, O, OH, OW), axes, window.stride, window.dilation, (1, 1), groups, sticks_out)
    scalars, vectors = (run, group_out) if swapped else (group_out, run)
    row = ceil(vectors / tile.width) * tile.width
    block, stacks = scalars * row, KH
    if swapped and merged and tile.columns == 1 and KH * run < registers() - 2:
        tile, scalars, stacks = Tile(tile.vector, KH * run, 1, KH), KH * run, 1
    sums_size = _on_cache_line(groups * KH * tap_groups * block)
    per_in, per_out = (row, 1) if swapped else (1, row)
    fewest, most = CHUNK_PIXELS
    chunk = max(fewest, min(most, CHUNK_BYTES // (np.dtype(dtype).itemsize * (C + O))))
    s |= {
        "micro_kernel": _product_sums(tile),
        "swapped": int(swapped),
        "scalars": scalars,
        "vectors": vectors,
        "chunk": max(1, chunk // OW),
        "sums_row": row,
        "sums_size": sums_size,
        "sums_group": KH * tap_groups * block,
        "sums_tap_row": tap_groups * block,
        "sums_tap": C * per_in if merged else block,
        "sums_in": per_in,
        "sums_out": per_out,
    }
    _divide(s, parts, sums_size, np.dtype(dtype).itemsize)
    phase = record(PHASE, {"columns": OW, "taps_h": KH, "taps_w": KW, "stacks": stacks, "tap_groups": tap_groups})
    packed = parts * s["packed_size"] if s["packs"] else 0
    programs = program(_direct.accumulate, dtype), program(_direct.add_sums, dtype)
    return Plan(record(SCAN, s), phase, programs, sums_size, packed)


def flat(x: Array) -> Array:
    """A contiguous array as a one-dimensional one, of the one type for which the kernels are compiled."""
    return (x if x.flags.behaved else x.copy()).reshape(-1)
