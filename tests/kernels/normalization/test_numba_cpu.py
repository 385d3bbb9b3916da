"""What the contract's small images cannot see of the compiled batch norm: pieces, widths, threads, precision, types."""

import numba
import numpy as np
import pytest

from minires_kernels.arrays import channels_last
from minires_kernels.jit import watch
from minires_kernels.normalization import numba_cpu, reference
from minires_kernels.simd import kinds

SEVERAL_PIECES = [
    (4, 16, 40, 41),
    (9, 3, 61, 59),
    (3, 40, 33, 32),
    (2, 1, 201, 190),
    (5, 130, 13, 12),
    (1, 17, 100, 90),
]
LIMIT = {"float32": 2e-6, "float64": 1e-13}


def as_nchw(x):
    return x


@pytest.fixture(params=[channels_last, as_nchw])
def layout(request):
    return request.param


def operands(rng, shape, dtype, layout):
    """x, grad_output and addend, then weight and bias."""
    images = [layout(rng.normal(number, 1 + number, shape).astype(dtype)) for number in range(3)]
    return *images, *rng.normal(size=(2, shape[1])).astype(dtype)


def every_result(x, grad_output, addend, weight, bias, module=numba_cpu):
    """All that the family computes of these, from the statistics to the gradients; by ``module``."""
    mean, variance = module.batch_statistics(x)
    inverse_std = 1 / np.sqrt(variance + x.dtype.type(1e-5))
    statistics = mean, inverse_std, weight
    plain = module.normalize(x, *statistics, bias)
    fused = module.normalize(x, *statistics, bias, addend, True)
    gradients = module.batch_norm_backward(grad_output, x, *statistics, fused, True)
    constant = module.normalize_backward(grad_output, x, *statistics, fused)[:3]
    return mean, variance, plain, fused, *gradients, *constant


def assert_near(results, expected, limit):
    for result, value in zip(results, expected, strict=True):
        np.testing.assert_allclose(result, value, rtol=0, atol=limit * abs(value).max())


def in_double_precision(arrays):
    return [array.astype(np.float64) for array in arrays]


def with_the_gate_of(results, arrays):
    """What the reference makes of them in float64, where the gradients pass the same ReLU: kinks aren't rounding."""
    x, grad_output, addend, weight, bias = in_double_precision(arrays)
    mean, variance = reference.batch_statistics(x)
    statistics = mean, 1 / np.sqrt(variance + 1e-5), weight
    fused = results[3]
    return (
        mean,
        variance,
        reference.normalize(x, *statistics, bias),
        reference.normalize(x, *statistics, bias, addend, True),
        *reference.batch_norm_backward(grad_output, x, *statistics, fused, True),
        *reference.normalize_backward(grad_output, x, *statistics, fused)[:3],
    )


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("shape", [*SEVERAL_PIECES, (2, 5, 3, 3)], ids=str)
@pytest.mark.parametrize("register_bytes", [64, 32, 16, 1])
def test_a_gate_computed_again_is_the_one_that_was_there(monkeypatch, rng, layout, shape, dtype, register_bytes):
    monkeypatch.setattr(kinds, "REGISTER_BYTES", register_bytes)
    x, grad_output, _, weight, bias = operands(rng, shape, dtype, layout)
    x[0, 0, 0, 0] = np.nan  # its output is NaN, and no gradient passes
    mean, variance = numba_cpu.batch_statistics(layout(np.nan_to_num(x)))
    statistics = mean, 1 / np.sqrt(variance), weight
    output = numba_cpu.normalize(x, *statistics, bias, None, True)
    for kernel in (numba_cpu.batch_norm_backward, numba_cpu.normalize_backward):
        *read, _ = kernel(grad_output, x, *statistics, output)
        *again, _ = kernel(grad_output, x, *statistics, np.full_like(output, np.nan), False, bias)
        for one, other in zip(read, again, strict=True):
            np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("shape", SEVERAL_PIECES, ids=str)
def test_images_of_several_pieces_and_a_remainder(rng, layout, shape, dtype):
    arrays = operands(rng, shape, dtype, layout)
    results = every_result(*arrays)
    assert_near(results, with_the_gate_of(results, arrays), LIMIT[dtype])


@pytest.mark.parametrize("register_bytes", [32, 16, 1])
@pytest.mark.parametrize("shape", [(2, 5, 23, 31), (3, 24, 9, 11), (1, 16, 3, 1)], ids=str)
def test_every_width_of_vectors(monkeypatch, rng, layout, register_bytes, shape):
    monkeypatch.setattr(kinds, "REGISTER_BYTES", register_bytes)
    arrays = operands(rng, shape, "float32", layout)
    results = every_result(*arrays)
    assert_near(results, with_the_gate_of(results, arrays), LIMIT["float32"])


@pytest.mark.parametrize("shape", [(4, 16, 40, 41), (3, 40, 33, 32)], ids=str)
def test_the_number_of_threads_changes_no_bit(rng, layout, shape):
    arrays = operands(rng, shape, "float32", layout)
    most = numba.get_num_threads()
    try:
        results = []
        for threads in range(1, numba.config.NUMBA_NUM_THREADS + 1):
            numba.set_num_threads(threads)
            results.append(every_result(*arrays))
    finally:
        numba.set_num_threads(most)
    for other in results[1:]:
        for one, another in zip(results[0], other, strict=True):
            np.testing.assert_array_equal(one, another)


@pytest.mark.parametrize("mean", [0, 1e4, -3e5])
def test_variance_keeps_its_digits_far_from_zero(rng, layout, mean):
    x = layout(rng.normal(mean, 1, (8, 16, 30, 31)).astype("float32"))
    expected = x.astype(np.float64).var((0, 2, 3))
    np.testing.assert_allclose(numba_cpu.batch_statistics(x)[1], expected, rtol=1e-5)  # 1/128 of E[x^2] - mean^2's best


def test_variance_keeps_its_digits_when_pieces_have_nothing_in_common(rng, layout):
    x = rng.normal(0, 1, (16, 16, 32, 32)).astype("float32")
    x[:, :, 0, 0] += 1000  # the pixels that a piece's provisional mean is made of
    x[5] -= 3e4
    mean, variance = numba_cpu.batch_statistics(layout(x))
    np.testing.assert_allclose(mean, x.astype(np.float64).mean((0, 2, 3)), rtol=1e-6)
    np.testing.assert_allclose(variance, x.astype(np.float64).var((0, 2, 3)), rtol=2e-6)


def test_a_constant_channel_has_variance_zero(layout):
    x = layout(np.full((4, 3, 30, 31), np.float32(0.1)))
    mean, variance = numba_cpu.batch_statistics(x)
    np.testing.assert_allclose(mean, np.float32(0.1), rtol=1e-7)
    assert (variance == 0).all()


def test_layouts_and_read_only_arrays_share_one_machine_code(rng):
    x, grad_output, addend, weight, bias = operands(rng, (2, 3, 4, 5), "float32", as_nchw)
    every_result(x, grad_output, addend, weight, bias)
    for array in (x, weight, bias):
        array.flags.writeable = False
    made = []
    with watch(lambda name, compiled: made.append(name)):
        every_result(channels_last(x), np.asfortranarray(grad_output), addend[::-1], weight, bias[::-1])
        every_result(x, grad_output, x, weight, bias)
    assert made == []
    assert not x.flags.writeable


def test_another_dtype_is_refused():
    with pytest.raises(TypeError, match="dtype must be float32 or float64, got float16"):
        numba_cpu.batch_statistics(np.ones((2, 3, 4, 5), np.float16))
