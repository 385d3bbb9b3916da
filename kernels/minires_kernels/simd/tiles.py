"""Operations on tiles: blocks of rows x columns vectors that stay in registers while a loop runs."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import types
from numba.core.errors import TypingError
from numba.extending import intrinsic

from minires_kernels.simd.emit import Code, TileType, check_array, check_tile, emitter, tile_type
from minires_kernels.simd.kinds import Constant, Matrix, Tile

INDEX = types.intp


def _stride(stride: Any, count: int) -> Any:
    """The type of a stride: an integer, or as many places as there are rows, from :func:`tile_pixels`."""
    if isinstance(stride, types.UniTuple) and stride.count == count:
        return stride
    if isinstance(stride, types.Integer):
        return INDEX
    raise TypingError(f"simd: expected an integer or {count} places for a stride, got {stride}")


@intrinsic
def tile_zero(typing: Any, kind: Any) -> Any:
    """``tile_zero(kind)``: a tile of zeros."""
    result = tile_type(kind)
    rows = [[result.vector.constant(0.0)] * result.columns] * result.rows
    return result(kind), emitter(result.vector, lambda code, _: result.pack(code.builder, rows))


@intrinsic
def tile_load(typing: Any, kind: Any, x: Any, i: Any, row_stride: Any, column_stride: Any) -> Any:
    """``tile_load(kind, x, i, row_stride, column_stride)``: vector (r, c) from i + r row_stride + c column_stride."""
    result = tile_type(kind)
    check_array(x, result.vector)

    def body(code: Code, _: Any, array: Any, start: Any, row_step: Any, column_step: Any) -> Any:
        rows = [
            [code.load(x, array, at) for at in code.steps(row, column_step, result.columns)]
            for row in code.steps(start, row_step, result.rows)
        ]
        return result.pack(code.builder, rows)

    return result(kind, x, INDEX, INDEX, INDEX), emitter(result.vector, body)


@intrinsic
def tile_gather(
    typing: Any, kind: Any, x: Any, i: Any, row_stride: Any, column_stride: Any, lane_stride: Any, count: Any
) -> Any:
    """``tile_gather(kind, x, i, row_stride, column_stride, lane_stride, count)``: ``tile_load`` of scattered lanes.

    Lane k of vector (r, c) is x[i + r row_stride + c column_stride + k lane_stride]; from ``count`` (at least 1) on, 0.
    """
    result = tile_type(kind)
    check_array(x, result.vector)

    def body(code: Code, _: Any, array: Any, start: Any, row_step: Any, column_step: Any, *lanes: Any) -> Any:
        rows = [
            [code.gather(x, array, at, *lanes) for at in code.steps(row, column_step, result.columns)]
            for row in code.steps(start, row_step, result.rows)
        ]
        return result.pack(code.builder, rows)

    return result(kind, x, *[INDEX] * 5), emitter(result.vector, body)


@intrinsic
def tile_scatter(typing: Any, tile: Any, y: Any, i: Any, row_stride: Any, column_stride: Any) -> Any:
    """``tile_scatter(tile, y, i, row_stride, column_stride)``: stores where ``tile_load`` would load."""
    kind = check_tile(tile)
    check_array(y, kind.vector, written=True)

    def body(code: Code, value: Any, array: Any, start: Any, row_step: Any, column_step: Any) -> None:
        rows = kind.unpack(code.builder, value)
        for vectors, row in zip(rows, code.steps(start, row_step, kind.rows), strict=True):
            for item, at in zip(vectors, code.steps(row, column_step, kind.columns), strict=True):
                code.store(item, y, array, at)

    return types.void(tile, y, INDEX, INDEX, INDEX), emitter(kind.vector, body)


@intrinsic
def tile_load_part(
    typing: Any, kind: Any, x: Any, i: Any, row_stride: Any, column_stride: Any,
    top: Any, bottom: Any, left: Any, right: Any, count: Any,
) -> Any:  # fmt: skip
    """``tile_load_part(kind, x, i, row_stride, column_stride, top, bottom, left, right, count)``: a tile in a frame.

    As ``tile_load``, but only the first ``count`` lanes of vectors with top <= row < bottom and left <= column < right
    are loaded; all else is zero and isn't read.
    """
    result = tile_type(kind)
    check_array(x, result.vector)

    def body(code: Code, _: Any, array: Any, start: Any, row_step: Any, column_step: Any, *frame: Any) -> Any:
        rows = [
            [
                code.load_part(x, array, at, code.counted(r, c, *frame))
                for c, at in enumerate(code.steps(row, column_step, result.columns))
            ]
            for r, row in enumerate(code.steps(start, row_step, result.rows))
        ]
        return result.pack(code.builder, rows)

    return result(kind, x, *[INDEX] * 8), emitter(result.vector, body)


@intrinsic
def tile_scatter_part(
    typing: Any, tile: Any, y: Any, i: Any, row_stride: Any, column_stride: Any, rows: Any, columns: Any, count: Any
) -> Any:
    """``tile_scatter_part(tile, y, i, row_stride, column_stride, rows, columns, count)``: ``tile_scatter`` of a corner.

    Of the first ``rows`` rows and ``columns`` columns, the first ``count`` lanes are stored.
    """
    kind = check_tile(tile)
    check_array(y, kind.vector, written=True)

    def body(code: Code, value: Any, array: Any, start: Any, row_step: Any, column_step: Any, *corner: Any) -> None:
        nought = code.index(0)
        frame = nought, corner[0], nought, corner[1], corner[2]
        vectors = kind.unpack(code.builder, value)
        for r, row in enumerate(code.steps(start, row_step, kind.rows)):
            for c, at in enumerate(code.steps(row, column_step, kind.columns)):
                code.store_part(vectors[r][c], y, array, at, code.counted(r, c, *frame))

    return types.void(tile, y, *[INDEX] * 6), emitter(kind.vector, body)


@intrinsic
def tile_plus(typing: Any, tile: Any, other: Any) -> Any:
    """``tile_plus(tile, other)``: their sum, vector by vector."""
    kind = check_tile(tile)
    if other != kind:
        raise TypingError(f"simd.tile_plus: {tile} and {other} differ")

    def body(code: Code, *values: Any) -> Any:
        pairs = zip(*(kind.unpack(code.builder, value) for value in values), strict=True)
        return kind.pack(code.builder, [[code.add(a, b) for a, b in zip(*rows, strict=True)] for rows in pairs])

    return kind(tile, other), emitter(kind.vector, body)


@intrinsic
def tile_total(typing: Any, tile: Any) -> Any:
    """``tile_total(tile)``: the vector that is the sum of its vectors, added in halves."""
    kind = check_tile(tile)

    def body(code: Code, value: Any) -> Any:
        vectors = [item for row in kind.unpack(code.builder, value) for item in row]
        while len(vectors) > 1:
            pairs = zip(vectors[::2], vectors[1::2], strict=False)
            vectors = [code.add(a, b) for a, b in pairs] + vectors[len(vectors) // 2 * 2 :]
        return vectors[0]

    return kind.vector(tile), emitter(kind.vector, body)


@intrinsic
def tile_outer(typing: Any, tile: Any, x: Any, i: Any, stride: Any, w: Any, j: Any) -> Any:
    """``tile_outer(tile, x, i, stride, w, j)``: tile[r, :] + x[i + r stride] w[j : j + width], for each row r."""
    kind = check_tile(tile)
    correlate = _correlate(kind, 1, x, w)
    body = emitter(kind.vector, lambda code, *values: correlate(code, *values, code.index(0)))
    return kind(tile, x, INDEX, INDEX, w, INDEX), body


@intrinsic(prefer_literal=True)
def tile_outer_stacked(typing: Any, tile: Any, stretches: Any, x: Any, i: Any, stretch: Any, w: Any, j: Any) -> Any:
    """``tile_outer_stacked(tile, stretches, x, i, stretch, w, j)``: ``tile_outer`` of a column in pieces.

    The tile's rows meet x[i], x[i + 1], ..., then as many from x[i + stretch] on, and so on: ``stretches`` times.
    """
    kind = check_tile(tile)
    check_array(x, kind.vector)
    check_array(w, kind.vector)
    if not isinstance(stretches, types.IntegerLiteral) or kind.rows % stretches.literal_value:
        raise TypingError("simd.tile_outer_stacked: stretches must be a compile-time constant that divides the rows")
    count = stretches.literal_value

    def body(code: Code, value: Any, _: Any, x_array: Any, start: Any, step: Any, w_array: Any, j: Any) -> Any:
        one = code.index(1)
        indices = [at for first in code.steps(start, step, count) for at in code.steps(first, one, kind.rows // count)]
        weights = [code.load(w, w_array, at) for at in code.row(j, kind)]
        rows = [
            [code.fma(number, weight, item) for weight, item in zip(weights, old, strict=True)]
            for old, number in zip(
                kind.unpack(code.builder, value), (code.broadcast_at(x, x_array, at) for at in indices), strict=True
            )
        ]
        return kind.pack(code.builder, rows)

    return kind(tile, stretches, x, INDEX, INDEX, w, INDEX), emitter(kind.vector, body)


@intrinsic(prefer_literal=True)
def tile_correlate(typing: Any, tile: Any, taps: Any, x: Any, i: Any, stride: Any, w: Any, j: Any, tap: Any) -> Any:
    """``tile_correlate(tile, taps, x, i, stride, w, j, tap)``: the outer products of ``taps`` neighbours at once.

    tile[r, :] + sum over s < taps of x[i + (r + s) stride] w[j + s tap : ... + width]. Each number of x is read once
    and feeds every row that sees it: up to ``taps`` times fewer loads than as many outer products.
    """
    kind = check_tile(tile)
    if not isinstance(taps, types.IntegerLiteral):
        raise TypingError("simd.tile_correlate: taps must be a compile-time constant")
    correlate = _correlate(kind, taps.literal_value, x, w)
    body = emitter(kind.vector, lambda code, value, _, *values: correlate(code, value, *values))
    return kind(tile, taps, x, INDEX, _stride(stride, kind.rows + taps.literal_value - 1), w, INDEX, INDEX), body


def _correlate(kind: TileType, taps: int, x: Any, w: Any) -> Callable[..., Any]:
    check_array(x, kind.vector)
    check_array(w, kind.vector)

    def body(code: Code, value: Any, x_array: Any, i: Any, stride: Any, w_array: Any, j: Any, tap: Any) -> Any:
        weights = [[code.load(w, w_array, at) for at in code.row(j_tap, kind)] for j_tap in code.steps(j, tap, taps)]
        rows = kind.unpack(code.builder, value)
        for q, at in enumerate(code.steps(i, stride, kind.rows + taps - 1)):
            number = code.broadcast_at(x, x_array, at)
            for s in range(taps):
                if 0 <= q - s < kind.rows:
                    old = rows[q - s]
                    rows[q - s] = [code.fma(number, weight, item) for weight, item in zip(weights[s], old, strict=True)]
        return kind.pack(code.builder, rows)

    return body


@intrinsic(prefer_literal=True)
def tile_pixels(typing: Any, kind: Any, taps: Any, places: Any, k: Any, stride: Any) -> Any:
    """``tile_pixels(kind, taps, places, k, stride)``: where the pixels lie that the rows of a tile meet, as a tuple.

    With one tap they are listed: places[k], places[k + 1], ..., one for each row, anywhere. With more, neighbours share
    what they see, so they lie in a row: rows + taps - 1 pixels, ``stride`` apart, from places[k] on. The tuple is a
    stride for the other operations on tiles.
    """
    tile = tile_type(kind)
    if not isinstance(taps, types.IntegerLiteral):
        raise TypingError("simd.tile_pixels: taps must be a compile-time constant")
    if not (isinstance(places, types.Array) and places.ndim == 1 and places.layout == "C" and places.dtype == INDEX):
        raise TypingError(f"simd.tile_pixels: expected a one-dimensional contiguous array of {INDEX}, got {places}")
    count, listed = tile.rows + taps.literal_value - 1, taps.literal_value == 1

    def body(code: Code, _: Any, __: Any, array: Any, start: Any, step: Any) -> Any:
        if listed:
            indices = [code.builder.load(code.pointer(places, array, code.builder.add(start, code.index(r))))
                       for r in range(count)]  # fmt: skip
        else:
            indices = code.steps(code.builder.load(code.pointer(places, array, start)), step, count)
        result = ir.Constant(ir.ArrayType(indices[0].type, count), ir.Undefined)
        for r, index in enumerate(indices):
            result = code.builder.insert_value(result, index, r)
        return result

    return types.UniTuple(INDEX, count)(kind, taps, places, INDEX, INDEX), emitter(tile.vector, body)


@intrinsic
def tile_store(typing: Any, tile: Any, y: Any, i: Any, stride: Any) -> Any:
    """``tile_store(tile, y, i, stride)``: y[i + r stride : ... + width] = tile[r, :], for each row r."""
    kind = check_tile(tile)
    check_array(y, kind.vector, written=True)

    def body(code: Code, value: Any, array: Any, start: Any, step: Any) -> None:
        rows = kind.unpack(code.builder, value)
        for vectors, row in zip(rows, code.steps(start, step, kind.rows), strict=True):
            for item, at in zip(vectors, code.row(row, kind), strict=True):
                code.store(item, y, array, at)

    return types.void(tile, y, INDEX, _stride(stride, kind.rows)), emitter(kind.vector, body)


@intrinsic
def tile_prefetch(typing: Any, kind: Any, y: Any, i: Any, stride: Any) -> Any:
    """``tile_prefetch(kind, y, i, stride)``: fetches the cache lines that ``tile_store`` will write there.

    To be asked for before the tile is computed: a store to a line that isn't there waits for memory, and many of them
    block the processor. It is only a hint; no address is too far.
    """
    tile = tile_type(kind)
    check_array(y, tile.vector)

    def body(code: Code, _: Any, array: Any, start: Any, step: Any) -> None:
        for row in code.steps(start, step, tile.rows):
            for at in code.row(row, tile):
                code.prefetch(y, array, at, written=True)

    return types.void(kind, y, INDEX, _stride(stride, tile.rows)), emitter(tile.vector, body)


@intrinsic
def tile_store_part(typing: Any, tile: Any, y: Any, i: Any, stride: Any, count: Any) -> Any:
    """``tile_store_part(tile, y, i, stride, count)``: ``tile_store`` of the first ``count`` numbers of each row."""
    kind = check_tile(tile)
    check_array(y, kind.vector, written=True)

    def body(code: Code, value: Any, array: Any, start: Any, step: Any, valid: Any) -> None:
        counts = [code.builder.sub(valid, code.index(c * kind.vector.lanes)) for c in range(kind.columns)]
        rows = kind.unpack(code.builder, value)
        for vectors, row in zip(rows, code.steps(start, step, kind.rows), strict=True):
            for item, at, count in zip(vectors, code.row(row, kind), counts, strict=True):
                code.store_part(item, y, array, at, count)

    return types.void(tile, y, INDEX, _stride(stride, kind.rows), INDEX), emitter(kind.vector, body)


@intrinsic
def tile_add(typing: Any, tile: Any, y: Any, i: Any, stride: Any, first: Any) -> Any:
    """``tile_add(tile, y, i, stride, first)``: y[i + r stride : ... + width] += tile[r, :] for rows r >= first."""
    kind = check_tile(tile)
    check_array(y, kind.vector, written=True)

    def body(code: Code, value: Any, array: Any, start: Any, step: Any, first_row: Any) -> None:
        rows = kind.unpack(code.builder, value)
        for r, row in enumerate(code.steps(start, step, kind.rows)):
            with code.builder.if_then(code.builder.icmp_signed(">=", code.index(r), first_row), likely=True):
                for item, at in zip(rows[r], code.row(row, kind), strict=True):
                    code.store(code.builder.fadd(code.load(y, array, at), item), y, array, at)

    return types.void(tile, y, INDEX, _stride(stride, kind.rows), INDEX), emitter(kind.vector, body)


@intrinsic
def tile_sandwich(typing: Any, matrix: Any, tile: Any) -> Any:
    """``tile_sandwich(m, tile)``: m tile m^T, lane by lane, for a constant Matrix m with as many columns as tile rows.

    It compiles to sums; multiplications by 0 and 1 vanish, and what rows and columns share is computed once.
    """
    kind = check_tile(tile)
    if not (isinstance(matrix, Constant) and isinstance(matrix.value, Matrix)):
        raise TypingError(f"simd.tile_sandwich: expected a Matrix, got {matrix}")
    rows = matrix.value.rows
    if kind.rows != kind.columns or any(len(row) != kind.rows for row in rows):
        raise TypingError(f"simd.tile_sandwich: a {len(rows)} x {len(rows[0])} matrix cannot transform {kind}")
    result = TileType(Tile(kind.kind.vector, len(rows), len(rows)))

    def body(code: Code, _: Any, value: Any) -> Any:
        columns = zip(*kind.unpack(code.builder, value), strict=True)
        halfway = [_multiply(code, rows, list(column)) for column in columns]  # the columns of m tile
        return result.pack(code.builder, [_multiply(code, rows, list(row)) for row in zip(*halfway, strict=True)])

    return result(matrix, tile), emitter(kind.vector, body)


def _multiply(code: Code, matrix: tuple[tuple[float, ...], ...], vectors: list[Any]) -> list[Any]:
    """``matrix`` times a column of vectors; what two columns or two rows have in common is computed once.

    Columns k and m with entries equal up to the sign meet the vectors as x_k + x_m and x_k - x_m. Rows even + odd and
    even - odd, whose halves use different vectors, are a sum and a difference of these halves, of which odd / scale is
    computed: the multiplication by scale costs nothing as part of a multiply-add.
    """
    columns, vectors = [list(column) for column in zip(*matrix, strict=True)], list(vectors)
    for k, m in itertools.combinations(range(len(columns)), 2):
        same, opposite = _halves(columns[k], columns[m])
        if any(same) and any(opposite) and not any(a and b for a, b in zip(same, opposite, strict=True)):
            columns[k], columns[m] = same, opposite
            vectors[k], vectors[m] = code.add(vectors[k], vectors[m]), code.subtract(vectors[k], vectors[m])
    rows = [list(row) for row in zip(*columns, strict=True)]
    results: list[Any] = [None] * len(rows)
    for k, m in itertools.combinations(range(len(rows)), 2):
        even, odd = _halves(rows[k], rows[m])
        if any(even) and any(odd) and not any(a and b for a, b in zip(even, odd, strict=True)):
            scale = next(weight for weight in reversed(odd) if weight)
            half, other = (
                _weighted_sum(code, weights, vectors) for weights in (even, [weight / scale for weight in odd])
            )
            results[k] = _weighted_sum(code, [1.0, scale], [half, other])
            results[m] = _weighted_sum(code, [1.0, -scale], [half, other])
    return [
        _weighted_sum(code, row, vectors) if result is None else result
        for row, result in zip(rows, results, strict=True)
    ]


def _halves(a: list[float], b: list[float]) -> tuple[list[float], list[float]]:
    """(a + b) / 2 and (a - b) / 2."""
    return [(p + q) / 2 for p, q in zip(a, b, strict=True)], [(p - q) / 2 for p, q in zip(a, b, strict=True)]


def _weighted_sum(code: Code, weights: list[float], vectors: list[Any]) -> Any:
    """The sum of weight times vector; a weight that all terms share is factored out, and 1 and 0 cost nothing."""
    terms = [(weight, vector) for weight, vector in zip(weights, vectors, strict=True) if weight]
    common = abs(terms[0][0]) if all(abs(weight) == abs(terms[0][0]) for weight, _ in terms) else 1.0
    terms.sort(key=lambda term: term[0] != common)  # start from a term that needs no multiplication
    result = None
    for weight, item in terms:
        factor = weight / common
        if result is None:
            result = item if factor == 1 else code.multiply(item, code.kind.constant(factor))
        elif factor == 1:
            result = code.add(result, item)
        elif factor == -1:
            result = code.subtract(result, item)
        else:
            result = code.fma(item, code.kind.constant(factor), result)
    return result if common == 1 else code.multiply(result, code.kind.constant(common))
