"""How the direct convolution walks over memory: strides, blocks and tiles, worked out once for each geometry.

A *scan* slides a window over a source and meets an output; it is one record of numbers. Its *phases* are the cases in
which a window's taps meet the source at whole steps: one for forward; for grad_input one for each remainder (h mod SH,
w mod SW), because the output pixels of one phase see the same subset of the taps. A phase of grad_input is itself a
convolution of stride 1, whatever the stride, and so forward and grad_input are one program.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from minires_kernels.arrays import Array
from minires_kernels.simd import Tile, Vector, kinds, registers
from minires_kernels.window import Pair

PACKED_BYTES = kinds.CACHE_BYTES // 4
"""How much a thread packs at once: a quarter of the second-level cache, so that panels and output fit beside it."""

COLLISION_BYTES = 512
"""Pixels at multiples of this share an eighth of the sets of a first-level cache, or less: they push each other out."""

Shape: TypeAlias = tuple[int, int, int, int]
Record: TypeAlias = np.ndarray[Any, Any]


def integers(*names: str) -> np.dtype[Any]:
    """The type of a record of integers with these names."""
    return np.dtype([(name, np.int64) for name in names])


SCAN = integers(
    # the source: N images (H, W, channels); when packed, rows of ``row`` numbers with zeros ``top`` and ``left``, whose
    # pixels are ``pitch`` numbers apart
    *("N", "H", "W", "channels", "pitch", "top", "left", "row", "x_image", "packs", "packed_size"),
    # the walk: source rows a step down; numbers a step down and right, a tap down and right; rows that a window spans
    *("step", "row_step", "pixel", "tap_row", "tap", "span"),
    # the shares: rows of positions, bands of an image and their rows, images at once
    *("rows", "bands", "band_rows", "images"),
    *("y_image", "y_row", "y_pixel"),
    # channels, and strides of the weight
    *("groups", "group_in", "group_out", "weight_group", "weight_in", "weight_out"),
    # the micro-kernel's address, width and taps of its tile, tiles that cover a group's channels
    *("micro_kernel", "width", "taps", "blocks"),
    # grad_weight: whether grad_output is packed too, and where behind the images; whether x (and not grad_output) gives
    # the scalars; the most rows of pixels at once; layout of the sums
    *("grad_packs", "grad_packed", "swapped", "scalars", "vectors", "chunk", "sums_row", "sums_size"),
    *("sums_group", "sums_tap_row", "sums_tap", "sums_in", "sums_out"),
)

PHASE = integers(
    *("rows", "columns", "start", "y", "panel"),
    # where in ``places`` its pixels are listed: in the source, in the output
    *("x_list", "y_list"),
    # taps; a run is a stretch of source numbers, channels of neighbouring taps, that one stretch of a panel meets
    *("taps_h", "taps_w", "stacks", "tap_groups", "run", "first_tap", "next_tap_row", "next_tap"),
)


def record(kind: np.dtype[Any], fields: dict[str, int]) -> Record:
    """An array of one record; fields that aren't given are 0."""
    assert kind.names is not None
    assert fields.keys() <= set(kind.names)
    return np.array([tuple(fields.get(name, 0) for name in kind.names)], kind)


class Plan(NamedTuple):
    """Everything about a call that its shapes decide."""

    scan: Record  # one SCAN
    cases: tuple[Record, Record]  # PHASE, one or more; places: where the pixels lie that a thread computes at once
    programs: tuple[int, int]  # what runs in parallel, one after the other
    shares: tuple[int, int]  # in how many parts
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


def scan_fields(source: Shape, output: Shape, axes: Axes, step: Pair, tap: Pair, y_step: Pair, groups: int,
                must_pack: bool = False, pitch: int = 0) -> dict[str, int]:  # fmt: skip
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
    pitch = pitch or channels
    packs = must_pack or pitch > channels or top > 0 or left > 0 or height > H or width > W
    row = (width if packs else W) * pitch
    return {
        "N": N,
        "H": H,
        "W": W,
        "channels": channels,
        "pitch": pitch,
        "top": top,
        "left": left,
        "row": row,
        "x_image": H * W * channels,
        "packs": int(packs),
        "step": step[0],
        "row_step": step[0] * row,
        "pixel": step[1] * pitch,
        "tap_row": tap[0] * row,
        "tap": tap[1] * pitch,
        "span": span,
        "rows": rows,
        "y_image": OH * OW * out_channels,
        "y_row": y_step[0] * OW * out_channels,
        "y_pixel": y_step[1] * out_channels,
        "groups": groups,
        "group_in": channels // groups,
        "group_out": out_channels // groups,
    }


def divide(s: dict[str, int], parts: int, reused: int, itemsize: int) -> None:
    """Cuts the source into bands of rows or blocks of images, for each of ``parts`` threads.

    A block holds several images when what is ``reused`` for each block (panels, sums) is too large for the cache.
    """
    N, rows, step, span = s["N"], s["rows"], s["step"], s["span"]
    large = reused * itemsize > PACKED_BYTES // 2
    room = PACKED_BYTES // (itemsize * s["row"])  # in rows of the source
    whole = (rows - 1) * step + span
    bands = 1 if whole <= (4 * room if large else room) else ceil(rows / max(1, (room - span) // step + 1))
    most = min(rows, bands * parts)
    while bands < most and N * bands % parts and N * bands < 8 * parts:
        bands += 1
    band_rows = ceil(rows / bands)
    bands = ceil(rows / band_rows)
    share = ceil(N / parts)
    fitting = max(1, min(8 * room // whole, share)) if bands == 1 and large else 1
    images = ceil(share / ceil(share / fitting))
    packed_size = images * ((band_rows - 1) * step + span) * s["row"]
    s |= {"bands": bands, "band_rows": band_rows, "images": images, "packed_size": on_cache_line(packed_size + 64)}


def on_cache_line(count: int) -> int:
    return ceil(count / 16) * 16


def list_places(s: dict[str, int], phases: list[Record], copies: int) -> Record:
    """``places``, of which the phases note their parts: where each pixel lies in the source and in the output.

    They are the pixels that a thread computes at once, relative to the first: tiles go through such a list, and so may
    cross rows and images (Dukhan 2019, The Indirect Convolution Algorithm, does it with pointers). Each list begins
    with ``copies`` of its first pixel: with them, fewer pixels than a tile has rows fill one.
    """
    image_rows = (s["band_rows"] - 1) * s["step"] + s["span"]
    image = image_rows * s["row"] if s["packs"] else s["x_image"]
    source, output = (image, s["row_step"], s["pixel"]), (s["y_image"], s["y_row"], s["y_pixel"])
    lists, size = [], 0
    for (phase,) in phases:
        n, h, w = np.ogrid[: s["images"], : min(s["band_rows"], phase["rows"]), : phase["columns"]]
        for name, (per_image, per_row, per_pixel) in (("x_list", source), ("y_list", output)):
            lists.append(np.pad((n * per_image + h * per_row + w * per_pixel).reshape(-1), (copies, 0)))
            phase[name] = size + copies
            size += lists[-1].size
    return np.concatenate(lists)


def pitch_of(channels: int, stride: int, itemsize: int) -> int:
    """Numbers from one packed pixel to the next: all channels, and one cache line more where that avoids collisions."""
    return channels + (64 // itemsize if stride * channels * itemsize % COLLISION_BYTES == 0 else 0)


def flat(x: Array) -> Array:
    """A contiguous array as a one-dimensional one, of the one type for which the kernels are compiled."""
    return (x if x.flags.behaved else x.copy()).reshape(-1)
