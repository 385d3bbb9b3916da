"""What the contract cannot see of the direct convolution: widths, blocks, threads, scratch, the cache on disk."""

import os
import subprocess
import sys

import numba
import numpy as np
import pytest

from minires_kernels import Window, arena
from minires_kernels.convolution import _geometry, _plans, numba_cpu
from minires_kernels.convolution._kept import PLANS
from minires_kernels.simd import kinds, registers, vector
from tests.kernels.cases import convolved


@pytest.fixture
def fresh_plans():
    """Plans made under a test's settings stay in the test."""
    PLANS.clear()
    yield
    PLANS.clear()


def arguments(rng, x_shape, O, window, groups=1, dtype="float32"):
    x = rng.standard_normal(x_shape).astype(dtype)
    weight = rng.standard_normal((O, x_shape[1] // groups, *window.size)).astype(dtype)
    grad_output = rng.standard_normal((x_shape[0], O, *window.output_size(*x_shape[2:]))).astype(dtype)
    return x, weight, grad_output


def all_three(x, weight, grad_output, window, groups=1):
    return (
        numba_cpu.forward(x, weight, window, groups),
        numba_cpu.grad_input(grad_output, weight, x.shape, window, groups),
        numba_cpu.grad_weight(grad_output, x, window, groups),
    )


def assert_right(results, x, weight, grad_output, window, groups=1):
    expected = convolved(x, weight, grad_output, window, groups)
    limit = 2e-6 if x.dtype == np.float32 else 1e-14
    for result, value in zip(results, expected, strict=True):
        np.testing.assert_allclose(result, value, rtol=0, atol=limit * abs(value).max())


@pytest.mark.parametrize("register_bytes", [64, 32, 16, 1])
@pytest.mark.parametrize(
    ("x_shape", "O", "window", "groups", "dtype"),
    [
        ((2, 9, 4, 7), 17, Window.of(3, padding=1), 1, "float32"),
        ((2, 9, 4, 7), 17, Window.of(3, padding=1), 1, "float64"),
        ((1, 5, 7, 6), 8, Window.of((3, 2), stride=2, padding=1), 1, "float32"),
        ((1, 6, 5, 7), 4, Window.of(3, padding=2, dilation=2), 2, "float64"),
    ],
    ids=str,
)
def test_every_width_gives_the_same_convolution(monkeypatch, rng, register_bytes, x_shape, O, window, groups, dtype):
    monkeypatch.setattr(kinds, "REGISTER_BYTES", register_bytes)
    x, weight, grad_output = arguments(rng, x_shape, O, window, groups, dtype)
    results = all_three(x, weight, grad_output, window, groups)
    assert_right(results, x, weight, grad_output, window, groups)


@pytest.mark.parametrize("window", [Window.of(3, padding=1), Window.of(3, stride=2, padding=1)], ids=str)
@pytest.mark.parametrize("packed_bytes", [1, 3000, 20000])
def test_bands_and_blocks_of_images_change_no_result(monkeypatch, fresh_plans, rng, window, packed_bytes):
    x, weight, grad_output = arguments(rng, (5, 7, 9, 8), 6, window)
    whole = all_three(x, weight, grad_output, window)
    assert_right(whole, x, weight, grad_output, window)
    PLANS.clear()
    monkeypatch.setattr(_geometry, "PACKED_BYTES", packed_bytes)
    cut = all_three(x, weight, grad_output, window)
    np.testing.assert_array_equal(cut[0], whole[0])
    np.testing.assert_array_equal(cut[1], whole[1])
    np.testing.assert_allclose(cut[2], whole[2], rtol=0, atol=2e-6 * abs(whole[2]).max())


def test_scratch_left_from_another_geometry_is_never_read(rng):
    geometries = [((2, 3, 9, 6), 5, 2), ((1, 4, 4, 4), 17, 1), ((3, 2, 6, 11), 3, 1), ((2, 128, 5, 4), 136, 2)]
    windows = [Window.of(3, stride=stride, padding=1) for *_, stride in geometries]
    calls = [
        (*arguments(rng, x_shape, O, window), window)
        for (x_shape, O, _), window in zip(geometries, windows, strict=True)
    ]
    for call in calls * 2:
        for buffer in arena._buffers.by_role.values():
            buffer[: buffer.size // 4 * 4].view(np.float32)[...] = np.nan
        assert_right(all_three(*call), *call)


@pytest.mark.parametrize(
    ("x_shape", "O", "stride", "register_bytes"),
    [
        ((5, 8, 5, 5), 24, 2, 64),  # rows of 3 pixels, and tiles that cross them and the images
        ((5, 8, 5, 5), 24, 2, 32),
        ((1, 8, 1, 2), 64, 2, 32),  # one pixel: fewer than a tile has rows
        ((1, 640, 2, 3), 48, 2, 32),  # the same, and panels larger than the first-level cache
        ((1, 640, 2, 3), 48, 2, 16),
        ((3, 96, 7, 4), 128, 2, 64),  # pixels that collide in the cache are moved apart
        ((3, 64, 3, 5), 192, 1, 32),
    ],
    ids=str,
)
def test_few_pixels_and_many_channels(monkeypatch, fresh_plans, rng, x_shape, O, stride, register_bytes):
    monkeypatch.setattr(kinds, "REGISTER_BYTES", register_bytes)
    window = Window.of(3, stride=stride, padding=1)
    x, weight, grad_output = arguments(rng, x_shape, O, window, dtype="float64")  # sums of up to 5760 products
    assert_right(all_three(x, weight, grad_output, window), x, weight, grad_output, window)


def test_only_colliding_pixels_are_moved_apart():
    assert [_geometry.pitch_of(C, stride, 4) for C, stride in ((128, 1), (64, 2), (64, 1), (96, 1))] == [
        144,
        80,
        64,
        96,
    ]


@pytest.mark.skipif(numba.config.NUMBA_NUM_THREADS < 2, reason="one thread is all that this process may use")
def test_the_number_of_threads_changes_only_the_order_of_the_weights_sums(rng):
    window = Window.of(3, padding=1)
    x, weight, grad_output = arguments(rng, (5, 6, 8, 8), 10, window)
    threads = numba.get_num_threads()
    results = {}
    try:
        for count in (1, 2):
            numba.set_num_threads(count)
            results[count] = all_three(x, weight, grad_output, window)
            np.testing.assert_array_equal(numba_cpu.grad_weight(grad_output, x, window), results[count][2])
    finally:
        numba.set_num_threads(threads)
    np.testing.assert_array_equal(results[1][0], results[2][0])
    np.testing.assert_array_equal(results[1][1], results[2][1])
    np.testing.assert_allclose(results[1][2], results[2][2], rtol=0, atol=2e-6 * abs(results[1][2]).max())


def test_one_image_is_shared_among_threads(rng):
    plan = _plans.plan_forward((1, 4, 16, 16), (4, 4, 3, 3), Window.of(3, padding=1), 1, "float32", 3, 64)
    assert plan.scan[0]["bands"] >= 3


@pytest.mark.parametrize("K", [1, 2, 3, 5])
@pytest.mark.parametrize("S", [1, 2, 3])
@pytest.mark.parametrize("D", [1, 2, 3])
def test_phases_meet_every_window_and_tap_once(K, S, D):
    for P in range(4):
        for length in range(1, 9):
            met = []
            for phase in _geometry.grad_input_phases(K, S, P, D, length):
                assert phase.count == len(range(phase.offset, length, S))
                for a in range(phase.count):
                    step = D // np.gcd(S, D)
                    met += [(phase.offset + a * S, k, phase.start + a + t * step) for t, k in enumerate(phase.taps)]
            expected = [
                (h, k, (h + P - k * D) // S) for h in range(length) for k in range(K) if (h + P - k * D) % S == 0
            ]
            assert sorted(met) == sorted(expected)


@pytest.mark.parametrize("register_bytes", [64, 32, 16, 1])
@pytest.mark.parametrize("taps", [1, 3])
def test_a_tile_fits_the_registers_and_the_row(monkeypatch, register_bytes, taps):
    monkeypatch.setattr(kinds, "REGISTER_BYTES", register_bytes)
    for width in (1, 3, 16, 40, 64, 512):
        for row in (1, 2, 7, 8, 14, 32, 224):
            _, tile = _geometry.best_tile(vector("float32", width), {row}, width, taps=taps)
            assert tile.rows <= row
            assert tile.columns == 1 or (tile.rows + taps) * tile.columns < registers()


SECOND_PROCESS = """
import numpy as np
from minires_kernels import Window
from minires_kernels.convolution import _direct, numba_cpu

x, weight = np.ones((2, 3, 6, 5), np.float32), np.ones((4, 3, 3, 3), np.float32)
y = numba_cpu.forward(x, weight, Window.of(3, padding=1))
assert y[0, 0, 2, 2] == 27
print(sum(_direct.window_sums.stats.cache_hits.values()), sum(_direct.window_sums.stats.cache_misses.values()))
"""


def test_a_second_process_compiles_nothing(tmp_path):
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path)}
    command = [sys.executable, "-c", SECOND_PROCESS]
    runs = [subprocess.run(command, env=environment, capture_output=True, text=True, check=True) for _ in range(2)]
    assert [run.stdout.split() for run in runs] == [["0", "1"], ["1", "0"]]
