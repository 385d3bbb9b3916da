"""conv2d: against loops, finite differences and the adjoint identity, on shapes that are odd on purpose."""

from __future__ import annotations

import numpy as np
import pytest

from minires import Tensor
from minires.functional import conv2d
from tests import oracles
from tests.questions import check_gradients, check_politeness, forward_backward

pytestmark = pytest.mark.usefixtures("on_the_reference")

# name: (x shape, weight shape, stride, padding, dilation, groups)
GEOMETRIES = {
    "3x3 padded": ((2, 3, 5, 6), (4, 3, 3, 3), 1, 1, 1, 1),
    "1x1": ((2, 3, 4, 5), (2, 3, 1, 1), 1, 0, 1, 1),
    "1x1 strided": ((1, 2, 5, 7), (3, 2, 1, 1), 2, 0, 1, 1),
    "odd size halved": ((1, 2, 7, 7), (3, 2, 3, 3), 2, 1, 1, 1),
    "stride beyond the kernel": ((1, 2, 8, 7), (2, 2, 2, 2), 3, 0, 1, 1),
    "rectangular": ((1, 2, 6, 5), (3, 2, 1, 4), (2, 1), (0, 2), (1, 1), 1),
    "dilated": ((1, 2, 8, 9), (2, 2, 3, 2), 1, (2, 1), (2, 3), 1),
    "padding with a remainder": ((1, 1, 6, 6), (2, 1, 3, 3), 2, 2, 1, 1),
    "two groups": ((2, 4, 4, 5), (6, 2, 3, 3), 1, 1, 1, 2),
    "depthwise": ((1, 3, 5, 4), (3, 1, 3, 3), 1, 1, 1, 3),
    "kernel as large as the image": ((2, 2, 3, 4), (2, 2, 3, 4), 1, 0, 1, 1),
    "one pixel": ((1, 1, 1, 1), (1, 1, 1, 1), 1, 0, 1, 1),
    "seven by seven, stride 2": ((1, 1, 9, 8), (2, 1, 7, 7), 2, 3, 1, 1),
}


def pair(value):
    return value if isinstance(value, tuple) else (value, value)


def problem(name, seed=0):
    x_shape, weight_shape, stride, padding, dilation, groups = GEOMETRIES[name]
    rng = np.random.default_rng(seed)
    arrays = [rng.standard_normal(shape) for shape in (x_shape, weight_shape, weight_shape[:1])]
    options = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
    return arrays, options, (pair(stride), pair(padding), pair(dilation), groups)


@pytest.mark.parametrize("name", GEOMETRIES)
def test_value_and_gradients_are_those_of_the_sum(name):
    (x, weight, bias), options, geometry = problem(name)
    expected = oracles.conv_forward(x, weight, *geometry) + bias[:, None, None]
    upstream = np.random.default_rng(1).standard_normal(expected.shape)
    y, (grad_x, grad_weight, grad_bias), _ = forward_backward(
        lambda *tensors: conv2d(*tensors, **options), [x, weight, bias], upstream
    )
    assert_close = lambda got, wanted: np.testing.assert_allclose(got, wanted, rtol=1e-12, atol=1e-12)  # noqa: E731
    assert_close(y, expected)
    assert_close(grad_x, oracles.conv_grad_input(upstream, weight, x.shape, *geometry))
    assert_close(grad_weight, oracles.conv_grad_weight(upstream, x, weight.shape[2:], *geometry))
    assert_close(grad_bias, upstream.sum((0, 2, 3)))


@pytest.mark.parametrize("name", ["odd size halved", "rectangular", "dilated", "two groups", "one pixel"])
def test_gradients_by_finite_differences(name):
    arrays, options, _ = problem(name)
    check_gradients(lambda *tensors: conv2d(*tensors, **options), *arrays)


@pytest.mark.parametrize("name", ["3x3 padded", "1x1 strided", "rectangular", "two groups"])
def test_is_polite(name):
    arrays, options, _ = problem(name)
    check_politeness(lambda *tensors: conv2d(*tensors, **options), *arrays)


@pytest.mark.parametrize("name", ["3x3 padded", "padding with a remainder", "dilated", "two groups"])
def test_backward_is_the_exact_adjoint_of_forward(name):
    """sum(conv(x, w) g) = sum(x grad_x) = sum(w grad_w), because the map is linear in x and in w."""
    (x, weight, _), options, _ = problem(name)
    upstream = np.random.default_rng(2).standard_normal(conv2d(Tensor(x), Tensor(weight), **options).shape)
    y, (grad_x, grad_weight), _ = forward_backward(lambda *t: conv2d(*t, **options), [x, weight], upstream)
    total = (y * upstream).sum()
    magnitude = np.abs(y * upstream).sum()
    assert abs((x * grad_x).sum() - total) < 1e-12 * magnitude
    assert abs((weight * grad_weight).sum() - total) < 1e-12 * magnitude


# kernel size, dilation: odd and even spans, so that both axes are padded evenly, unevenly and not at all
SAME = [((3, 3), 1), ((2, 3), 1), ((1, 4), 1), ((2, 2), (1, 3)), ((3, 2), (2, 1)), ((1, 1), 1), ((5, 2), 2)]


@pytest.mark.parametrize(("size", "dilation"), SAME)
def test_padding_same_keeps_the_size_and_puts_an_odd_row_below_and_an_odd_column_right(size, dilation):
    rng = np.random.default_rng(6)
    x, weight, bias = (rng.standard_normal(shape) for shape in ((2, 2, 5, 6), (3, 2, *size), (3,)))
    total = [d * (k - 1) for d, k in zip(pair(dilation), size, strict=True)]
    around = np.pad(x, [(0, 0), (0, 0), *((number // 2, number - number // 2) for number in total)])
    expected = oracles.conv_forward(around, weight, (1, 1), (0, 0), pair(dilation), 1) + bias[:, None, None]

    def operation(*tensors):
        return conv2d(*tensors, padding="same", dilation=dilation)

    y = operation(Tensor(x), Tensor(weight), Tensor(bias))
    assert y.shape == (2, 3, 5, 6)
    np.testing.assert_allclose(y.data, expected, rtol=1e-12, atol=1e-12)
    check_gradients(operation, x, weight, bias)
    check_politeness(operation, x, weight, bias)


def test_padding_valid_is_none():
    (x, weight, bias), _, _ = problem("3x3 padded")
    tensors = Tensor(x), Tensor(weight), Tensor(bias)
    np.testing.assert_array_equal(conv2d(*tensors, stride=2, padding="valid").data, conv2d(*tensors, stride=2).data)


@pytest.mark.parametrize("padding", [1, "same", "valid"])
def test_one_image_without_a_batch_gives_one_image(padding):
    (x, weight, bias), _, _ = problem("3x3 padded")
    y = conv2d(Tensor(x[0]), Tensor(weight), Tensor(bias), padding=padding)
    batch = conv2d(Tensor(x[:1]), Tensor(weight), Tensor(bias), padding=padding)
    assert y.shape == batch.shape[1:]
    np.testing.assert_array_equal(y.data, batch.data[0])
    check_gradients(lambda *tensors: conv2d(*tensors, padding=padding), x[0], weight, bias)
    check_politeness(lambda *tensors: conv2d(*tensors, padding=padding), x[0], weight, bias)


def test_options_may_be_given_by_position_in_the_order_of_pytorch():
    (x, weight, bias), _, _ = problem("two groups")
    tensors = Tensor(x), Tensor(weight), Tensor(bias)
    by_name = conv2d(*tensors, stride=(2, 1), padding=(1, 2), dilation=(1, 2), groups=2)
    np.testing.assert_array_equal(conv2d(*tensors, (2, 1), (1, 2), (1, 2), 2).data, by_name.data)


def test_without_bias():
    (x, weight, _), options, geometry = problem("3x3 padded")
    y = conv2d(Tensor(x), Tensor(weight), **options)
    np.testing.assert_allclose(y.data, oracles.conv_forward(x, weight, *geometry), rtol=1e-12, atol=1e-12)


def test_a_large_sum_in_float32_is_as_exact_as_float32_allows():
    rng = np.random.default_rng(3)
    x, weight = rng.standard_normal((2, 32, 9, 9)), rng.standard_normal((8, 32, 3, 3))
    y = conv2d(Tensor(x.astype("f")), Tensor(weight.astype("f")), padding=1).data
    exact = conv2d(Tensor(x.astype("f").astype(float)), Tensor(weight.astype("f").astype(float)), padding=1).data
    # 288 products of size 1 add up to numbers of size 17, and each addition rounds by up to half an eps of that
    assert np.abs(y - exact).max() < 288 * np.finfo(np.float32).eps * np.sqrt(288) / 20


@pytest.mark.parametrize("skipped", range(3))
def test_a_gradient_that_nobody_wants_is_not_computed(skipped):
    arrays, options, _ = problem("3x3 padded")
    tensors = [Tensor(array, requires_grad=position != skipped) for position, array in enumerate(arrays)]
    y = conv2d(*tensors, **options)
    returned = y.creator.backward(np.ones(y.shape))
    assert returned[skipped] is None
    assert all(gradient is not None for position, gradient in enumerate(returned) if position != skipped)


def test_an_empty_batch_gives_an_empty_output_and_a_zero_weight_gradient():
    x, weight = np.zeros((0, 2, 5, 5)), np.ones((3, 2, 3, 3))
    y, (grad_x, grad_weight), _ = forward_backward(lambda *t: conv2d(*t, padding=1), [x, weight])
    assert y.shape == (0, 3, 5, 5)
    assert grad_x.shape == x.shape
    assert grad_weight.shape == weight.shape
    assert not grad_weight.any()


def tensor(*shape, dtype=np.float32):
    return Tensor(np.zeros(shape, dtype))


BOTH = r"x \(2, 3, 8, 8\), weight \(16, 4, 3, 3\)"
ERRORS = {
    "channels": (
        lambda: conv2d(tensor(2, 3, 8, 8), tensor(16, 4, 3, 3)),
        ValueError,
        rf"conv2d: weight has 4 input channels per group, but x has C = 3 with groups = 1; {BOTH}; .*\(O, 3, KH, KW\)",
    ),
    "groups": (
        lambda: conv2d(tensor(2, 3, 8, 8), tensor(16, 4, 3, 3), groups=2),
        ValueError,
        rf"conv2d: groups must be a positive divisor .* groups = 2 with C = 3 and O = 16; {BOTH}",
    ),
    "no groups": (lambda: conv2d(tensor(2, 3, 8, 8), tensor(4, 3, 3, 3), groups=0), ValueError, "groups = 0"),
    "bias": (
        lambda: conv2d(tensor(2, 3, 8, 8), tensor(16, 3, 3, 3), tensor(3)),
        ValueError,
        r"conv2d: bias must have shape \(16,\), .*; x \(2, 3, 8, 8\), weight \(16, 3, 3, 3\), bias \(3,\)",
    ),
    "rank of x": (
        lambda: conv2d(tensor(8, 8), tensor(4, 3, 3, 3)),
        ValueError,
        r"conv2d: x must be \(N, C, H, W\), or \(C, H, W\) for one image, got shape \(8, 8\)",
    ),
    "a fraction of a group": (
        lambda: conv2d(tensor(1, 2, 4, 4), tensor(2, 1, 3, 3), groups=2.0),
        TypeError,
        "conv2d: groups must be an integer, got 2.0",
    ),
    "an array as stride": (
        lambda: conv2d(tensor(1, 1, 4, 4), tensor(1, 1, 3, 3), stride=np.array([1, 1])),
        TypeError,
        r"conv2d: stride must be an integer or a pair of integers, got array\(\[1, 1\]\)",
    ),
    "a stride beyond the kernels": (
        lambda: conv2d(tensor(1, 1, 4, 4), tensor(1, 1, 3, 3), stride=2**70),
        ValueError,
        f"conv2d: stride must be at most 2147483647, got {2**70}",
    ),
    "padding beyond any memory": (
        lambda: conv2d(tensor(1, 1, 4, 4), tensor(1, 1, 3, 3), padding=2**30),
        ValueError,
        r"conv2d: it would need an array of shape \(1, 1, 2147483652, 2147483652\), more than a process can address",
    ),
    "an unknown padding": (
        lambda: conv2d(tensor(1, 1, 4, 4), tensor(1, 1, 3, 3), padding="full"),
        ValueError,
        "conv2d: padding must be an integer, a pair of integers, 'same' or 'valid', got 'full'",
    ),
    "same, with a stride": (
        lambda: conv2d(tensor(1, 1, 4, 4), tensor(1, 1, 3, 3), stride=(1, 2), padding="same"),
        ValueError,
        r"conv2d: padding='same' is for stride 1, got stride \(1, 2\)",
    ),
    "same, with a wrong stride": (
        lambda: conv2d(tensor(1, 1, 4, 4), tensor(1, 1, 3, 3), stride="1", padding="same"),
        TypeError,
        "conv2d: stride must be an integer or a pair of integers, got '1'",
    ),
    "rank of weight": (lambda: conv2d(tensor(1, 3, 8, 8), tensor(3, 3)), ValueError, "conv2d: weight must be"),
    "window": (
        lambda: conv2d(tensor(1, 1, 4, 4), tensor(1, 1, 5, 3), dilation=2),
        ValueError,
        r"conv2d: the padded input \(4, 4\) is smaller than the window, which covers \(9, 5\).*more padding",
    ),
    "stride": (
        lambda: conv2d(tensor(1, 1, 4, 4), tensor(1, 1, 3, 3), stride=0),
        ValueError,
        "conv2d: stride must be at least 1, got 0",
    ),
    "padding": (
        lambda: conv2d(tensor(1, 1, 4, 4), tensor(1, 1, 3, 3), padding=(1, -1)),
        ValueError,
        r"conv2d: padding must be at least 0, got \(1, -1\)",
    ),
    "half a pixel": (
        lambda: conv2d(tensor(1, 1, 4, 4), tensor(1, 1, 3, 3), padding=0.5),
        TypeError,
        "conv2d: padding must be an integer or a pair of integers, got 0.5",
    ),
    "array": (
        lambda: conv2d(np.zeros((1, 1, 4, 4)), tensor(1, 1, 3, 3)),
        TypeError,
        r"conv2d: x must be a Tensor, got ndarray; wrap it: minires.Tensor\(x\)",
    ),
    "types": (
        lambda: conv2d(tensor(1, 1, 4, 4), tensor(1, 1, 3, 3, dtype=np.float64)),
        TypeError,
        r"Conv2d: inputs have different floating-point types: .*float32, .*float64",
    ),
    "integers": (
        lambda: conv2d(tensor(1, 1, 4, 4, dtype=np.uint8), tensor(1, 1, 3, 3)),
        TypeError,
        r"conv2d: x must hold floating-point numbers, got uint8; use \.astype\(numpy\.float32\)",
    ),
}


@pytest.mark.parametrize("name", ERRORS)
def test_refuses(name):
    call, error, message = ERRORS[name]
    with pytest.raises(error, match=message):
        call()
