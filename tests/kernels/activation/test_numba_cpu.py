"""What the contract's small arrays cannot see of the compiled elementwise kernels: pieces, widths, threads, layouts."""

import numba
import numpy as np
import pytest

from minires_kernels.activation import numba_cpu
from minires_kernels.flat import SMALL
from minires_kernels.jit import watch
from minires_kernels.simd import kinds

EXPECTED = {
    "relu": lambda x, y: np.maximum(x, 0),
    "relu_backward": lambda x, y: np.where(y > 0, x, 0),
    "add": lambda x, y: x + y,
    "add_relu": lambda x, y: np.maximum(x + y, 0),
}


def call(kernel, x, y):
    return getattr(numba_cpu, kernel)(*(x, y)[: 1 if kernel == "relu" else 2])


@pytest.mark.parametrize("size", [SMALL - 1, SMALL, SMALL + 1, 3 * SMALL + 37])
@pytest.mark.parametrize("kernel", EXPECTED)
def test_every_element_of_several_pieces(rng, kernel, size):
    x, y = rng.normal(size=(2, size)).astype("float32")
    np.testing.assert_array_equal(call(kernel, x, y), EXPECTED[kernel](x, y))


@pytest.mark.parametrize("register_bytes", [32, 16, 1])
@pytest.mark.parametrize("kernel", EXPECTED)
def test_every_width_of_vectors(monkeypatch, rng, kernel, register_bytes):
    monkeypatch.setattr(kinds, "REGISTER_BYTES", register_bytes)
    for size in range(40):
        x, y = rng.normal(size=(2, size)).astype("float32")
        np.testing.assert_array_equal(call(kernel, x, y), EXPECTED[kernel](x, y))


@pytest.mark.parametrize("axes", [(0, 1, 2, 3), (0, 2, 3, 1), (3, 0, 2, 1), (2, 3, 1, 0)], ids=str)
@pytest.mark.parametrize("kernel", EXPECTED)
def test_any_order_of_the_axes_in_memory(rng, kernel, axes):
    x, y, other = (rng.normal(size=(3, 4, 5, 6)).transpose(axes) for _ in range(3))
    elsewhere = np.ascontiguousarray(other)
    for first, second in ((x, y), (x, elsewhere), (elsewhere, x), (x[:, 1:], y[:, :-1]), (x[::-1], y)):
        np.testing.assert_array_equal(call(kernel, first, second), EXPECTED[kernel](first, second))
    assert call(kernel, x, elsewhere).strides == x.strides


@pytest.mark.parametrize("kernel", EXPECTED)
def test_repeated_elements_without_memory_of_their_own(rng, kernel):
    x, y = np.broadcast_to(rng.normal(size=(3, 1)), (3, 70)), rng.normal(size=(3, 70))
    result = call(kernel, x, y)
    np.testing.assert_array_equal(result, EXPECTED[kernel](x, y))
    assert result.flags.writeable
    assert 0 not in result.strides


def test_a_single_thread_gives_the_same(rng):
    x, y = rng.normal(size=(2, 5 * SMALL + 1))
    several = numba_cpu.add_relu(x, y)
    most = numba.get_num_threads()
    try:
        numba.set_num_threads(1)
        np.testing.assert_array_equal(numba_cpu.add_relu(x, y), several)
    finally:
        numba.set_num_threads(most)


def test_layouts_and_read_only_arrays_share_one_machine_code(rng):
    x, y = rng.normal(size=(2, 3, 4, 5, 6)).astype("float32")
    numba_cpu.add(x, y)
    x.flags.writeable = False
    made = []
    with watch(lambda name, compiled: made.append(name)):
        numba_cpu.relu(x)
        numba_cpu.add_relu(x, np.asfortranarray(y))
        numba_cpu.relu_backward(x[0, 0, 0], y[0, 0, 0])
    assert made == []
