"""The compiled loops of the direct convolution. The page that explains them is the docstring of ``numba_cpu``.

Four programs, each called for every ``part`` of ``parts``, by some thread or other, whose buffers are those of its
``worker``: ``pack_weight`` and ``correlate`` (forward and grad_input), ``accumulate`` and ``add_sums`` (grad_weight, of
which each part has sums of its own). Two micro-kernels, the only code that is compiled for each tile:
``window_sums`` and ``product_sums``. All walk over one-dimensional arrays; what there is to know about shapes is in the
records ``scan`` and ``phase`` and in the lists ``places`` of ``_geometry``. Numba's error model is NumPy's, so that no
division tests for zero.
"""

from __future__ import annotations

from typing import Any

from minires_kernels import simd
from minires_kernels.jit import njit


@njit(error_model="numpy")
def copy(kind: Any, x: Any, i: int, y: Any, j: int, count: int) -> None:
    """y[j : j + count] = x[i : i + count]."""
    whole = count - count % kind.lanes
    for k in range(0, whole, kind.lanes):
        simd.store(simd.load(kind, x, i + k), y, j + k)
    for k in range(whole, count):
        y[j + k] = x[i + k]


@njit(error_model="numpy")
def fill_zero(kind: Any, y: Any, j: int, count: int) -> None:
    """y[j : j + count] = 0."""
    whole = count - count % kind.lanes
    for k in range(0, whole, kind.lanes):
        simd.store(simd.zero(kind), y, j + k)
    for k in range(whole, count):
        y[j + k] = 0


@njit(error_model="numpy")
def pack_images(kind: Any, scan: Any, x: Any, image: int, images: int, first: int, rows: int, y: Any, at: int) -> None:
    """Rows ``first`` ... ``first + rows`` (above or below the image: zeros) of some images, with zeros at their sides.

    y[at : ...] (images, rows, scan.row): each row is scan.left pixels of zeros, the row of x, and zeros to the end.
    Pixels are scan.pitch numbers apart; what lies between the channels of two is undefined.
    """
    columns = scan.row // scan.pitch
    before = min(scan.left, columns)  # where every window lies left of the image, a row has room for fewer zeros
    pixels = min(scan.W, columns - before)
    left, copied = before * scan.pitch, pixels * scan.pitch
    stretch, stretches = (copied, 1) if scan.pitch == scan.channels else (scan.channels, pixels)
    for n in range(image, image + images):
        for h in range(first, first + rows):
            if 0 <= h < scan.H:
                fill_zero(kind, y, at, left)
                source = (n * scan.H + h) * scan.W * scan.channels
                for k in range(stretches):
                    copy(kind, x, source + k * stretch, y, at + left + k * scan.pitch, stretch)
                fill_zero(kind, y, at + left + copied, scan.row - left - copied)
            else:
                fill_zero(kind, y, at, scan.row)
            at += scan.row


# --- forward and grad_input -------------------------------------------------------------------------------------------


@njit(error_model="numpy")
def pack_panel(kind: Any, scan: Any, phase: Any, weight: Any, group: int, block: int, panels: Any, at: int) -> None:
    """One panel: the weights that one column of tiles multiplies by, in the order in which it meets them.

    (taps_h, taps_w / taps of the tile, channels in, taps of the tile, width of the tile); lanes beyond the last channel
    are zeros.
    """
    width, taps, channels = scan.width, scan.taps, scan.group_out - block * scan.width
    per_channel, per_row, per_tap = taps * width, phase.taps_w * scan.group_in * width, scan.group_in * taps * width
    start = group * scan.weight_group + block * width * scan.weight_out + phase.first_tap
    # Taken out of their records once: the compiler must assume that a store into the panel changes a record.
    taps_h, taps_w, next_row, next_tap = phase.taps_h, phase.taps_w, phase.next_tap_row, phase.next_tap
    weight_in, weight_out = scan.weight_in, scan.weight_out
    for c in range(scan.group_in):
        for i in range(taps_h):
            for j in range(taps_w):
                source = start + c * weight_in + i * next_row + j * next_tap
                to = at + i * per_row + j // taps * per_tap + c * per_channel + j % taps * width
                for lane in range(0, width, kind.lanes):  # innermost: lines of the panel are written as a whole
                    tap = source + lane * weight_out
                    if channels - lane >= kind.lanes:
                        simd.store(simd.gather(kind, weight, tap, weight_out, kind.lanes), panels, to + lane)
                    else:
                        weights = simd.zero(kind)
                        if lane < channels:
                            weights = simd.gather(kind, weight, tap, weight_out, channels - lane)
                        simd.store_part(weights, panels, to + lane, width - lane)


@njit(error_model="numpy")
def pack_weight(
    kind: Any, part: int, parts: int, worker: int, scans: Any, cases: Any, weight: Any, panels: Any, _third: Any,
    _fourth: Any,
) -> None:  # fmt: skip
    """Every panel: for each phase, each group and each block of output channels."""
    scan, (phases, _) = scans[0], cases
    count = phases.size * scan.groups * scan.blocks
    for k in range(part * count // parts, (part + 1) * count // parts):
        phase, panel = phases[k % phases.size], k // phases.size  # all phases of a block: they need the same lines
        at = phase.panel + panel * phase.taps_h * phase.taps_w * scan.group_in * scan.width
        pack_panel(kind, scan, phase, weight, panel // scan.blocks, panel % scan.blocks, panels, at)


@njit(error_model="numpy")
def window_sums(
    tile: Any, places: Any, x_list: int, y_list: int, pixels: int, stretch: int, x: Any, at: int, pixel: int,
    tap_row: int, tap: int, taps_h: int, tap_groups: int, run: int, panels: Any, panel: int, y: Any, y_at: int,
    channels: int,
) -> None:  # fmt: skip
    """The micro-kernel: tile.rows output pixels x tile.width output channels, for ``pixels`` pixels of a list.

    y[p, o] = sum over taps and channels c of x[p + tap, c] panel[tap, c, o]. Where pixel p lies is in places[x_list +
    p] and places[y_list + p]. No tile crosses from one ``stretch`` of pixels to the next: with several taps these are
    the rows, otherwise there is but one stretch.
    """
    for first in range(0, pixels, stretch):
        for q in range(first, first + stretch, tile.rows):
            p = min(q, first + stretch - tile.rows)  # the last tile overlaps its neighbour
            x_pixels = simd.tile_pixels(tile, tile.taps, places, x_list + p, pixel)
            y_pixels = simd.tile_pixels(tile, 1, places, y_list + p, 0)
            simd.tile_prefetch(tile, y, y_at, y_pixels)
            sums = simd.tile_zero(tile)
            w = panel
            for i in range(taps_h):
                for j in range(tap_groups):
                    start = at + i * tap_row + j * tap
                    for c in range(start, start + run):
                        sums = simd.tile_correlate(sums, tile.taps, x, c, x_pixels, panels, w, tile.width)
                        w += tile.taps * tile.width
            if channels >= tile.width:
                simd.tile_store(sums, y, y_at, y_pixels)
            else:
                simd.tile_store_part(sums, y, y_at, y_pixels, channels)


@njit(error_model="numpy")
def correlate_rows(
    scan: Any, phases: Any, places: Any, x: Any, at: int, images: int, first: int, rows: int,
    panels: Any, y: Any, y_at: int,
) -> None:  # fmt: skip
    """The output rows ``first`` ... ``first + rows`` of each phase, for images that lie in ``x`` from ``at`` on."""
    for p in range(phases.size):
        phase = phases[p]
        pixels = images * min(rows, phase.rows - first) * phase.columns
        if pixels <= 0:
            continue
        stretch = pixels if scan.taps == 1 else phase.columns
        panel_size = phase.taps_h * phase.taps_w * scan.group_in * scan.width
        for group in range(scan.groups):
            tap = phase.start + group * scan.group_in
            for block in range(scan.blocks):
                panel = phase.panel + (group * scan.blocks + block) * panel_size
                out = y_at + phase.y + first * scan.y_row + group * scan.group_out + block * scan.width
                simd.call(
                    scan.micro_kernel,
                    (
                        places, phase.x_list, phase.y_list, pixels, stretch, x, at + tap, scan.pixel, scan.tap_row,
                        scan.tap, phase.taps_h, phase.tap_groups, phase.run, panels, panel, y, out,
                        scan.group_out - block * scan.width,
                    ),
                )  # fmt: skip


@njit(error_model="numpy")
def correlate(
    kind: Any, part: int, parts: int, worker: int, scans: Any, cases: Any, x: Any, panels: Any, y: Any, packed: Any
) -> None:
    """Every output pixel: whole images, or bands of rows where an image is too large for the cache.

    A pixel is summed by one thread, in an order that doesn't depend on the number of threads.
    """
    scan, (phases, places) = scans[0], cases
    units = scan.N * scan.bands
    unit, last = part * units // parts, (part + 1) * units // parts
    while unit < last:
        image, band = unit // scan.bands, unit % scan.bands
        images = min(scan.images, last - unit)
        first = band * scan.band_rows
        rows = min(scan.band_rows, scan.rows - first)
        if scan.packs:
            source, at = packed, worker * scan.packed_size
            pack_unit(kind, scan, x, image, images, first, rows, packed, at)
        else:
            source, at = x, image * scan.x_image + first * scan.row_step
        y_at = image * scan.y_image
        correlate_rows(scan, phases, places, source, at, images, first, rows, panels, y, y_at)
        unit += images


@njit(error_model="numpy")
def pack_unit(
    kind: Any, scan: Any, x: Any, image: int, images: int, first: int, rows: int, packed: Any, at: int
) -> None:
    """Packs what some rows of positions see, from packed[at] on."""
    height = (rows - 1) * scan.step + scan.span
    pack_images(kind, scan, x, image, images, first * scan.step - scan.top, height, packed, at)


# --- grad_weight ------------------------------------------------------------------------------------------------------


@njit(error_model="numpy")
def product_sums(
    tile: Any, places: Any, a_list: int, b_list: int, first: int, last: int, columns: int,
    a: Any, a_at: int, a_pixel: int, a_tap_row: int, b: Any, b_at: int, b_pixel: int,
    sums: Any, at: int, stride: int, height: int, width: int,
) -> None:  # fmt: skip
    """The micro-kernel: sums[r, v] += sum over pixels of a[pixel, r] b[pixel, v], for ``height`` x ``width`` numbers.

    The pixels are those of the rows ``first`` to ``last``, ``columns`` each; where pixel p of all of them lies is in
    places[a_list + p] and places[b_list + p].
    Numbers of several rows of taps are stacked in one tile where the channels of one row would leave it empty.
    """
    for v in range(0, width, tile.width):
        for r in range(0, height, tile.rows):
            top = min(r, height - tile.rows)  # the last tile overlaps its neighbour, and adds only what that hasn't
            products = simd.tile_zero(tile)
            for p in range(first * columns, last * columns, columns):
                i, j = a_at + top + places[a_list + p], b_at + v + places[b_list + p]
                for _ in range(columns):
                    simd.prefetch(tile.vector, b, j + 16 * b_pixel)  # grad_output streams by once, from far away
                    products = simd.tile_outer_stacked(products, tile.taps, a, i, a_tap_row, b, j)
                    i += a_pixel
                    j += b_pixel
            simd.tile_add(products, sums, at + top * stride + v, stride, r - top)


@njit(error_model="numpy")
def accumulate_rows(
    scan: Any, phase: Any, places: Any, x: Any, x_at: int, grad_output: Any, grad_at: int, first: int, last: int,
    sums: Any, at: int,
) -> None:  # fmt: skip
    """Every tap, channel in and channel out, for the rows ``first`` ... ``last`` of pixels."""
    for group in range(scan.groups):
        for i in range(phase.stacks):
            for j in range(phase.tap_groups):
                tap = x_at + i * scan.tap_row + j * scan.tap + group * scan.group_in
                grad = grad_at + group * scan.group_out
                if scan.swapped:
                    a, a_at, a_list, a_pixel = x, tap, phase.x_list, scan.pixel
                    b, b_at, b_list, b_pixel = grad_output, grad, phase.y_list, scan.y_pixel
                else:
                    a, a_at, a_list, a_pixel = grad_output, grad, phase.y_list, scan.y_pixel
                    b, b_at, b_list, b_pixel = x, tap, phase.x_list, scan.pixel
                simd.call(
                    scan.micro_kernel,
                    (
                        places, a_list, b_list, first, last, phase.columns, a, a_at, a_pixel, scan.tap_row,
                        b, b_at, b_pixel, sums, at, scan.sums_row, scan.scalars, scan.vectors,
                    ),
                )  # fmt: skip
                at += scan.scalars * scan.sums_row


@njit(error_model="numpy")
def pack_pixels(kind: Any, scan: Any, grad_output: Any, at: int, pixels: int, packed: Any, to: int) -> None:
    """``pixels`` pixels of grad_output, to packed[to : ...], scan.y_pixel numbers apart; the gaps are undefined."""
    channels = scan.groups * scan.group_out
    for p in range(pixels):
        copy(kind, grad_output, at + p * channels, packed, to + p * scan.y_pixel, channels)


@njit(error_model="numpy")
def accumulate(
    kind: Any, part: int, parts: int, worker: int, scans: Any, cases: Any, x: Any, grad_output: Any, sums: Any,
    packed: Any,
) -> None:  # fmt: skip
    """One thread's sums over its images. The shares depend on the number of threads, and on nothing else."""
    scan, phase, places = scans[0], cases[0][0], cases[1]
    at = part * scan.sums_size
    fill_zero(kind, sums, at, scan.sums_size)
    units = scan.N * scan.bands
    unit, last = part * units // parts, (part + 1) * units // parts
    while unit < last:
        image, band = unit // scan.bands, unit % scan.bands
        images = min(scan.images, last - unit)
        first = band * scan.band_rows
        rows = min(scan.band_rows, scan.rows - first)
        if scan.packs:
            source, x_at = packed, worker * scan.packed_size
            pack_unit(kind, scan, x, image, images, first, rows, packed, x_at)
        else:
            source, x_at = x, image * scan.x_image + first * scan.row_step
        grad, grad_at = grad_output, (image * scan.rows + first) * phase.columns * scan.groups * scan.group_out
        if scan.grad_packs:
            to = worker * scan.packed_size + scan.grad_packed
            pack_pixels(kind, scan, grad_output, grad_at, images * rows * phase.columns, packed, to)
            grad, grad_at = packed, to
        chunks = -(-images * rows // scan.chunk)
        for chunk in range(chunks):
            start, end = chunk * images * rows // chunks, (chunk + 1) * images * rows // chunks
            accumulate_rows(scan, phase, places, source, x_at, grad, grad_at, start, end, sums, at)
        unit += images


@njit(error_model="numpy")
def add_sums(
    kind: Any, part: int, parts: int, worker: int, scans: Any, cases: Any, sums: Any, grad_weight: Any, _third: Any,
    _fourth: Any,
) -> None:  # fmt: skip
    """grad_weight (O, C/G, KH, KW): the sums of all threads, added in their order."""
    scan, phase = scans[0], cases[0][0]
    taps_h, taps_w, group_in, group_out = phase.taps_h, phase.taps_w, scan.group_in, scan.group_out
    tap_row, tap, per_channel, size = scan.sums_tap_row, scan.sums_tap, scan.sums_in, scan.sums_size
    channels_out = scan.groups * group_out
    for o in range(part * channels_out // parts, (part + 1) * channels_out // parts):
        start = o // group_out * scan.sums_group + o % group_out * scan.sums_out
        for i in range(taps_h):
            for j in range(taps_w):
                to = (o * group_in * taps_h + i) * taps_w + j
                for at in range(
                    start + i * tap_row + j * tap, start + i * tap_row + j * tap + group_in * per_channel, per_channel
                ):
                    number = sums[at]
                    for other in range(1, parts):
                        number += sums[other * size + at]
                    grad_weight[to] = number
                    to += taps_h * taps_w
