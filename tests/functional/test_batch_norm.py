"""batch_norm: values, gradients and identities, running statistics, evaluation, errors."""

from __future__ import annotations

import numpy as np
import pytest

from minires import Tensor
from minires.functional import batch_norm, batch_norm_relu
from tests import oracles
from tests.questions import channels_last, check_gradients, check_politeness, forward_backward

SHAPES = [(2, 3, 2, 3), (3, 1, 1, 2), (1, 2, 4, 1), (5, 2, 1, 1)]


def train(x, weight=None, bias=None, *, eps=1e-5):
    return batch_norm(x, None, None, weight, bias, training=True, eps=eps)


def evaluate(x, weight=None, bias=None, *, eps=1e-5):
    mean, variance = np.linspace(-1, 1, x.shape[1]), np.linspace(0.5, 2, x.shape[1])
    return batch_norm(x, mean.astype(x.dtype), variance.astype(x.dtype), weight, bias, eps=eps)


def problem(shape, seed=0):
    rng = np.random.default_rng(seed)
    return [rng.standard_normal(shape) * 2 + 1, rng.standard_normal(shape[1]), rng.standard_normal(shape[1])]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_training_normalizes_with_the_statistics_of_the_batch(shape):
    x, weight, bias = problem(shape)
    upstream = np.random.default_rng(1).standard_normal(shape)
    mean, variance = oracles.batch_statistics(x)
    inverse_std = (variance + 1e-5) ** -0.5
    y, gradients, _ = forward_backward(train, [x, weight, bias], upstream)
    np.testing.assert_allclose(y, oracles.normalize(x, mean, inverse_std, weight, bias), rtol=1e-11, atol=1e-11)
    expected = oracles.batch_norm_backward(upstream, x, mean, inverse_std, weight)
    for gradient, number in zip(gradients, expected, strict=False):
        np.testing.assert_allclose(gradient, number, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_evaluation_normalizes_with_the_running_statistics(shape):
    x, weight, bias = problem(shape)
    upstream = np.random.default_rng(1).standard_normal(shape)
    mean, variance = np.linspace(-1, 1, shape[1]), np.linspace(0.5, 2, shape[1])
    inverse_std = (variance + 1e-5) ** -0.5
    y, gradients, _ = forward_backward(evaluate, [x, weight, bias], upstream)
    np.testing.assert_allclose(y, oracles.normalize(x, mean, inverse_std, weight, bias), rtol=1e-12, atol=1e-12)
    expected = oracles.normalize_backward(upstream, x, mean, inverse_std, weight)
    for gradient, number in zip(gradients, expected, strict=False):
        np.testing.assert_allclose(gradient, number, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("mode", [train, evaluate])
@pytest.mark.parametrize("given", ["weight and bias", "weight", "bias", "neither"])
def test_gradients_and_manners_with_and_without_weight_and_bias(mode, given):
    x, weight, bias = problem((2, 3, 2, 3))
    operation, arrays = {
        "weight and bias": (mode, [x, weight, bias]),
        "weight": (mode, [x, weight]),
        "bias": (lambda t, b: mode(t, None, b), [x, bias]),
        "neither": (mode, [x]),
    }[given]
    check_gradients(operation, *arrays)
    check_politeness(operation, *arrays)


@pytest.mark.parametrize("mode", [train, evaluate])
def test_matrices_are_normalized_by_column(mode):
    x, weight, bias = problem((4, 3))
    flat = mode(*map(Tensor, (x, weight, bias)))
    images = mode(*map(Tensor, (x[:, :, None, None], weight, bias)))
    assert flat.shape == (4, 3)
    np.testing.assert_array_equal(flat.data, images.data[:, :, 0, 0])
    check_gradients(mode, x, weight, bias)
    check_politeness(mode, x, weight, bias)


@pytest.mark.parametrize("mode", [train, evaluate])
@pytest.mark.parametrize("shape", [(4, 3, 5), (2, 3, 2, 2, 3), (2, 3, 1, 2, 1, 2)], ids=str)
def test_any_further_axes_are_places(mode, shape):
    """A series (N, C, L) is an image of one column: the same statistics, the same numbers, in its own shape."""
    x, weight, bias = problem(shape)
    upstream = np.random.default_rng(5).standard_normal(shape)
    column = (shape[0], shape[1], -1, 1)
    found, gradients, _ = forward_backward(mode, [x, weight, bias], upstream)
    images, expected, _ = forward_backward(mode, [x.reshape(column), weight, bias], upstream.reshape(column))
    assert found.shape == gradients[0].shape == shape
    np.testing.assert_allclose(found.reshape(column), images, rtol=1e-14)
    np.testing.assert_allclose(gradients[0].reshape(column), expected[0], rtol=1e-12, atol=1e-14)
    for gradient, other in zip(gradients[1:], expected[1:], strict=True):
        np.testing.assert_allclose(gradient, other, rtol=1e-13)
    check_gradients(mode, x, weight, bias)
    check_politeness(mode, x, weight, bias)


def test_running_statistics_of_a_series_count_its_places():
    running_mean, running_var = np.zeros(2), np.ones(2)
    x = problem((5, 2, 3))[0]
    batch_norm(Tensor(x), running_mean, running_var, training=True)
    np.testing.assert_allclose(running_mean, 0.1 * x.mean((0, 2)), rtol=1e-13)
    np.testing.assert_allclose(running_var, 0.9 + 0.1 * x.var((0, 2), ddof=1), rtol=1e-13)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("shape", [(4, 0), (2, 0, 3, 3)], ids=str)
def test_no_channels_are_nothing_to_do(training, shape):
    x = Tensor(np.zeros(shape, np.float32), requires_grad=True)
    y = batch_norm(x, np.zeros(0, "f"), np.ones(0, "f"), training=training)
    y.backward(np.zeros(shape, np.float32))
    assert y.shape == x.grad.shape == shape


def test_options_may_be_given_by_position_in_the_order_of_pytorch():
    x, weight, bias = map(Tensor, problem((2, 3, 2, 3)))
    running = [np.zeros(3), np.ones(3)], [np.zeros(3), np.ones(3)]
    by_position = batch_norm(x, *running[0], weight, bias, True, 0.25, 0.5)
    by_name = batch_norm(x, *running[1], weight, bias, training=True, momentum=0.25, eps=0.5)
    np.testing.assert_array_equal(by_position.data, by_name.data)
    np.testing.assert_array_equal(running[0], running[1])


# ---- identities ----------------------------------------------------------------------------------


@pytest.mark.parametrize("eps", [1e-5, 0.3])
def test_the_gradient_sums_to_zero_and_is_orthogonal_to_x_hat_but_for_eps(eps):
    """Adding a constant to x changes nothing, so sum(dx) = 0. Scaling x does, but only through eps: with
    s = (variance + eps)^(-1/2), sum(x_hat^2) = m variance s^2, and sum(dx x_hat) = weight s dweight eps s^2."""
    x, weight, bias = problem((4, 3, 5, 2))
    upstream = np.random.default_rng(2).standard_normal(x.shape)
    _, (grad_x, grad_weight, _), _ = forward_backward(lambda *t: train(*t, eps=eps), [x, weight, bias], upstream)
    axes = (0, 2, 3)
    np.testing.assert_allclose(grad_x.sum(axes), 0, atol=1e-13)
    s = 1 / np.sqrt(x.var(axes) + eps)
    x_hat = (x - x.mean(axes, keepdims=True)) * s[:, None, None]
    np.testing.assert_allclose((grad_x * x_hat).sum(axes), weight * s * grad_weight * eps * s**2, atol=1e-13)


def test_output_has_mean_zero_and_variance_one():
    x = problem((8, 3, 4, 4))[0]
    y = train(Tensor(x), eps=1e-12).data
    np.testing.assert_allclose(y.mean((0, 2, 3)), 0, atol=1e-14)
    np.testing.assert_allclose(y.var((0, 2, 3)), 1, atol=1e-11)


def test_output_of_training_does_not_depend_on_scale_and_shift_of_the_input():
    x = problem((8, 3, 4, 4))[0]
    np.testing.assert_allclose(train(Tensor(x * 7 - 3), eps=0).data, train(Tensor(x), eps=0).data, atol=1e-12)


def test_a_constant_channel_becomes_the_bias():
    y = train(Tensor(np.full((2, 1, 3, 3), 5.0)), Tensor(np.array([2.0])), Tensor(np.array([0.25])))
    assert (y.data == 0.25).all()


def test_evaluation_treats_each_sample_alone():
    x, weight, bias = (Tensor(array) for array in problem((4, 3, 2, 2)))
    together = evaluate(x, weight, bias).data
    for n in range(4):
        np.testing.assert_array_equal(evaluate(x[n : n + 1], weight, bias).data, together[n : n + 1])


@pytest.mark.parametrize("layout", [np.ascontiguousarray, channels_last])
def test_numbers_far_from_zero_keep_their_digits_in_float32(layout):
    """Mean 10^4, standard deviation 1, 65,536 numbers a channel. float32 numbers near 10^4 lie 9.8e-4 apart: the mean
    is known to 4.9e-4 at best. E[x^2] - E[x]^2 would have an error of several 1, a plain running sum one of 10^-2."""
    rng = np.random.default_rng(3)
    x = layout((1e4 + rng.standard_normal((16, 2, 64, 64))).astype(np.float32))
    exact = x.astype(np.float64)
    mean, variance = exact.mean((0, 2, 3)), exact.var((0, 2, 3))
    running_mean, running_var = np.zeros(2, np.float32), np.ones(2, np.float32)
    y = batch_norm(Tensor(x), running_mean, running_var, training=True, momentum=1.0).data
    assert y.dtype == np.float32
    expected = (exact - mean[:, None, None]) / np.sqrt(variance + 1e-5)[:, None, None]
    np.testing.assert_allclose(running_mean, mean, rtol=0, atol=4.9e-4)
    np.testing.assert_allclose(running_var, variance, rtol=1e-4)
    np.testing.assert_allclose(y, expected, rtol=1e-4, atol=5e-4)


# ---- running statistics --------------------------------------------------------------------------


@pytest.mark.parametrize("function", [batch_norm, batch_norm_relu])
@pytest.mark.parametrize("momentum", [0.0, 0.1, 1.0])
def test_running_statistics_move_by_momentum_with_the_unbiased_variance(function, momentum):
    x = problem((3, 2, 2, 5))[0]
    running_mean, running_var = np.array([1.0, 2.0]), np.array([3.0, 4.0])
    old_mean, old_var = running_mean.copy(), running_var.copy()
    function(Tensor(x), running_mean, running_var, training=True, momentum=momentum)
    mean, variance = oracles.batch_statistics(x)
    unbiased = variance * 30 / 29
    np.testing.assert_allclose(running_mean, (1 - momentum) * old_mean + momentum * mean, rtol=1e-13)
    np.testing.assert_allclose(running_var, (1 - momentum) * old_var + momentum * unbiased, rtol=1e-13)


def test_running_statistics_of_a_matrix_count_its_rows():
    running_mean, running_var = np.zeros(2), np.ones(2)
    x = problem((5, 2))[0]
    batch_norm(Tensor(x), running_mean, running_var, training=True)
    np.testing.assert_allclose(running_mean, 0.1 * x.mean(0), rtol=1e-13)
    np.testing.assert_allclose(running_var, 0.9 + 0.1 * x.var(0, ddof=1), rtol=1e-13)


@pytest.mark.parametrize("function", [batch_norm, batch_norm_relu])
def test_evaluation_leaves_the_running_statistics_alone(function):
    running_mean, running_var = np.zeros(2, np.float32), np.ones(2, np.float32)
    function(Tensor(np.full((2, 2, 2, 2), 9, np.float32)), running_mean, running_var)
    assert not running_mean.any()
    assert (running_var == 1).all()


def test_a_training_step_between_forward_and_backward_does_not_change_an_evaluation_s_gradient():
    x, weight = (Tensor(array, requires_grad=True) for array in problem((2, 2, 2, 2))[:2])
    running_mean, running_var = np.zeros(2), np.full(2, 4.0)
    y = batch_norm(x, running_mean, running_var, weight, eps=0.0)
    batch_norm(Tensor(np.random.default_rng(0).standard_normal((2, 2, 2, 2))), running_mean, running_var, training=True)
    assert (running_mean != 0).all()
    assert (running_var != 4).all()
    y.backward(np.ones(y.shape))
    np.testing.assert_allclose(x.grad, np.broadcast_to(weight.data[:, None, None] / 2, x.shape), rtol=1e-15)
    np.testing.assert_allclose(weight.grad, x.data.sum((0, 2, 3)) / 2, rtol=1e-13)


@pytest.mark.parametrize("function", [batch_norm, batch_norm_relu])
def test_running_statistics_that_cannot_both_be_written_are_refused(function):
    x = Tensor(np.random.default_rng(0).standard_normal((2, 3, 4, 5)))
    fixed, buffer = np.ones(3), np.ones(5)
    fixed.flags.writeable = False
    repeated = np.lib.stride_tricks.as_strided(np.ones(1), (3,), (0,))
    for running_mean, running_var, message in (
        (np.ones(3), fixed, r"running_var \(3,\) can't be written, it is read-only; give a copy: running_var.copy\(\)"),
        (fixed, np.ones(3), "running_mean .* is read-only"),
        (repeated, np.ones(3), "running_mean .* share their places"),
        (buffer[:3], buffer[2:], "running_mean .* and running_var .* share memory"),
    ):
        with pytest.raises(ValueError, match=f"{function.__name__}: {message}"):
            function(x, running_mean, running_var, training=True)
        assert (running_mean == 1).all()
        assert (running_var == 1).all()
    function(x, fixed, fixed)  # evaluation writes nothing


def test_running_statistics_move_together_or_not_at_all():
    """Where the variance overflows, and the caller has made that an error, the mean has not moved either."""
    x = Tensor(np.random.default_rng(0).standard_normal((2, 3, 4, 5)).astype(np.float32))
    running_mean, running_var = np.zeros(3, np.float32), np.full(3, np.finfo(np.float32).max)
    running_var[1] = -np.finfo(np.float32).max
    with np.errstate(over="raise"), pytest.raises(FloatingPointError):
        batch_norm(x * 1e19, running_mean, running_var, training=True, momentum=1.0)
    assert not running_mean.any()


@pytest.mark.parametrize("function", [batch_norm, batch_norm_relu])
def test_a_call_that_is_refused_changes_no_running_statistics(function):
    running_mean, running_var = np.zeros(2, np.float32), np.ones(2, np.float32)
    x, weight = Tensor(np.random.default_rng(0).standard_normal((2, 2, 2, 2)).astype("f")), Tensor(np.ones(2))
    with pytest.raises(TypeError, match="different floating-point types"):
        function(x, running_mean, running_var, weight, training=True)
    assert not running_mean.any()
    assert (running_var == 1).all()


# ---- errors --------------------------------------------------------------------------------------


def tensor(*shape, dtype=np.float32):
    return Tensor(np.zeros(shape, dtype))


def state(C=3, dtype=np.float32):
    return np.zeros(C, dtype), np.ones(C, dtype)


ERRORS = {
    "rank": (
        lambda f: f(tensor(3), *state()),
        ValueError,
        r"x must be \(N, C\) or \(N, C, \.\.\.\), got shape \(3,\)",
    ),
    "weight": (
        lambda f: f(tensor(2, 3, 4, 4), *state(), tensor(4)),
        ValueError,
        r"weight must have shape \(3,\), one number per channel, got \(4,\); x \(2, 3, 4, 4\)",
    ),
    "bias": (
        lambda f: f(tensor(2, 3, 4, 4), *state(), None, tensor(1)),
        ValueError,
        r"bias must have shape \(3,\), one number per channel, got \(1,\); x \(2, 3, 4, 4\)",
    ),
    "statistics": (
        lambda f: f(tensor(2, 3, 4, 4), *state(4)),
        ValueError,
        r"running_mean must have shape \(3,\), got \(4,\); x \(2, 3, 4, 4\)",
    ),
    "variance": (
        lambda f: f(tensor(2, 3, 4, 4), np.zeros(3, "f"), np.zeros((1, 3), "f")),
        ValueError,
        r"running_var must have shape \(3,\), got \(1, 3\)",
    ),
    "one statistic": (
        lambda f: f(tensor(2, 3, 4, 4), None, np.ones(3, "f")),
        ValueError,
        "give both running_mean and running_var, or neither",
    ),
    "no statistics": (
        lambda f: f(tensor(2, 3, 4, 4), None, None),
        ValueError,
        "evaluation needs running_mean and running_var; or pass training=True",
    ),
    "one number": (
        lambda f: f(tensor(1, 3, 1, 1), *state(), training=True),
        ValueError,
        r"training needs at least 2 numbers per channel to have a variance, got 1; x \(1, 3, 1, 1\)",
    ),
    "empty batch": (
        lambda f: f(tensor(0, 3, 4, 4), *state(), training=True),
        ValueError,
        "training needs at least 2 .*, got 0",
    ),
    "eps": (
        lambda f: f(tensor(2, 3, 4, 4), *state(), eps=-1.0),
        ValueError,
        r"eps must be a number from 0 to 3\.4\d*e\+38, got -1.0",
    ),
    "eps that isn't a number": (lambda f: f(tensor(2, 3, 4, 4), *state(), eps=np.nan), ValueError, "eps .* got nan"),
    "no momentum": (
        lambda f: f(tensor(2, 3, 4, 4), *state(), momentum=None),
        TypeError,
        "momentum must be a number, got None",
    ),
    "training": (
        lambda f: f(tensor(2, 3, 4, 4), *state(), training="no"),
        TypeError,
        "training must be True or False, got 'no'",
    ),
    "statistics that are tensors": (
        lambda f: f(tensor(2, 3, 4, 4), tensor(3), tensor(3)),
        TypeError,
        "running_mean must be an array, which training updates, got Tensor",
    ),
    "momentum": (
        lambda f: f(tensor(2, 3, 4, 4), *state(), momentum=1.5),
        ValueError,
        "momentum must be a number from 0 to 1, got 1.5",
    ),
    "type of the statistics": (
        lambda f: f(tensor(2, 3, 4, 4), *state(dtype=np.float64)),
        TypeError,
        r"running_mean is float64, but x is float32; convert it with .astype\(x.dtype\)",
    ),
    "integers": (lambda f: f(tensor(2, 3, 4, 4, dtype=int), *state()), TypeError, "x must hold floating-point numbers"),
    "array": (lambda f: f(np.zeros((2, 3, 4, 4)), *state()), TypeError, "x must be a Tensor, got ndarray"),
}


@pytest.mark.parametrize("function", [batch_norm, batch_norm_relu])
@pytest.mark.parametrize("name", ERRORS)
def test_refuses(name, function):
    call, error, message = ERRORS[name]
    with pytest.raises(error, match=f"{function.__name__}: {message}"):
        call(function)
