"""Vectors and register tiles against plain NumPy, at every width: LLVM splits vectors wider than the processor's."""

import subprocess
import sys

import numpy as np
import pytest
from numba import njit, prange
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


@njit(parallel=True)
def in_threads(kind, x, y):
    for part in prange(x.size // kind.lanes):
        simd.store(2 * simd.load(kind, x, part * kind.lanes), y, part * kind.lanes)


def test_constants_pass_into_threads(kind, rng):
    x = rng.standard_normal(4 * kind.lanes).astype(kind.dtype)
    y = np.empty_like(x)
    in_threads(kind, x, y)
    np.testing.assert_array_equal(y, 2 * x)


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
from numba import njit
from minires_kernels import simd

@njit(cache=True)
def double(kind, x, y):
    simd.store(2 * simd.load(kind, x, 0), y, 0)

if __name__ == "__main__":
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
    hits = [subprocess.run([sys.executable, script], capture_output=True, text=True, check=True) for _ in range(2)]
    assert [int(run.stdout) for run in hits] == [0, 2]
