"""max_pool2d, avg_pool2d, adaptive_avg_pool2d."""

from __future__ import annotations

import numpy as np
import pytest

from minires import Tensor
from minires.functional import adaptive_avg_pool2d, avg_pool2d, max_pool2d
from tests import oracles, oracles_net
from tests.finite_differences import distinct
from tests.questions import check_gradients, check_politeness, forward_backward

pytestmark = pytest.mark.usefixtures("on_the_reference")

# name: (x shape, kernel size, stride or None, padding, dilation)
GEOMETRIES = {
    "2x2": ((2, 2, 4, 6), 2, None, 0, 1),
    "2x2 on an odd size": ((1, 2, 5, 7), 2, None, 0, 1),
    "the stem's": ((1, 2, 6, 7), 3, 2, 1, 1),
    "overlapping": ((2, 1, 5, 4), 3, 1, 1, 1),
    "rectangular": ((1, 2, 5, 6), (1, 3), (2, 1), (0, 1), 1),
    "gaps between windows": ((1, 1, 8, 7), 2, 3, 0, 1),
    "one tap": ((1, 2, 3, 3), 1, None, 0, 1),
    "dilated": ((1, 2, 7, 6), 2, 1, 1, (2, 3)),
    "ceil drops a window in the padding": ((1, 1, 4, 4), 2, 3, 1, 1),
    "empty batch": ((0, 2, 4, 4), 2, None, 0, 1),
}


def pair(value):
    return value if isinstance(value, tuple) else (value, value)


def problem(name):
    shape, size, stride, padding, dilation = GEOMETRIES[name]
    options = {"kernel_size": size, "stride": stride, "padding": padding}
    geometry = pair(size), pair(size if stride is None else stride), pair(padding)
    return distinct(shape, np.random.default_rng(0)), options, geometry, dilation


@pytest.mark.parametrize("ceil_mode", [False, True])
@pytest.mark.parametrize("name", GEOMETRIES)
def test_max_pool(name, ceil_mode):
    x, options, geometry, dilation = problem(name)

    def operation(t):
        return max_pool2d(t, **options, dilation=dilation, ceil_mode=ceil_mode)

    expected, argmax = oracles.max_pool(x, *geometry, pair(dilation), ceil_mode)
    upstream = np.random.default_rng(1).standard_normal(expected.shape)
    y, (grad_x,), _ = forward_backward(operation, [x], upstream)
    np.testing.assert_array_equal(y, expected)
    np.testing.assert_allclose(grad_x, oracles.max_pool_backward(upstream, argmax, x.shape), rtol=1e-14)
    check_gradients(operation, x)
    check_politeness(operation, x)


@pytest.mark.parametrize("count_include_pad", [False, True])
@pytest.mark.parametrize("ceil_mode", [False, True])
@pytest.mark.parametrize("name", [name for name in GEOMETRIES if name != "dilated"])
def test_avg_pool(name, ceil_mode, count_include_pad):
    x, options, geometry, _ = problem(name)
    rules = {"ceil_mode": ceil_mode, "count_include_pad": count_include_pad}

    def operation(t):
        return avg_pool2d(t, **options, **rules)

    expected = oracles.avg_pool(x, *geometry, **rules)
    upstream = np.random.default_rng(1).standard_normal(expected.shape)
    y, (grad_x,), _ = forward_backward(operation, [x], upstream)
    np.testing.assert_allclose(y, expected, rtol=1e-13, atol=1e-15)
    np.testing.assert_allclose(grad_x, oracles.avg_pool_backward(upstream, x.shape, *geometry, **rules), rtol=1e-13)
    assert (y * upstream).sum() == pytest.approx((x * grad_x).sum(), abs=1e-12)  # a linear map and its adjoint
    check_gradients(operation, x)
    check_politeness(operation, x)


def test_ceil_mode_keeps_the_last_rows_and_drops_windows_that_start_in_the_padding():
    x = Tensor(np.arange(25, dtype=np.float32).reshape(1, 1, 5, 5))
    assert max_pool2d(x, 2).shape == (1, 1, 2, 2)
    assert max_pool2d(x, 2, ceil_mode=True).data[0, 0].tolist() == [[6, 8, 9], [16, 18, 19], [21, 23, 24]]
    assert avg_pool2d(x, 2, ceil_mode=True).data[0, 0, 2].tolist() == [20.5, 22.5, 24.0]
    assert max_pool2d(Tensor(np.zeros((1, 1, 4, 4), "f")), 2, stride=3, padding=1, ceil_mode=True).shape == (1, 1, 2, 2)


def test_the_imagenet_stem_s_pool_halves_112():
    x = Tensor(np.zeros((1, 1, 112, 112), np.float32))
    assert max_pool2d(x, 3, stride=2, padding=1).shape == (1, 1, 56, 56)
    assert max_pool2d(x, 3, stride=2, ceil_mode=True).shape == (1, 1, 56, 56)


def test_the_first_of_equal_maxima_receives_the_gradient_and_padding_never_wins():
    x = Tensor(np.full((1, 1, 2, 2), -3.0), requires_grad=True)
    y = max_pool2d(x, 2, stride=1, padding=1)
    assert (y.data == -3).all()
    y.backward(np.arange(1.0, 10.0).reshape(1, 1, 3, 3))
    assert x.grad[0, 0].tolist() == [[1 + 2 + 4 + 5, 3 + 6], [7 + 8, 9]]


def test_nan_wins_a_maximum():
    x = Tensor(np.array([[[[1.0, np.nan], [5.0, 2.0]]]]))
    assert np.isnan(max_pool2d(x, 2).item())


@pytest.mark.parametrize("output_size", [1, 2, 3, (2, 3), (5, 7), (6, 1), (8, 9)])
def test_adaptive_avg_pool(output_size):
    x = np.random.default_rng(2).standard_normal((2, 2, 5, 7))

    def operation(t):
        return adaptive_avg_pool2d(t, output_size)

    expected = oracles_net.adaptive_avg_pool(x, pair(output_size))
    y = operation(Tensor(x)).data
    np.testing.assert_allclose(y, expected, rtol=1e-13, atol=1e-15)
    check_gradients(operation, x)
    check_politeness(operation, x)


def test_adaptive_output_size_one_is_the_global_mean_and_shares_the_gradient_equally():
    x = Tensor(np.random.default_rng(3).standard_normal((2, 3, 4, 5)), requires_grad=True)
    y = adaptive_avg_pool2d(x, 1)
    np.testing.assert_allclose(y.data[:, :, 0, 0], x.data.mean((2, 3)), rtol=1e-14)
    y.backward(np.full((2, 3, 1, 1), 20.0))
    np.testing.assert_allclose(x.grad, 1, rtol=1e-15)


def test_adaptive_on_an_empty_batch():
    assert adaptive_avg_pool2d(Tensor(np.zeros((0, 3, 4, 5), np.float32)), 1).shape == (0, 3, 1, 1)


@pytest.mark.parametrize("output_size", [(None, 2), (3, None), (None, None)])
def test_none_in_an_output_size_keeps_that_size(output_size):
    x = Tensor(np.random.default_rng(3).standard_normal((2, 2, 5, 7)))
    known = tuple(length if given is None else given for given, length in zip(output_size, (5, 7), strict=True))
    np.testing.assert_array_equal(adaptive_avg_pool2d(x, output_size).data, adaptive_avg_pool2d(x, known).data)


@pytest.mark.parametrize(
    "pool",
    [lambda t: max_pool2d(t, 2), lambda t: avg_pool2d(t, 3, 2, 1), lambda t: adaptive_avg_pool2d(t, (2, 3))],
    ids=["max_pool2d", "avg_pool2d", "adaptive_avg_pool2d"],
)
def test_one_image_without_a_batch_gives_one_image(pool):
    x = distinct((2, 5, 6), np.random.default_rng(4))
    y, batch = pool(Tensor(x)), pool(Tensor(x[None]))
    assert y.shape == batch.shape[1:]
    np.testing.assert_array_equal(y.data, batch.data[0])
    check_gradients(pool, x)
    check_politeness(pool, x)


def test_options_may_be_given_by_position_in_the_order_of_pytorch():
    x = Tensor(np.random.default_rng(5).standard_normal((1, 2, 6, 7)))
    by_name = max_pool2d(x, 3, stride=(2, 1), padding=1, dilation=(1, 2), ceil_mode=True)
    np.testing.assert_array_equal(max_pool2d(x, 3, (2, 1), 1, (1, 2), True).data, by_name.data)
    by_name = avg_pool2d(x, 3, stride=(2, 1), padding=1, ceil_mode=True, count_include_pad=False)
    np.testing.assert_array_equal(avg_pool2d(x, 3, (2, 1), 1, True, False).data, by_name.data)


def tensor(*shape, dtype=np.float32):
    return Tensor(np.zeros(shape, dtype))


POOLS = [max_pool2d, avg_pool2d]


@pytest.mark.parametrize("pool", POOLS)
@pytest.mark.parametrize(
    ("arguments", "options", "error", "message"),
    [
        ((tensor(4, 4), 2), {}, ValueError, r"x must be \(N, C, H, W\), or \(C, H, W\) .*, got shape \(4, 4\)"),
        ((np.zeros((1, 1, 4, 4)), 2), {}, TypeError, "x must be a Tensor, got ndarray"),
        ((tensor(1, 1, 4, 4, dtype=np.uint8), 2), {}, TypeError, "x must hold floating-point numbers, got uint8"),
        ((tensor(1, 1, 4, 4), 5), {}, ValueError, r"the padded input \(4, 4\) is smaller than the window.*\(5, 5\)"),
        (
            (tensor(1, 1, 4, 4), 3),
            {"padding": 2},
            ValueError,
            r"padding must be at most half the kernel size.*padding \(2, 2\), kernel_size \(3, 3\); x \(1, 1, 4, 4\)",
        ),
        ((tensor(1, 1, 4, 4), 0), {}, ValueError, "kernel_size must be at least 1, got 0"),
        ((tensor(1, 1, 4, 4), 2), {"stride": 0}, ValueError, "stride must be at least 1, got 0"),
        ((tensor(1, 1, 4, 4), 2.0), {}, TypeError, "kernel_size must be an integer or a pair of integers, got 2.0"),
        ((tensor(1, 1, 4, 4), True), {}, TypeError, "kernel_size must be an integer or a pair of integers, got True"),
        ((tensor(1, 1, 4, 4), None), {}, TypeError, "kernel_size must be an integer or a pair of integers, got None"),
        ((tensor(1, 1, 4, 4), b"ab"), {}, TypeError, "kernel_size must be an integer or a pair of integers, got b'ab'"),
        ((tensor(1, 1, 4, 4), 2), {"ceil_mode": "yes"}, TypeError, "ceil_mode must be True or False, got 'yes'"),
        (
            (tensor(1, 1, 4, 4), 2**30),
            {"padding": 2**29},
            ValueError,
            r"it would need an array of shape \(1, 1, 1073741828, 1073741828\), more than a process can address",
        ),
    ],
)
def test_refuses(pool, arguments, options, error, message):
    with pytest.raises(error, match=f"{pool.__name__}: {message}"):
        pool(*arguments, **options)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((tensor(4, 4), 1), ValueError, r"x must be \(N, C, H, W\), or \(C, H, W\) for one image, got shape \(4, 4\)"),
        ((tensor(1, 1, 4, 4), None), TypeError, "output_size must be an integer or a pair of integers, got None"),
        ((tensor(1, 1, 4, 4), 2**31 - 1), ValueError, "it would need an array of shape .* more than a process can"),
        ((tensor(1, 1, 0, 4), 1), ValueError, r"the image must not be empty; x \(1, 1, 0, 4\)"),
        ((tensor(1, 1, 4, 4), 0), ValueError, "output_size must be at least 1, got 0"),
        ((tensor(1, 1, 4, 4), (1, 2, 3)), TypeError, r"output_size must be an integer or a pair .* got \(1, 2, 3\)"),
        ((np.zeros((1, 1, 4, 4)), 1), TypeError, "x must be a Tensor"),
    ],
)
def test_adaptive_refuses(arguments, error, message):
    with pytest.raises(error, match=f"adaptive_avg_pool2d: {message}"):
        adaptive_avg_pool2d(*arguments)


@pytest.mark.parametrize("shape", [(2, 3, 5, 6), (3, 5, 6)])
@pytest.mark.parametrize("requires_grad", [False, True])
def test_max_pool2d_says_where_the_maxima_are(shape, requires_grad):
    x = Tensor(np.random.default_rng(3).standard_normal(shape), requires_grad=requires_grad)
    y, where = max_pool2d(x, 3, 2, 1, return_indices=True)
    assert (where.shape, where.dtype, where.requires_grad) == (y.shape, np.int64, False)
    planes, places = x.data.reshape(-1, 30), where.data.reshape(-1, where.shape[-2] * where.shape[-1])
    np.testing.assert_array_equal(np.take_along_axis(planes, places, 1).reshape(y.shape), y.data)
    np.testing.assert_array_equal(max_pool2d(x, 3, 2, 1).data, y.data)
    with pytest.raises(TypeError, match="max_pool2d: return_indices must be True or False, got 1"):
        max_pool2d(x, 3, return_indices=1)
