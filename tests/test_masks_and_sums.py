"""Gradients are chosen, not multiplied by masks of 0 and 1; long sums keep float32's digits along any axis."""

from __future__ import annotations

import numpy as np
import pytest

from minires import Tensor, functional, using
from minires.algebra import sum_to_shape

MANY = 1_000_000
EVERYWHERE = pytest.mark.parametrize("implementation", ["numba_cpu", "reference"])


# ---- masks ---------------------------------------------------------------------------------------

MASKED = {
    "where": (lambda x: functional.where(np.array([True, False, False]), x, Tensor(np.zeros(3))), [4.0, 0.0, 0.0]),
    "where, the other side": (
        lambda x: functional.where(np.array([False, True, True]), Tensor(np.zeros(3)), x),
        [4.0, 0.0, 0.0],
    ),
    "clip": (lambda x: x.clip(0.0, 4.0), [4.0, -1.0, -2.0]),
    "clip below": (lambda x: x.clip(lower=0.0), [4.0, -1.0, -2.0]),
    "relu": (functional.relu, [4.0, -1.0, -2.0]),
    "abs": (abs, [4.0, 0.0, -0.0]),
    "max pool": (
        lambda x: functional.max_pool2d(x.reshape(1, 1, 1, 3), (1, 3)).reshape(1),
        [4.0, -1.0, 3.0],
    ),
    "max": (lambda x: x.max().reshape(1), [4.0, -1.0, 3.0]),
    "index": (lambda x: x[:1], [4.0, -1.0, 3.0]),
}


@EVERYWHERE
@pytest.mark.parametrize("name", MASKED)
@pytest.mark.filterwarnings("ignore:divide by zero")
def test_an_infinite_slope_behind_a_mask_does_not_come_through(name, implementation):
    operation, values = MASKED[name]
    x = Tensor(np.array(values), requires_grad=True)
    with using(implementation):
        y = operation(x).sqrt()  # whose slope at 0 is infinite
        y.backward(np.full(y.shape, 3.0))
    assert x.grad.tolist() == [0.75, 0.0, 0.0]


@EVERYWHERE
def test_the_gate_of_batch_norm_and_relu_is_chosen(implementation):
    x = Tensor(np.array([1.0, -1.0, 2.0, -3.0]).reshape(1, 1, 2, 2), requires_grad=True)
    with using(implementation):
        y = functional.batch_norm_relu(x, np.zeros(1), np.ones(1), eps=0.0)
        y.backward(np.array([3.0, np.inf, np.nan, -np.inf]).reshape(1, 1, 2, 2))
    np.testing.assert_array_equal(x.grad.ravel(), [3.0, 0.0, np.nan, 0.0])


@EVERYWHERE
def test_a_relu_lets_the_gradient_of_a_nan_through(implementation):
    """Closed there, it would make a finite gradient of a network that has none."""
    x = Tensor(np.array([np.nan, -1.0]), requires_grad=True)
    with using(implementation):
        functional.relu(x).backward(np.array([2.0, 3.0]))
    assert x.grad.tolist() == [2.0, 0.0]


def test_what_is_dropped_is_zero_whatever_it_was():
    rng = np.random.default_rng(0)
    kept = np.random.default_rng(0).random(64, np.float32) >= 0.5
    x = Tensor(np.where(kept, 3.0, np.inf).astype(np.float32), requires_grad=True)
    y = functional.dropout(x, 0.5, training=True, rng=rng)
    np.testing.assert_array_equal(y.data, np.where(kept, 6.0, 0.0))
    y.backward(np.where(kept, 0.75, np.nan).astype(np.float32))
    np.testing.assert_array_equal(x.grad, np.where(kept, 1.5, 0.0))


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_gradients_of_a_power_at_zero(dtype):
    for base, exponent, expected in (
        (0.0, 0.0, (0.0, 0.0)),
        (-0.0, 0.0, (0.0, 0.0)),
        (0.0, 2.0, (0.0, 0.0)),
        (0.0, 1.0, (3.0, 0.0)),
        (0.0, np.inf, (np.nan, 0.0)),
        (0.0, -1.0, (-np.inf, -np.inf)),
        (np.inf, 0.0, (0.0, np.inf)),
        (2.0, 0.0, (0.0, 3 * np.log(2.0))),
    ):
        x, y = (Tensor(np.array([number], dtype), requires_grad=True) for number in (base, exponent))
        (x**y).backward(np.array([3.0], dtype))
        np.testing.assert_allclose([x.grad[0], y.grad[0]], expected, rtol=1e-6, err_msg=f"{base} ** {exponent}")


def test_a_quotient_s_gradient_by_a_tiny_divisor_is_no_nan():
    x, y = (
        Tensor(np.zeros(1, np.float32), requires_grad=True),
        Tensor(np.array([1e-40], np.float32), requires_grad=True),
    )
    (x / y).backward(np.ones(1, np.float32))
    assert y.grad == [0.0]


@EVERYWHERE
@pytest.mark.parametrize("number", [np.nan, np.inf])
def test_one_bad_pixel_in_evaluation_spoils_no_other_gradient(number, implementation):
    rng = np.random.default_rng(1)
    data, upstream = rng.standard_normal((2, 2, 3, 2, 4)).astype(np.float32)
    data[0, 1, 1, 2] = number
    x, weight, bias = (
        Tensor(a, requires_grad=True)
        for a in (data, np.array([1.5, 2.0, 0.5], np.float32)[:3], np.zeros(3, np.float32))
    )
    mean, variance = np.zeros(3, np.float32), np.array([1.0, 4.0, 0.25], np.float32)
    with using(implementation):
        functional.batch_norm(x, mean, variance, weight, bias, eps=0.0).backward(upstream)
    scale = (weight.data / np.sqrt(variance))[:, None, None]
    np.testing.assert_allclose(x.grad, upstream * scale, rtol=1e-6)
    np.testing.assert_allclose(bias.grad, upstream.sum((0, 2, 3), dtype=float), rtol=1e-5)
    assert np.isfinite(weight.grad).tolist() == [True, False, True]


# ---- sums ----------------------------------------------------------------------------------------


def test_the_mean_of_a_million_tenths_is_a_tenth():
    x = Tensor(np.full((MANY, 2), 0.1, np.float32))
    np.testing.assert_allclose(x.mean(0).data, 0.1, rtol=1e-6)
    np.testing.assert_allclose(x.sum(0).data, 1e5, rtol=1e-6)
    np.testing.assert_allclose((x.sum(0, keepdims=True) * 2).data, [[2e5, 2e5]], rtol=1e-6)


def test_the_variance_of_a_million_numbers_along_the_first_axis():
    x = np.random.default_rng(0).random((MANY, 2)).astype(np.float32) + 1
    np.testing.assert_allclose(Tensor(x).var(0).data, x.var(0, dtype=np.float64), rtol=2e-6)


def test_gradients_of_broadcast_operands_and_of_biases_keep_their_digits():
    grad = np.random.default_rng(0).random((MANY, 3)).astype(np.float32)
    expected = grad.sum(0, dtype=np.float64)
    np.testing.assert_allclose(sum_to_shape(grad, (3,)), expected, rtol=1e-6)
    np.testing.assert_allclose(sum_to_shape(grad, (1, 3))[0], expected, rtol=1e-6)
    bias = Tensor(np.zeros(3, np.float32), requires_grad=True)
    functional.linear(Tensor(np.zeros((MANY, 1), np.float32)), Tensor(np.zeros((3, 1), np.float32)), bias).backward(
        grad
    )
    np.testing.assert_allclose(bias.grad, expected, rtol=1e-6)
    images = grad.reshape(4, 500, 500, 3).transpose(0, 3, 1, 2)  # channels last, as convolutions return them
    bias.grad = None
    x, weight = Tensor(np.zeros((4, 1, 500, 500), np.float32)), Tensor(np.zeros((3, 1, 1, 1), np.float32))
    functional.conv2d(x, weight, bias).backward(images)
    np.testing.assert_allclose(bias.grad, expected, rtol=1e-6)


@EVERYWHERE
def test_gradients_of_weights_keep_their_digits(implementation):
    rng = np.random.default_rng(0)
    x, grad = rng.random((MANY, 2)).astype(np.float32), rng.random((MANY, 3)).astype(np.float32)
    weight = Tensor(np.zeros((3, 2), np.float32), requires_grad=True)
    with using(implementation):
        functional.linear(Tensor(x), weight).backward(grad)
    np.testing.assert_allclose(weight.grad, grad.T.astype(float) @ x, rtol=5e-6)


@pytest.mark.parametrize("function", [functional.softmax, functional.log_softmax])
def test_a_softmax_over_many_classes_on_the_first_axis(function):
    z = np.random.default_rng(0).random((MANY, 2)).astype(np.float32)
    exact = np.exp(z.astype(float))
    exact /= exact.sum(0)
    x = Tensor(z, requires_grad=True)
    y = function(x, 0)
    expected = exact if function is functional.softmax else np.log(exact)
    np.testing.assert_allclose(y.data, expected, rtol=2e-6)
    grad = np.random.default_rng(1).random(z.shape).astype(np.float32)
    y.backward(grad)
    inner = (grad * exact).sum(0) if function is functional.softmax else grad.sum(0, dtype=float)
    slope = exact * (grad - inner) if function is functional.softmax else grad - exact * inner
    np.testing.assert_allclose(x.grad, slope, rtol=0, atol=3e-6 * np.abs(slope).max())


@EVERYWHERE
def test_cross_entropy_over_a_million_classes(implementation):
    z = np.random.default_rng(0).random((1, MANY)).astype(np.float32) * 0.1
    exact = np.log(np.exp(z.astype(float)).sum())
    for smoothing in (0.0, 0.5):
        with using(implementation):
            loss = functional.cross_entropy(Tensor(z), np.array([3]), label_smoothing=smoothing)
        expected = exact - (1 - smoothing) * float(z[0, 3]) - smoothing * z.mean(dtype=float)
        assert loss.item() == pytest.approx(expected, rel=3e-7)


@EVERYWHERE
@pytest.mark.parametrize("size", [(1, MANY), (1000, 1000)])
def test_pooling_over_a_million_pixels(size, implementation):
    x = np.random.default_rng(0).random((1, 2, *size)).astype(np.float32)
    expected = x.mean((2, 3), dtype=np.float64, keepdims=True)
    last = np.ascontiguousarray(x.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)
    with using("numba_cpu"):  # a tap at a time takes the reference minutes
        np.testing.assert_allclose(functional.avg_pool2d(Tensor(x), size).data, expected, rtol=1e-6)
    for images in (x, last):
        np.testing.assert_allclose(functional.adaptive_avg_pool2d(Tensor(images), 1).data, expected, rtol=1e-6)


@EVERYWHERE
def test_pooling_over_many_windows_keeps_digits_both_ways(implementation):
    rng = np.random.default_rng(0)
    x = Tensor(rng.random((1, 1, 150, 150)).astype(np.float32), requires_grad=True)
    grad = rng.random((1, 1, 76, 76)).astype(np.float32)
    with using(implementation):
        y = functional.avg_pool2d(x, 75, stride=1)
        y.backward(grad)
    table = np.pad(x.data[0, 0].astype(float).cumsum(0).cumsum(1), ((1, 0), (1, 0)))
    expected = (table[75:, 75:] - table[:-75, 75:] - table[75:, :-75] + table[:-75, :-75]) / 75**2
    np.testing.assert_allclose(y.data[0, 0], expected, rtol=1e-6)
    assert x.grad[0, 0, 75, 75] == pytest.approx(grad[0, 0, 1:, 1:].sum(dtype=float) / 75**2, rel=1e-6)


@EVERYWHERE
@pytest.mark.parametrize("last", [False, True])
def test_statistics_and_sums_of_a_batch_norm_over_many_pixels(last, implementation):
    rng = np.random.default_rng(0)
    x, grad = rng.random((2, 2, 3, 700, 800)).astype(np.float32)
    if last:
        x, grad = (np.ascontiguousarray(a.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2) for a in (x, grad))
    tensor, weight, bias = (Tensor(a, requires_grad=True) for a in (x, np.ones(3, np.float32), np.zeros(3, np.float32)))
    mean, variance = np.zeros(3, np.float32), np.zeros(3, np.float32)
    with using(implementation):
        functional.batch_norm(tensor, mean, variance, weight, bias, training=True, momentum=1.0).backward(grad)
    axes, count = (0, 2, 3), x.size // 3
    exact_mean, exact_variance = x.mean(axes, dtype=float), x.var(axes, dtype=float)
    np.testing.assert_allclose(mean, exact_mean, rtol=1e-6)
    np.testing.assert_allclose(variance, exact_variance * count / (count - 1), rtol=2e-6)
    np.testing.assert_allclose(bias.grad, grad.sum(axes, dtype=float), rtol=1e-6)
    x_hat = (x - exact_mean[:, None, None]) / np.sqrt(exact_variance + 1e-5)[:, None, None]
    reach = np.abs(grad * x_hat).sum(axes)
    np.testing.assert_allclose(weight.grad / reach, (grad * x_hat).sum(axes) / reach, rtol=0, atol=1e-6)


def test_an_element_that_is_picked_a_million_times_gets_the_sum_of_its_gradients():
    table = Tensor(np.zeros((3, 2), np.float32), requires_grad=True)
    table[np.zeros(1_000_000, int)].backward(np.full((1_000_000, 2), 0.1, np.float32))
    np.testing.assert_allclose(table.grad, [[1e5, 1e5], [0, 0], [0, 0]], rtol=1e-6)
    assert table.grad.dtype == np.float32
