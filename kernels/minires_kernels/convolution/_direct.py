"""The compiled loops of the direct convolution. The page that explains them is the docstring of ``numba_cpu``.

Four programs, each a share of the work for one thread: ``pack_weight`` and ``correlate`` (forward and grad_input),
``accumulate`` and ``add_sums`` (grad_weight). Two micro-kernels, the only code that is compiled for each tile:
``window_sums`` and ``product_sums``. All walk over one-dimensional arrays; what there is to know about shapes is in the
records ``scan`` and ``phase`` of ``_geometry``. Numba's error model is NumPy's, so that no division tests for zero.
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
    """
    left = scan.left * scan.channels
    copied = min(scan.W * scan.channels, scan.row - left)
    for n in range(image, image + images):
        for h in range(first, first + rows):
            if 0 <= h < scan.H:
                fill_zero(kind, y, at, left)
                copy(kind, x, (n * scan.H + h) * scan.W * scan.channels, y, at + left, copied)
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
    for lane in range(0, width, kind.lanes):
        count = channels - lane
        for c in range(scan.group_in):
            source = start + c * scan.weight_in + lane * scan.weight_out
            for i in range(phase.taps_h):
                tap = source + i * phase.next_tap_row
                for j in range(phase.taps_w // taps):
                    to = at + i * per_row + j * per_tap + c * per_channel + lane
                    for _ in range(taps):
                        weights = simd.zero(kind)
                        if count > 0:
                            weights = simd.gather(kind, weight, tap, scan.weight_out, count)
                        simd.store_part(weights, panels, to, width - lane)
                        tap += phase.next_tap
                        to += width


@njit(error_model="numpy")
def pack_weight(
    kind: Any, part: int, parts: int, scans: Any, phases: Any, weight: Any, panels: Any, _third: Any, _fourth: Any
) -> None:
    """Every panel: for each phase, each group and each block of output channels."""
    scan = scans[0]
    count = scan.groups * scan.blocks
    for k in range(part * phases.size * count // parts, (part + 1) * phases.size * count // parts):
        phase, panel = phases[k // count], k % count
        at = phase.panel + panel * phase.taps_h * phase.taps_w * scan.group_in * scan.width
        pack_panel(kind, scan, phase, weight, panel // scan.blocks, panel % scan.blocks, panels, at)


@njit(error_model="numpy")
def window_sums(
    tile: Any, columns: int, x: Any, at: int, pixel: int, tap_row: int, tap: int, taps_h: int, tap_groups: int,
    run: int, panels: Any, panel: int, y: Any, y_at: int, y_pixel: int, channels: int, before: int,
) -> None:  # fmt: skip
    """The micro-kernel: tile.rows neighbouring output pixels x tile.width output channels; along one row of pixels.

    y[p, o] = sum over taps and channels c of x[p + tap, c] panel[tap, c, o], added to what is there if pieces of the
    panel came ``before``.
    """
    for q in range(0, columns, tile.rows):
        p = min(q, columns - tile.rows)  # the last tile overlaps its neighbour
        simd.tile_prefetch(tile, y, y_at + p * y_pixel, y_pixel)
        sums = simd.tile_zero(tile)
        w = panel
        for i in range(taps_h):
            for j in range(tap_groups):
                start = at + p * pixel + i * tap_row + j * tap
                for c in range(start, start + run):
                    sums = simd.tile_correlate(sums, tile.taps, x, c, pixel, panels, w, tile.width)
                    w += tile.taps * tile.width
        if before > 0:
            simd.tile_add(sums, y, y_at + p * y_pixel, y_pixel, q - p)
        elif channels >= tile.width:
            simd.tile_store(sums, y, y_at + p * y_pixel, y_pixel)
        else:
            simd.tile_store_part(sums, y, y_at + p * y_pixel, y_pixel, channels)


@njit(error_model="numpy")
def correlate_rows(
    scan: Any, phases: Any, x: Any, at: int, image_stride: int, images: int, first: int, rows: int,
    panels: Any, y: Any, y_at: int,
) -> None:  # fmt: skip
    """The output rows ``first`` ... ``first + rows`` of each phase, for images that lie in ``x`` from ``at`` on."""
    for p in range(phases.size):
        phase = phases[p]
        panel_size = phase.taps_h * phase.taps_w * scan.group_in * scan.width
        for group in range(scan.groups):
            for block in range(scan.blocks):
                panel = phase.panel + (group * scan.blocks + block) * panel_size
                out = y_at + phase.y + group * scan.group_out + block * scan.width
                channels = scan.group_out - block * scan.width
                taps_h, tap_groups, run, pieces = phase.taps_h, phase.tap_groups, phase.run, 1
                if phase.pieces > 0:
                    taps_h, tap_groups, run = 1, 1, phase.piece
                    pieces = phase.taps_h * phase.tap_groups * phase.pieces
                for piece in range(pieces):  # all rows meet one piece of the panel before the next one
                    i = piece // max(phase.tap_groups * phase.pieces, 1)
                    j = piece // max(phase.pieces, 1) % max(phase.tap_groups, 1)
                    c = piece % max(phase.pieces, 1) * phase.piece
                    tap = phase.start + group * scan.group_in + i * scan.tap_row + j * scan.tap + c
                    weights = panel + piece * run * scan.taps * scan.width
                    for n in range(images):
                        for h in range(first, min(first + rows, phase.rows)):
                            row = at + n * image_stride + (h - first) * scan.row_step + tap
                            y_row = out + n * scan.y_image + h * scan.y_row
                            simd.call(
                                scan.micro_kernel,
                                (
                                    phase.columns, x, row, scan.pixel, scan.tap_row, scan.tap, taps_h, tap_groups,
                                    run, panels, weights, y, y_row, scan.y_pixel, channels, piece,
                                ),
                            )  # fmt: skip


@njit(error_model="numpy")
def correlate(
    kind: Any, part: int, parts: int, scans: Any, phases: Any, x: Any, panels: Any, y: Any, packed: Any
) -> None:
    """Every output pixel: whole images, or bands of rows where an image is too large for the cache.

    A pixel is summed by one thread, in an order that doesn't depend on the number of threads.
    """
    scan = scans[0]
    units = scan.N * scan.bands
    unit, last = part * units // parts, (part + 1) * units // parts
    while unit < last:
        image, band = unit // scan.bands, unit % scan.bands
        images = min(scan.images, last - unit)
        first = band * scan.band_rows
        rows = min(scan.band_rows, scan.rows - first)
        if scan.packs:
            source, at, image_stride = pack_unit(kind, scan, x, image, images, first, rows, packed, part)
        else:
            source, at, image_stride = x, image * scan.x_image + first * scan.row_step, scan.x_image
        y_at = image * scan.y_image
        correlate_rows(scan, phases, source, at, image_stride, images, first, rows, panels, y, y_at)
        unit += images


@njit(error_model="numpy")
def pack_unit(
    kind: Any, scan: Any, x: Any, image: int, images: int, first: int, rows: int, packed: Any, part: int
) -> tuple[Any, int, int]:
    """Packs what some rows of positions see; returns (array, index of the first number, numbers between images)."""
    at = part * scan.packed_size
    height = (rows - 1) * scan.step + scan.span
    pack_images(kind, scan, x, image, images, first * scan.step - scan.top, height, packed, at)
    return packed, at, height * scan.row


# --- grad_weight ------------------------------------------------------------------------------------------------------


@njit(error_model="numpy")
def product_sums(
    tile: Any, a: Any, a_at: int, a_image: int, a_row: int, a_pixel: int, a_tap_row: int,
    b: Any, b_at: int, b_image: int, b_row: int, b_pixel: int,
    first: int, last: int, rows: int, columns: int, sums: Any, at: int, stride: int, height: int, width: int,
) -> None:  # fmt: skip
    """The micro-kernel: sums[r, v] += sum over pixels of a[pixel, r] b[pixel, v], for ``height`` x ``width`` numbers.

    Numbers of several rows of taps are stacked in one tile where the channels of one row would leave it empty.
    ``first`` ... ``last`` are rows of pixels, counted through images of ``rows`` rows.
    """
    for r in range(0, height, tile.rows):
        top = min(r, height - tile.rows)  # the last tile overlaps its neighbour, and adds only what that hasn't
        for v in range(0, width, tile.width):
            products = simd.tile_zero(tile)
            for k in range(first, last):
                image = k // rows
                row = k - image * rows
                i = a_at + image * a_image + row * a_row + top
                j = b_at + image * b_image + row * b_row + v
                for _ in range(columns):
                    simd.prefetch(tile.vector, b, j + 16 * b_pixel)  # grad_output streams by once, from far away
                    products = simd.tile_outer_stacked(products, tile.taps, a, i, a_tap_row, b, j)
                    i += a_pixel
                    j += b_pixel
            simd.tile_add(products, sums, at + top * stride + v, stride, r - top)


@njit(error_model="numpy")
def accumulate_rows(
    scan: Any, phase: Any, x: Any, x_at: int, x_image: int, grad_output: Any, grad_at: int,
    first: int, last: int, rows: int, sums: Any, at: int,
) -> None:  # fmt: skip
    """Every tap, channel in and channel out, for the rows ``first`` ... ``last`` of pixels."""
    for group in range(scan.groups):
        for i in range(phase.stacks):
            for j in range(phase.tap_groups):
                x_tap = x_at + i * scan.tap_row + j * scan.tap + group * scan.group_in
                grad = grad_at + group * scan.group_out
                if scan.swapped:
                    a, a_at, a_image, a_row, a_pixel = x, x_tap, x_image, scan.row_step, scan.pixel
                    b, b_at, b_image, b_row, b_pixel = grad_output, grad, scan.y_image, scan.y_row, scan.y_pixel
                else:
                    a, a_at, a_image, a_row, a_pixel = grad_output, grad, scan.y_image, scan.y_row, scan.y_pixel
                    b, b_at, b_image, b_row, b_pixel = x, x_tap, x_image, scan.row_step, scan.pixel
                simd.call(
                    scan.micro_kernel,
                    (
                        a, a_at, a_image, a_row, a_pixel, scan.tap_row, b, b_at, b_image, b_row, b_pixel,
                        first, last, rows, phase.columns, sums, at, scan.sums_row, scan.scalars, scan.vectors,
                    ),
                )  # fmt: skip
                at += scan.scalars * scan.sums_row


@njit(error_model="numpy")
def accumulate(
    kind: Any, part: int, parts: int, scans: Any, phases: Any, x: Any, grad_output: Any, sums: Any, packed: Any
) -> None:
    """One thread's sums over its images. The shares depend on the number of threads, and on nothing else."""
    scan, phase = scans[0], phases[0]
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
            source, x_at, image_stride = pack_unit(kind, scan, x, image, images, first, rows, packed, part)
        else:
            source, x_at, image_stride = x, image * scan.x_image + first * scan.row_step, scan.x_image
        grad_at = image * scan.y_image + first * scan.y_row
        for row in range(0, images * rows, scan.chunk):
            end = min(row + scan.chunk, images * rows)
            accumulate_rows(scan, phase, source, x_at, image_stride, grad_output, grad_at, row, end, rows, sums, at)
        unit += images


@njit(error_model="numpy")
def add_sums(
    kind: Any, part: int, parts: int, scans: Any, phases: Any, sums: Any, grad_weight: Any, _third: Any, _fourth: Any
) -> None:
    """grad_weight (O, C/G, KH, KW): the sums of all threads, added in their order."""
    scan = scans[0]
    taps_h, taps_w, group_in, group_out = phases[0].taps_h, phases[0].taps_w, scan.group_in, scan.group_out
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
