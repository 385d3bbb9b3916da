"""relu, sigmoid, tanh, softmax, log_softmax."""

from __future__ import annotations

import math

import numpy as np
import pytest

from minires import Tensor
from minires.functional import log_softmax, relu, sigmoid, softmax, tanh
from tests import oracles_net
from tests.finite_differences import away_from_zero
from tests.questions import check_gradients, check_politeness

ELEMENTWISE = {
    "relu": (relu, lambda x: x if x > 0 else 0.0),
    "sigmoid": (sigmoid, lambda x: 1 / (1 + math.exp(-x))),
    "tanh": (tanh, math.tanh),
}


@pytest.mark.parametrize("shape", [(2, 3), (), (0, 4), (2, 3, 4, 5)])
@pytest.mark.parametrize("name", ELEMENTWISE)
def test_elementwise(name, shape):
    function, expected = ELEMENTWISE[name]
    x = away_from_zero(np.random.default_rng(0).standard_normal(shape))
    np.testing.assert_allclose(function(Tensor(x)).data, np.vectorize(expected, otypes=[float])(x), rtol=1e-14)
    check_gradients(function, x)
    check_politeness(function, x)


def test_relu_keeps_nan_and_has_slope_zero_at_zero():
    x = Tensor(np.array([np.nan, 0.0, -0.0, 1e-30]), requires_grad=True)
    y = relu(x)
    assert np.isnan(y.data[0])
    assert y.data[1:].tolist() == [0.0, 0.0, 1e-30]
    y.backward(np.array([1.0, 1.0, 1.0, 1.0]))
    assert x.grad[1:].tolist() == [0.0, 0.0, 1.0]


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_extreme_numbers_neither_overflow_nor_warn(dtype):
    x = Tensor(np.array([[-1e4, -100.0, 0.0, 100.0, 1e4]], dtype), requires_grad=True)
    expected = {
        sigmoid: [0, 1 / (1 + math.exp(100)), 0.5, 1, 1],
        tanh: [-1, -1, 0, 1, 1],
        lambda t: softmax(t, 1): [0, 0, 0, 0, 1],
        lambda t: log_softmax(t, 1): [-2e4, -10100, -1e4, -9900, 0],
    }
    for function, values in expected.items():
        y = function(x)
        np.testing.assert_allclose(y.data[0], values, rtol=1e-6, atol=1e-37)
        y.backward(np.ones((1, 5), dtype))
        assert np.isfinite(x.grad).all()


@pytest.mark.parametrize("axis", [0, 1, 2, -1, -2])
def test_softmax_and_its_logarithm_along_any_axis(axis):
    x = np.random.default_rng(1).standard_normal((2, 3, 4)) * 3
    expected = np.apply_along_axis(oracles_net.log_softmax, axis, x)
    np.testing.assert_allclose(log_softmax(Tensor(x), axis).data, expected, rtol=1e-13)
    np.testing.assert_allclose(softmax(Tensor(x), axis).data, np.exp(expected), rtol=1e-13)
    np.testing.assert_allclose(softmax(Tensor(x), axis).data.sum(axis), 1, rtol=1e-14)
    for function in (softmax, log_softmax):
        check_gradients(lambda t, function=function: function(t, axis), x)
        check_politeness(lambda t, function=function: function(t, axis), x)


def test_softmax_does_not_change_when_all_logits_are_shifted():
    x = np.random.default_rng(2).standard_normal((2, 5))
    np.testing.assert_allclose(softmax(Tensor(x + 1000), 1).data, softmax(Tensor(x), 1).data, rtol=1e-12)


@pytest.mark.parametrize("function", [softmax, log_softmax])
def test_a_masked_logit_has_probability_and_gradient_zero(function):
    x = Tensor(np.array([[1.0, -np.inf, 2.0]]), requires_grad=True)
    y = function(x, 1)
    assert y.data[0, 1] == {softmax: 0, log_softmax: -np.inf}[function]
    y.backward(np.array([[1.0, 0.0, 2.0]]))
    assert np.isfinite(x.grad).all()
    assert x.grad[0, 1] == 0


@pytest.mark.parametrize("function", [softmax, log_softmax])
@pytest.mark.parametrize(
    ("shape", "axis", "error", "message"),
    [
        ((2, 3), 2, ValueError, r"axis 2 doesn't exist in x \(2, 3\)"),
        ((2, 3), -3, ValueError, r"axis -3 doesn't exist in x \(2, 3\)"),
        ((), 0, ValueError, r"axis 0 doesn't exist in x \(\)"),
        ((2, 0), 1, ValueError, r"axis 1 of x \(2, 0\) has no elements, and nothing can sum to 1"),
        ((2, 3), None, TypeError, "axis must be an integer, got None"),
        ((2, 3), 1.0, TypeError, "axis must be an integer, got 1.0"),
        ((2, 3), True, TypeError, "axis must be an integer, got True"),
        ((2, 3), (0, 1), TypeError, r"axis must be an integer, got \(0, 1\)"),
        ((2, 3), 2**70, ValueError, "axis must be an integer of 64 bits"),
        ((2, 3), Tensor([1, 0]), TypeError, r"axis must be an integer, got a Tensor of shape \(2,\)"),
    ],
)
def test_an_axis_that_is_not_there_is_refused(function, shape, axis, error, message):
    with pytest.raises(error, match=f"{function.__name__}: {message}"):
        function(Tensor(np.zeros(shape)), axis)


@pytest.mark.parametrize("function", [softmax, log_softmax])
def test_the_axis_may_be_called_dim(function):
    x = Tensor(np.random.default_rng(4).standard_normal((3, 2)))
    np.testing.assert_array_equal(function(x, dim=0).data, function(x, 0).data)
    with pytest.raises(TypeError, match=f"{function.__name__}: axis and dim are two names of one argument"):
        function(x, axis=0, dim=0)


def test_relu_in_place_is_refused_with_the_reason():
    x = Tensor(np.array([-1.0, 2.0]))
    with pytest.raises(ValueError, match="relu: inplace=True would write into x, which the backward pass"):
        relu(x, inplace=True)
    assert x.data.tolist() == [-1.0, 2.0]
    assert relu(x, inplace=False).data.tolist() == [0.0, 2.0]


@pytest.mark.parametrize("function", [relu, sigmoid, tanh, lambda x: softmax(x, 0), lambda x: log_softmax(x, 0)])
def test_what_is_no_tensor_of_floats_is_refused(function):
    with pytest.raises(TypeError, match=r"x must be a Tensor, got ndarray; wrap it: minires\.Tensor\(x\)"):
        function(np.zeros(3))
    with pytest.raises(TypeError, match=r"x must hold floating-point numbers, got int64; use \.astype"):
        function(Tensor([1, 2, 3]))
