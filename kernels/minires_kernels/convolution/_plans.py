"""What a call of the direct convolution is to do, by its shapes: the plans of forward, grad_input and grad_weight.

A plan chooses a tile, cuts the work into blocks that fit the caches and lists pixels, with the means of ``_geometry``.
Plans are kept: the second call with the same shapes finds its own.
"""

from __future__ import annotations

import itertools
from math import ceil, gcd
from typing import Any

import numpy as np

from minires_kernels.convolution import _direct
from minires_kernels.convolution._geometry import (
    PHASE,
    SCAN,
    Axes,
    Plan,
    Shape,
    best_tile,
    divide,
    forward_phases,
    grad_input_phases,
    list_places,
    on_cache_line,
    pitch_of,
    record,
    scan_fields,
)
from minires_kernels.convolution._kept import kept
from minires_kernels.simd import Tile, address, registers, vector
from minires_kernels.window import Pair, Window

CHUNK_BYTES, CHUNK_PIXELS = 1 << 15, (32, 128)
"""Pixels between two additions to the running sums of grad_weight: as many as have their numbers, of x and of
grad_output, in a first-level cache of this size, but not fewer or more than these. Fewer, and the additions would cost
too much; and a sum of sums has a smaller rounding error than one long sum. Where pixels are packed apart, what one
tile meets of them stays in the first level, whatever the channels: the most."""

NO_PLACES = np.empty(0, np.int64)
NO_CASES = np.empty(0, PHASE), NO_PLACES


def _window_sums(tile: Tile) -> int:
    x = np.empty(0, tile.vector.dtype)
    return address(_direct.window_sums, tile, NO_PLACES, *[0] * 4, x, *[0] * 7, x, 0, x, 0, 0)


def _product_sums(tile: Tile) -> int:
    x = np.empty(0, tile.vector.dtype)
    return address(_direct.product_sums, tile, NO_PLACES, *[0] * 5, x, 0, 0, 0, x, 0, 0, x, *[0] * 4)


def program(function: Any, dtype: Any) -> int:
    """The address of one of the four programs of ``_direct``, for ``in_parallel``."""
    x = np.empty(0, dtype)
    return address(function, vector(dtype), 0, 0, 0, np.empty(0, SCAN), NO_CASES, x, x, x, x)


def _correlation(
    s: dict[str, int], axes: Axes, output: Shape, tap: Pair, window: Window, dtype: Any, parts: int
) -> Plan:
    """The plan of forward or grad_input."""
    down, right = axes
    _, out_channels, _, OW = output
    channels, groups, width = s["channels"], s["groups"], s["group_out"]
    adjacent = s["pixel"] == s["tap"]  # a pixel's next tap is its neighbour's tap
    taps = 3 if adjacent and all(len(phase.taps) == 3 for phase in right) else 1
    counts = {
        h.count if taps > 1 else ceil(s["N"] / parts) * v.count * h.count for v, h in itertools.product(down, right)
    }
    _, tile = best_tile(vector(dtype, width), counts, width, taps=taps)
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
        phases.append(record(PHASE, fields))
        panels += taps_h * taps_w * channels * s["blocks"] * tile.width
    divide(s, parts, panels, np.dtype(dtype).itemsize)
    places = list_places(s, phases, tile.rows - 1)
    packed = parts * s["packed_size"] if s["packs"] else 0
    programs = program(_direct.pack_weight, dtype), program(_direct.correlate, dtype)
    shares = len(phases) * groups * s["blocks"], ceil(s["N"] * s["bands"] / s["images"])
    return Plan(record(SCAN, s), (np.concatenate(phases), places), programs, shares, panels, packed)


def _one_image(window: Window, N: int, *sizes: int) -> tuple[int, ...]:
    """(N, *sizes), but for a 1x1 convolution one image: its pixels see no neighbours, and rows may suit the tiles."""
    if window != Window((1, 1)):
        return N, *sizes
    pixels = N * sizes[0] * sizes[1]
    width = next(
        (width for width in (56, 64, 48, 40, 49, 32, 28, 24, 16, 14, 12, 10, 9, 8, 7) if pixels % width == 0), 0
    )
    return (1, *(pixels // width, width) * (len(sizes) // 2)) if width else (1, *(1, pixels) * (len(sizes) // 2))


@kept
def plan_forward(
    x_shape: Shape, weight_shape: Shape, window: Window, groups: int, dtype: Any, parts: int, register_bytes: int
) -> Plan:
    """The plan of forward. ``register_bytes`` is only part of the cache's key."""
    N, C, H, W = x_shape
    O = weight_shape[0]
    (KH, KW), (PH, PW) = window.size, window.padding
    N, H, W, OH, OW = _one_image(window, N, H, W, *window.output_size(H, W, op="convolution"))
    axes = forward_phases(KH, PH, OH), forward_phases(KW, PW, OW)
    output = (N, O, OH, OW)
    s = scan_fields((N, C, H, W), output, axes, window.stride, window.dilation, (1, 1), groups)
    s |= {
        "weight_group": O // groups * C // groups * KH * KW,
        "weight_out": C // groups * KH * KW,
        "weight_in": KH * KW,
    }
    return _correlation(s, axes, output, window.dilation, window, dtype, parts)


@kept
def plan_grad_input(
    grad_shape: Shape, weight_shape: Shape, x_shape: Shape, window: Window, groups: int, dtype: Any, parts: int,
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
    s = scan_fields((N, O, OH, OW), output, axes, (1, 1), tap, (SH, SW), groups)
    s |= {
        "weight_group": O // groups * C // groups * KH * KW,
        "weight_out": KH * KW,
        "weight_in": C // groups * KH * KW,
    }
    return _correlation(s, axes, output, tap, window, dtype, parts)


@kept
def plan_grad_weight(
    grad_shape: Shape, x_shape: Shape, window: Window, groups: int, dtype: Any, parts: int, register_bytes: int
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
    itemsize = np.dtype(dtype).itemsize
    pitch, grad_pitch = C, O
    if KH * KW > 1:  # a number of a single tap is used too seldom to be moved
        pitch, grad_pitch = pitch_of(C, window.stride[1], itemsize), pitch_of(O, 1, itemsize)
    merged = window.dilation[1] == 1 and groups == 1 and pitch == C
    run, tap_groups = (KW * C, 1) if merged else (C // groups, KW)
    cycles, tile = best_tile(vector(dtype, run), {group_out}, run)
    swapped = False
    if group_out % vector(dtype, group_out).lanes == 0:
        swapped_cycles, swapped_tile = best_tile(vector(dtype, group_out), {run}, group_out, exact=True)
        if swapped_cycles < 0.9 * cycles:
            swapped, tile = True, swapped_tile
    sticks_out = not swapped and run % tile.width > 0  # a vector may read past its run, so never at the end of x itself
    axes = forward_phases(KH, PH, OH), forward_phases(KW, PW, OW)
    s = scan_fields(
        (N, C, H, W), (N, O, OH, OW), axes, window.stride, window.dilation, (1, 1), groups, sticks_out, pitch
    )
    scalars, vectors = (run, group_out) if swapped else (group_out, run)
    row = ceil(vectors / tile.width) * tile.width
    block, stacks = scalars * row, KH
    if swapped and merged and tile.columns == 1 and KH * run < registers() - 2:
        tile, scalars, stacks = Tile(tile.vector, KH * run, 1, KH), KH * run, 1
    sums_size = on_cache_line(groups * KH * tap_groups * block)
    per_in, per_out = (row, 1) if swapped else (1, row)
    fewest, most = CHUNK_PIXELS
    chunk = max(fewest, min(most, CHUNK_BYTES // (itemsize * (C + O)))) if pitch == C and grad_pitch == O else most
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
    divide(s, parts, sums_size, itemsize)
    if grad_pitch > O:
        pixels = s["images"] * s["band_rows"] * OW
        s |= {"grad_packs": 1, "grad_packed": s["packed_size"], "packed_size": s["packed_size"] + pixels * grad_pitch}
        s |= {"y_image": s["band_rows"] * OW * grad_pitch, "y_row": OW * grad_pitch, "y_pixel": grad_pitch}
    phase = record(
        PHASE, {"rows": OH, "columns": OW, "taps_h": KH, "taps_w": KW, "stacks": stacks, "tap_groups": tap_groups}
    )
    packed = parts * s["packed_size"] if s["packs"] or grad_pitch > O else 0
    programs = program(_direct.accumulate, dtype), program(_direct.add_sums, dtype)
    shares = parts, parts  # which sums a number is in must not be chance
    return Plan(record(SCAN, s), (phase, list_places(s, [phase], 0)), programs, shares, sums_size, packed)
