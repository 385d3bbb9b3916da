"""Where the differences fail and not the gradient, the report says so, by what, and what cures it."""

import re

import numpy as np
import pytest

from minires.checking import check_arrays

X = np.array([0.3, 0.7, -1.2])
FAST = 1e9


def curved(x):
    return np.sin(FAST * x)


def curved_backward(grad_output, x):
    return grad_output * FAST * np.cos(FAST * x)


def squared_at(offset, dtype):
    return lambda x: (np.square(x.astype(dtype)) + dtype(offset)).astype(np.float64)


def squared_backward(grad_output, x):
    return 2 * x * grad_output


def straight_through(grad_output, x):
    return 1.0 * grad_output


RIGHT = {
    "bends within every sensible step": (curved, curved_backward, X, "truncation"),
    "bends within every step": (
        lambda x: np.sin(1e14 * x),
        lambda g, x: g * 1e14 * np.cos(1e14 * x),
        X,
        "truncation",
    ),
    "float32 beside 1e3": (squared_at(1e3, np.float32), squared_backward, X, "rounding"),
    "float32 beside 1e6": (squared_at(1e6, np.float32), squared_backward, X, "rounding"),
    "float16": (squared_at(0, np.float16), squared_backward, X, "rounding"),
    "quantized": (lambda x: np.round(x * 1e4) / 1e4, straight_through, X, "rounding"),
    "many outputs in float32": (
        lambda x: (x.astype(np.float32) @ np.ones((40, 300), np.float32) + np.float32(1e3)).astype(np.float64),
        lambda g, x: g @ np.ones((300, 40)),
        np.random.default_rng(0).standard_normal(40),
        "rounding",
    ),
    "along directions": (squared_at(1e3, np.float32), squared_backward, np.tile(X, 1000), "rounding"),
}


@pytest.mark.parametrize("name", RIGHT)
def test_a_right_gradient_that_differences_cannot_confirm_is_not_called_wrong(name):
    forward, backward, x, cause = RIGHT[name]
    report = check_arrays(forward, backward, x)
    assert not report
    assert report.cause == cause
    assert len(report.diagnoses) == 1
    text = str(report)
    assert "the differences prove nothing, by" in text
    assert "method='complex'" in text
    assert "isn't rounding" not in text


def test_the_evidence_is_the_step_its_neighbours_and_the_slope():
    report = check_arrays(squared_at(1e3, np.float32), squared_backward, X)
    words = r"The relative step was (\S+); at the best one, (\S+), quotients still change by (\S+) of themselves, "
    found = re.search(words + r"like h\^(\S+) below it; those below (\S+) change nothing", str(report))
    used, best, part, slope, still = map(float, found.groups())
    assert max(used, still) < best <= 0.25
    assert 1e-5 < part < 1e-2  # 1e3 in float32 has grains of 6e-5
    assert slope == pytest.approx(-1, abs=0.3)  # rounding
    assert report.diagnoses[0].unexplained < 1e-2


def test_the_cures_cure():
    assert check_arrays(curved, curved_backward, X / FAST)
    assert check_arrays(curved, curved_backward, X, method="complex", rtol=1e-9)
    assert check_arrays(squared_at(1e3, np.float64), squared_backward, X)
    assert check_arrays(squared_at(0, np.float32), squared_backward, X)


TWICE = {
    "at a curve": (curved, curved_backward, X),
    "beside 1e12": (lambda x: x + 1e12, straight_through, X),
    "in float32": (squared_at(10, np.float32), squared_backward, X),
}


@pytest.mark.parametrize("name", TWICE)
def test_a_wrong_gradient_is_convicted_where_the_quotients_settle(name):
    forward, backward, x = TWICE[name]
    report = check_arrays(forward, lambda g, x: 2 * backward(g, x), x)
    assert not report
    assert report.cause == "factor"


@pytest.mark.parametrize(
    ("forward", "backward"),
    [
        (lambda x: 1 + x**3, straight_through),  # the right derivative is 0, and fine steps change nothing
        (lambda x: np.maximum(x, 0), lambda g, x: g * (1.0 + 0 * x)),  # flat here, not grainy
        (lambda x: x[None] * 0 + x.max(0), lambda g, x: g.sum(0)),
        (lambda x: np.cos(x - x.mean()) * 0 + np.cos(x), straight_through),
        (lambda x: (x - x.mean()).sum() + np.sin(1.0 + x * 0), lambda g, x: g * 1e-3),
    ],
)
def test_a_derivative_of_zero_convicts_too(forward, backward):
    report = check_arrays(forward, backward, np.array([0.0, -1e-6, -0.5]))
    assert not report
    assert report.cause not in ("truncation", "rounding")


@pytest.mark.parametrize("factor", [1.0, 2.0])
def test_a_gradient_below_the_noise_is_not_proved_and_that_is_said(factor):
    report = check_arrays(lambda x: x + 1e15, lambda g, x: factor * g, X)
    assert report
    assert "nothing is proved of the gradient of x: it is smaller than the noise" in str(report)


def test_a_gradient_above_the_noise_is_proved():
    assert not check_arrays(lambda x: x + 1e6, straight_through, X).notes


def test_a_gradient_of_zero_is_proved():
    bias = np.array([0.3, -0.2])

    def centred(x, bias):
        return x + bias - (x + bias).mean(0)

    def backward(grad_output, x, bias):
        grad = grad_output - grad_output.mean(0)
        return grad, grad.sum(0)  # 0 but for rounding

    report = check_arrays(centred, backward, np.random.default_rng(0).standard_normal((5, 2)), bias)
    assert report
    assert not report.notes
