"""Vectors and register tiles against plain NumPy, at every width: LLVM splits vectors wider than the processor's."""

import os
import subprocess
import sys

import numpy as np
import pytest
from numba import njit
from numba.core.errors import TypingError

from minires_kernels import simd
from minires_kernels.simd import kinds

WIDTHS = (64, 32, 16, 1)


@pytest.fixture(params=[(width, dtype) for width in WIDTHS for dtype in ("float32", "float64")], ids=str)
def kind(request, monkeypatch):
    width, dtype = request.param
    monkeypatch.setattr(kinds, "REGISTER_BYTES", width)
    return simd.vector(dtype)


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@njit
def elementwise(kind, number, x, y, out):
    n = kind.lanes
    for i in range(0, x.size, n):
        a, b = simd.load(kind, x, i), simd.load(kind, y, i)
        simd.store(number * a + b - 2, out, i)
        simd.store(a / b, out, x.size + i)
        simd.store(simd.fma(a, b, simd.broadcast(kind, number)), out, 2 * x.size + i)
        simd.store(simd.maximum(a, b), out, 3 * x.size + i)
        simd.store(simd.gate(a, b), out, 4 * x.size + i)
        simd.store(simd.where_greater(a, simd.zero(kind), b, a), out, 5 * x.size + i)


def test_vector_arithmetic_is_numpy_arithmetic(kind, rng):
    x, y = (rng.standard_normal(32).astype(kind.dtype) for _ in range(2))
    out = np.empty((6, 32), kind.dtype)
    elementwise(kind, 3, x, y, out.reshape(-1))
    expected = [3 * x + y - 2, x / y, x * y + 3, np.maximum(x, y), np.where(y > 0, x, 0), np.where(x > 0, y, x)]
    np.testing.assert_allclose(out, np.array(expected), rtol=20 * np.finfo(kind.dtype).eps, atol=1e-6)
    np.testing.assert_array_equal(out[3:], np.array(expected[3:]))


@njit
def maximum_with_zero(kind, x, out):
    simd.store(simd.maximum(simd.load(kind, x, 0), simd.zero(kind)), out, 0)


@njit
def gated(kind, x, y, out):
    simd.store(simd.gate(simd.load(kind, x, 0), simd.load(kind, y, 0)), out, 0)


@pytest.mark.parametrize(
    ("number", "passes"), [(1e-40, True), (0.0, False), (-0.0, False), (np.nan, True), (-np.inf, False)]
)
def test_a_gate_chooses_and_lets_through_where_it_is_nan(kind, number, passes):
    x, out = np.full(kind.lanes, np.inf, kind.dtype), np.full(kind.lanes, 7, kind.dtype)
    gated(kind, x, np.full(kind.lanes, number, kind.dtype), out)
    np.testing.assert_array_equal(out, np.inf if passes else 0)


def test_maximum_keeps_a_nan_of_its_first_operand(kind):
    x = np.full(kind.lanes, np.nan, kind.dtype)
    out = np.zeros_like(x)
    maximum_with_zero(kind, x, out)
    assert np.isnan(out).all()


@njit
def fold(kind, x):
    return simd.total(simd.load(kind, x, 0)), simd.largest(simd.load(kind, x, 0))


def test_folds_cover_every_lane(kind, rng):
    x = rng.standard_normal(kind.lanes).astype(kind.dtype)
    assert fold(kind, x) == pytest.approx((x.sum(), x.max()), rel=1e-5)


@njit
def copy_part(kind, x, y, count):
    part = simd.load_part(kind, x, 0, count)
    simd.store(part, y, 0)
    simd.store_part(part + 1, y, kind.lanes, count)


def test_parts_read_and_write_only_their_lanes(kind):
    for count in range(kind.lanes + 1):
        x = np.full(kind.lanes, np.nan, kind.dtype)
        x[:count] = range(count)
        y = np.full(2 * kind.lanes, 7.0, kind.dtype)
        copy_part(kind, x, y, count)
        loaded, stored = y[: kind.lanes], y[kind.lanes :]
        np.testing.assert_array_equal(loaded, [*range(count), *[0] * (kind.lanes - count)])
        np.testing.assert_array_equal(stored, [*range(1, count + 1), *[7] * (kind.lanes - count)])


@njit
def product(tile, x, w, y, C):
    accumulators = simd.tile_zero(tile)
    for c in range(C):
        accumulators = simd.tile_outer(accumulators, x, c, C, w, c * tile.width)
    simd.tile_store(accumulators, y, 0, tile.width)


@pytest.mark.parametrize(("rows", "columns"), [(1, 1), (3, 2), (5, 3)])
def test_outer_products_sum_to_a_matrix_product(kind, rng, rows, columns):
    tile = simd.Tile(kind, rows, columns)
    x = rng.standard_normal((rows, 7)).astype(kind.dtype)
    w = rng.standard_normal((7, tile.width)).astype(kind.dtype)
    y = np.empty((rows, tile.width), kind.dtype)
    product(tile, x.reshape(-1), w.reshape(-1), y.reshape(-1), 7)
    np.testing.assert_allclose(y, x @ w, rtol=1e-5, atol=1e-5)


@njit
def correlation(tile, x, w, y):
    accumulators = simd.tile_correlate(simd.tile_zero(tile), tile.taps, x, 0, 1, w, 0, tile.width)
    simd.tile_store(accumulators, y, 0, tile.width)


@pytest.mark.parametrize("taps", [1, 3])
def test_correlate_shares_neighbours(kind, rng, taps):
    tile = simd.Tile(kind, 4, 2, taps)
    x = rng.standard_normal(4 + taps - 1).astype(kind.dtype)
    w = rng.standard_normal((taps, tile.width)).astype(kind.dtype)
    y = np.empty((4, tile.width), kind.dtype)
    correlation(tile, x, w.reshape(-1), y.reshape(-1))
    expected = [sum(x[r + s] * w[s] for s in range(taps)) for r in range(4)]
    np.testing.assert_allclose(y, expected, rtol=1e-5, atol=1e-5)


@njit
def move(tile, x, y, stride, count, first):
    loaded = simd.tile_load(tile, x, 0, tile.width, tile.vector.lanes)
    simd.tile_store_part(loaded, y, 0, stride, count)
    simd.tile_add(loaded, y, tile.rows * stride, stride, first)
    simd.tile_scatter(loaded, y, 2 * tile.rows * stride, tile.vector.lanes, tile.rows * tile.vector.lanes)


def test_tiles_move_between_memory_and_registers(kind, rng):
    tile = simd.Tile(kind, 3, 2)
    stride, count, first = tile.width + 1, tile.width - 1, 1
    x = rng.standard_normal((3, tile.width)).astype(kind.dtype)
    y = np.full(3 * 3 * stride, 5, kind.dtype)
    move(tile, x.reshape(-1), y, stride, count, first)
    part, added = y[: 6 * stride].reshape(2, 3, stride)
    np.testing.assert_array_equal(part[:, :count], x[:, :count])
    np.testing.assert_array_equal(part[:, count:], 5)
    np.testing.assert_array_equal(added[first:, :-1], x[first:] + 5)
    assert (added[:first] == 5).all()
    assert (added[:, -1] == 5).all()
    by_column = y[6 * stride : 6 * stride + x.size].reshape(2, 3, kind.lanes)
    np.testing.assert_array_equal(by_column.transpose(1, 0, 2).reshape(x.shape), x)


@njit
def sandwich(tile, matrix, result, x, y):
    loaded = simd.tile_load(tile, x, 0, tile.width, tile.vector.lanes)
    simd.tile_store(simd.tile_sandwich(matrix, loaded), y, 0, result.width)


@pytest.mark.parametrize(
    "rows",
    [
        ((1, 0, 2), (0, -1, 0.5), (3, 3, 3), (-4, 0, 0)),
        ((4, 0, -5, 0, 1, 0), (0, -4, -4, 1, 1, 0), (0, 4, -4, -1, 1, 0)),  # rows that mirror each other
        ((1, 1, 1, 1, 1, 0), (0, 1, -1, 2, -2, 0), (0, 1, 1, 4, 4, 0)),  # columns that do
    ],
)
def test_sandwich_transforms_both_sides(kind, rng, rows):
    matrix = np.array(rows, float)
    m, n = matrix.shape
    x = rng.standard_normal((n, n, kind.lanes)).astype(kind.dtype)
    y = np.empty((m, m, kind.lanes), kind.dtype)
    sandwich(simd.Tile(kind, n, n), simd.Matrix(rows), simd.Tile(kind, m, m), x.reshape(-1), y.reshape(-1))
    np.testing.assert_allclose(y, np.einsum("ai,ijk,bj->abk", matrix, x, matrix), rtol=1e-4, atol=1e-4)


def test_vector_takes_no_more_lanes_than_asked(monkeypatch):
    monkeypatch.setattr(kinds, "REGISTER_BYTES", 64)
    assert [simd.vector("float32", most).lanes for most in (None, 1, 2, 3, 5, 16, 100)] == [16, 1, 2, 4, 8, 16, 16]
    assert simd.vector("float64").lanes == 8


@pytest.mark.parametrize(
    ("build", "error", "message"),
    [
        (lambda: simd.vector("int32"), TypeError, "float32 or float64, got int32"),
        (lambda: simd.Vector("float32", 3), ValueError, "power of two, got 3"),
        (lambda: simd.Tile(simd.Vector("float32", 4), 0, 1), ValueError, "at least 1"),
    ],
)
def test_kinds_reject_what_no_register_holds(build, error, message):
    with pytest.raises(error, match=message):
        build()


@njit
def load_first(kind, x):
    return simd.total(simd.load(kind, x, 0))


@njit
def store_first(kind, x, y):
    simd.store(simd.load(kind, x, 0), y, 0)


def test_compiling_names_the_array_that_does_not_fit():
    kind = simd.Vector("float32", 4)
    with pytest.raises(TypingError, match="one-dimensional contiguous array of float32"):
        load_first(kind, np.zeros(8))
    with pytest.raises(TypingError, match="one-dimensional contiguous array"):
        load_first(kind, np.zeros(8, np.float32)[::2])
    frozen = np.zeros(4, np.float32)
    frozen.flags.writeable = False
    with pytest.raises(TypingError, match="read-only"):
        store_first(kind, np.zeros(4, np.float32), frozen)


CACHED = """
import numpy as np
from minires_kernels import simd
from minires_kernels.jit import njit

@njit
def double(kind, x, y):
    simd.store(2 * simd.load(kind, x, 0), y, 0)

x = np.ones(16, np.float32)
y = np.zeros_like(x)
for lanes in (4, 8):
    y[:] = 0
    double(simd.Vector("float32", lanes), x, y)
    assert y.sum() == 2 * lanes
print(sum(double.stats.cache_hits.values()))
"""


def test_a_second_process_loads_each_width_from_the_cache(tmp_path):
    script = tmp_path / "cached.py"
    script.write_text(CACHED)
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path)}
    command = [sys.executable, script]
    hits = [subprocess.run(command, env=environment, capture_output=True, text=True, check=True) for _ in range(2)]
    assert [int(run.stdout) for run in hits] == [0, 2]


@njit
def gathered(kind, tile, x, y, stride, count):
    simd.store(simd.gather(kind, x, 1, stride, count), y, 0)
    simd.tile_store(simd.tile_gather(tile, x, 0, 2, 1, stride, count), y, kind.lanes, tile.width)


def test_gather_reads_strided_numbers_and_nothing_beyond(kind, rng):
    tile, stride = simd.Tile(kind, 2, 2), 5
    for count in {1, max(1, kind.lanes // 2), kind.lanes}:
        x = rng.standard_normal(stride * (count - 1) + 4).astype(kind.dtype)
        y = np.full(5 * kind.lanes, np.nan, kind.dtype)
        gathered(kind, tile, x, y, stride, count)
        vectors = y.reshape(5, kind.lanes)
        for vector, start in zip(vectors, (1, 0, 1, 2, 3), strict=True):
            np.testing.assert_array_equal(vector[:count], x[start::stride][:count])
        assert not vectors[:, count:].any()


@njit
def summed(tile, x, y):
    simd.store(simd.tile_total(simd.tile_load(tile, x, 0, tile.width, tile.vector.lanes)), y, 0)


@pytest.mark.parametrize(("rows", "columns"), [(1, 1), (1, 2), (3, 1), (3, 3), (4, 4), (2, 5)])
def test_the_total_of_a_tile_is_the_sum_of_its_vectors(kind, rows, columns):
    x = np.arange(rows * columns * kind.lanes, dtype=kind.dtype)
    y = np.empty(kind.lanes, kind.dtype)
    summed(simd.Tile(kind, rows, columns), x, y)
    np.testing.assert_array_equal(y, x.reshape(-1, kind.lanes).sum(0))


@njit
def framed(tile, x, y, top, bottom, left, right, rows, columns, count):
    loaded = simd.tile_load_part(tile, x, 0, tile.width, tile.vector.lanes, top, bottom, left, right, count)
    simd.tile_store(simd.tile_plus(loaded, loaded), y, 0, tile.width)
    simd.tile_scatter_part(
        loaded, y, tile.rows * tile.width, tile.width, tile.vector.lanes, rows, columns, tile.vector.lanes
    )


def test_a_frame_keeps_loads_and_stores_inside(kind, rng):
    tile = simd.Tile(kind, 3, 4)
    for count in {1, kind.lanes}:
        x = rng.standard_normal((3, 4, kind.lanes)).astype(kind.dtype)
        y = np.full((2, 3, 4, kind.lanes), 7, kind.dtype)
        framed(tile, x.reshape(-1), y.reshape(-1), 1, 3, -2, 2, 2, 3, count)
        expected = np.zeros_like(x)
        expected[1:3, :2, :count] = x[1:3, :2, :count]
        np.testing.assert_array_equal(y[0], 2 * expected)
        np.testing.assert_array_equal(y[1, :2, :3], expected[:2, :3])
        assert (y[1, 2] == 7).all()
        assert (y[1, :, 3] == 7).all()


@njit
def hinted(kind, tile, x, far):
    simd.prefetch(kind, x, far)
    simd.tile_prefetch(tile, x, far, far)
    return simd.total(simd.load(kind, x, 0))


def test_prefetching_any_address_changes_nothing(kind):
    x = np.ones(kind.lanes, kind.dtype)
    assert hinted(kind, simd.Tile(kind, 2, 2), x, 1 << 40) == kind.lanes


@njit
def added(kind, numbers, y):
    numbers[0] += kind.lanes
    simd.store(simd.broadcast(kind, y[0] + 1), y, 0)


@njit
def by_address(pointer, numbers, y):
    simd.call(pointer, (numbers, y))


def test_a_function_is_called_by_its_address(kind):
    numbers, y = np.zeros(1, np.int64), np.zeros(kind.lanes, kind.dtype)
    pointer = simd.address(added, kind, numbers, y)
    assert pointer == simd.address(added, kind, np.ones(9, np.int64), y)
    by_address(pointer, numbers, y)
    by_address(pointer, numbers, y)
    assert numbers[0] == 2 * kind.lanes
    assert (y == 2).all()


@njit
def call_without_arguments(pointer):
    simd.call(pointer, 3)


def test_call_wants_its_arguments_in_a_tuple():
    with pytest.raises(TypingError, match="expected an address and a tuple of arguments"):
        call_without_arguments(0)


@njit
def stacked(tile, x, w, y):
    products = simd.tile_outer_stacked(simd.tile_zero(tile), tile.taps, x, 1, 7, w, 0)
    simd.tile_store(products, y, 0, tile.width)


def test_stacked_outer_products_take_their_rows_from_stretches(kind, rng):
    tile = simd.Tile(kind, 6, 2, 3)
    x, w = rng.standard_normal(17).astype(kind.dtype), rng.standard_normal(tile.width).astype(kind.dtype)
    y = np.empty((6, tile.width), kind.dtype)
    stacked(tile, x, w, y.reshape(-1))
    np.testing.assert_allclose(y, np.outer(x[[1, 2, 8, 9, 15, 16]], w), rtol=1e-6)


@njit
def at_listed_pixels(tile, places, x, w, y):
    pixels = simd.tile_pixels(tile, tile.taps, places, 1, 3)
    sums = simd.tile_correlate(simd.tile_zero(tile), tile.taps, x, 1, pixels, w, 0, tile.width)
    listed = simd.tile_pixels(tile, 1, places, 1, 0)
    simd.tile_prefetch(tile, y, 0, listed)
    simd.tile_store(sums, y, 0, listed)
    simd.tile_add(sums, y, tile.width, listed, 1)
    simd.tile_store_part(sums, y, 2 * tile.width, listed, 1)


@pytest.mark.parametrize("taps", [1, 2])
def test_pixels_of_a_tile_may_be_listed(kind, rng, taps):
    tile = simd.Tile(kind, 3, 2, taps)
    width = tile.width
    x, w = rng.standard_normal(40).astype(kind.dtype), rng.standard_normal(2 * width).astype(kind.dtype)
    places = np.array([99, 4, 31, 12]) * 3 * width
    y = np.zeros(100 * 3 * width, kind.dtype)
    at_listed_pixels(tile, places, np.resize(x, 300 * width), w, y)
    x = np.resize(x, 300 * width).astype(np.float64)
    seen = places[1:] if taps == 1 else places[1] + 3 * np.arange(4)  # neighbours where taps share what they see
    sums = [sum(x[1 + seen[r + s]] * w[s * width : (s + 1) * width] for s in range(taps)) for r in range(3)]
    expected = np.zeros((100, 3, width))
    expected[[4, 31, 12], 0] = sums
    expected[[31, 12], 1] = sums[1:]
    expected[[4, 31, 12], 2, 0] = np.array(sums)[:, 0]
    np.testing.assert_allclose(y.reshape(100, 3, width), expected, rtol=1e-5, atol=1e-6)


@njit
def at_places_of_another_tile(tile, other, places, y):
    simd.tile_store(simd.tile_zero(tile), y, 0, simd.tile_pixels(other, 1, places, 0, 0))


def test_there_is_a_place_for_each_row():
    tile, other, y = (*(simd.Tile(simd.Vector("float32", 4), rows, 1) for rows in (3, 4)), np.zeros(16, np.float32))
    with pytest.raises(TypingError, match="expected an integer or 3 places for a stride"):
        at_places_of_another_tile(tile, other, np.arange(4), y)
    with pytest.raises(TypingError, match="one-dimensional contiguous array of int64"):
        at_places_of_another_tile(tile, tile, np.arange(4.0), y)


@njit
def unevenly_stacked(tile, x, w, y):
    simd.tile_store(simd.tile_outer_stacked(simd.tile_zero(tile), 4, x, 1, 7, w, 0), y, 0, tile.width)


def test_stretches_must_divide_the_rows():
    tile, x = simd.Tile(simd.Vector("float32", 4), 6, 1), np.zeros(100, np.float32)
    with pytest.raises(TypingError, match="divides the rows"):
        unevenly_stacked(tile, x, x, x)
