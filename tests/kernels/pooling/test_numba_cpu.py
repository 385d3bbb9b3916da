"""What the contract cannot see of compiled pooling: widths, threads, how channels are dealt out, large windows."""

import numba
import numpy as np
import pytest

from minires_kernels import Window
from minires_kernels.arrays import channels_last, is_channels_last
from minires_kernels.pooling import numba_cpu, reference
from minires_kernels.simd import kinds

WINDOWS = [Window.of(2, stride=2), Window.of(3, stride=2, padding=1), Window.of((2, 3), stride=(3, 1), padding=(1, 0))]


def all_four(x, grad, window):
    y, argmax = numba_cpu.max_pool(x, window, True)
    return (
        y,
        argmax,
        numba_cpu.max_pool_backward(grad[:, :, : y.shape[2], : y.shape[3]], argmax, x.shape),
        numba_cpu.avg_pool(x, window, True, False),
        numba_cpu.avg_pool_backward(grad[:, :, : y.shape[2], : y.shape[3]], x.shape, window, True, False),
    )


def expected(x, grad, window):
    x, grad = x.astype(np.float64), grad.astype(np.float64)
    y, argmax = reference.max_pool(x, window, True)
    grad = grad[:, :, : y.shape[2], : y.shape[3]]
    return (
        y,
        argmax,
        reference.max_pool_backward(grad, argmax, x.shape),
        reference.avg_pool(x, window, True, False),
        reference.avg_pool_backward(grad, x.shape, window, True, False),
    )


@pytest.mark.parametrize("register_bytes", [64, 32, 16, 1])
@pytest.mark.parametrize("window", WINDOWS, ids=str)
@pytest.mark.parametrize("shape", [(1, 40, 9, 8), (9, 3, 7, 10)], ids=str)
def test_every_width_of_vectors(monkeypatch, rng, register_bytes, window, shape):
    monkeypatch.setattr(kinds, "REGISTER_BYTES", register_bytes)
    x, grad = rng.normal(size=(2, *shape)).astype("float32")
    for result, value in zip(all_four(x, grad, window), expected(x, grad, window), strict=True):
        np.testing.assert_allclose(result, value, rtol=0, atol=1e-6)


@pytest.mark.parametrize("shape", [(1, 40, 9, 8), (3, 17, 9, 8), (9, 24, 7, 10)], ids=str)
def test_the_number_of_threads_changes_no_bit(rng, shape):
    x, grad = rng.normal(size=(2, *shape)).astype("float32")
    several = all_four(x, grad, WINDOWS[1])
    most = numba.get_num_threads()
    try:
        numba.set_num_threads(1)
        single = all_four(x, grad, WINDOWS[1])
    finally:
        numba.set_num_threads(most)
    for one, another in zip(several, single, strict=True):
        np.testing.assert_array_equal(one, another)


def test_results_are_channels_last_whatever_comes_in(rng):
    x, grad = rng.normal(size=(2, 2, 3, 8, 6)).astype("float32")
    for layout in (channels_last, np.ascontiguousarray, np.asfortranarray):
        for result in all_four(layout(x), layout(grad), WINDOWS[0]):
            assert is_channels_last(result)


def test_the_mean_of_a_large_image_keeps_its_digits(rng):
    x = rng.random((2, 5, 301, 299)).astype("float32")
    y = numba_cpu.avg_pool(x, Window.of((301, 299)))
    np.testing.assert_allclose(y, x.mean((2, 3), dtype=np.float64, keepdims=True), rtol=2e-6)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_tap_far_from_its_window_s_first_is_named_to_the_pixel(dtype):
    """The place of a maximum isn't counted in floating-point numbers: float32 has none between 2^24 and 2^24 + 2."""
    for length in (2**24 + 2, 2**24 + 4):
        x = np.zeros((1, 1, 1, length), dtype)
        x[..., -1] = 1
        y, argmax = numba_cpu.max_pool(x, Window.of((1, 2), dilation=(1, length - 1)))
        assert y.item() == 1
        assert argmax.item() == length - 1


def test_the_maximum_of_more_taps_than_float32_can_count():
    x = np.zeros((1, 1, 4097, 4099), np.float32)
    x[0, 0, 4096, 4097] = 1
    y, argmax = numba_cpu.max_pool(x, Window.of((4097, 4099)))
    assert y.item() == 1
    assert argmax.item() == 4096 * 4099 + 4097
    grad_x = numba_cpu.max_pool_backward(np.full((1, 1, 1, 1), 3, np.float32), argmax, x.shape)
    assert grad_x[0, 0, 4096, 4097] == 3
    assert grad_x.sum() == 3
