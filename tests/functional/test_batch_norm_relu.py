"""batch_norm_relu: one fused kernel each way, equal to its textbook expansion."""

from __future__ import annotations

import itertools
from contextlib import nullcontext

import numpy as np
import pytest

from minires import Tensor, functional, using
from minires.functional import batch_norm_relu
from tests.finite_differences import REACH
from tests.questions import check_gradients, check_politeness, graph

SHAPE = (2, 3, 2, 3)


def operation(training, with_addend, running=None):
    """relu(bn(x) [+ addend]) with weight and bias, as a function of tensors."""

    def compute(x, weight, bias, addend=None):
        state = running or (np.linspace(-1, 1, 3).astype(x.dtype), np.linspace(0.5, 2, 3).astype(x.dtype))
        return batch_norm_relu(x, *state, weight, bias, addend if with_addend else None, training=training)

    return compute


def problem(with_addend, seed, shape=SHAPE):
    rng = np.random.default_rng(seed)
    arrays = [rng.standard_normal(shape) * 2 + 1, rng.standard_normal(shape[1]), rng.standard_normal(shape[1])]
    return [*arrays, rng.standard_normal(shape)] if with_addend else arrays


def problem_without_kinks(training, with_addend):
    """Numbers for which nothing in front of the ReLU is nearer to 0 than the finite differences can move it."""
    for seed in itertools.count():
        x, weight, bias, *addend = problem(with_addend, seed)
        running = np.linspace(-1, 1, 3), np.linspace(0.5, 2, 3)
        before = functional.batch_norm(Tensor(x), *running, Tensor(weight), Tensor(bias), training=training).data
        if np.abs(before + (addend[0] if with_addend else 0)).min() > 10 * REACH:
            return [x, weight, bias, *addend]


MODES = [(training, with_addend) for training in (True, False) for with_addend in (True, False)]


@pytest.fixture(params=["fused", "expanded"])
def way(request):
    """``apply`` takes the textbook's way under ``using("reference")``, else the fused kernel."""
    with using("reference") if request.param == "expanded" else nullcontext():
        yield request.param


@pytest.mark.parametrize(("training", "with_addend"), MODES)
def test_gradients_by_finite_differences(training, with_addend, way):
    check_gradients(operation(training, with_addend), *problem_without_kinks(training, with_addend))


@pytest.mark.parametrize(("training", "with_addend"), MODES)
def test_is_polite(training, with_addend, way):
    check_politeness(operation(training, with_addend), *problem(with_addend, 5))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("training", "with_addend"), MODES)
def test_fused_and_expanded_agree_within_rounding(training, with_addend, dtype):
    arrays = [array.astype(dtype) for array in problem(with_addend, 7, (4, 3, 5, 7))]
    upstream = np.random.default_rng(8).standard_normal((4, 3, 5, 7)).astype(dtype)
    results = {}
    for way in ("fused", "expanded"):
        running = np.linspace(-1, 1, 3).astype(dtype), np.linspace(0.5, 2, 3).astype(dtype)
        leaves = [Tensor(array, requires_grad=True) for array in arrays]
        with using("reference") if way == "expanded" else nullcontext():
            y = operation(training, with_addend, running)(*leaves)
        names = [type(function).__name__ for function in graph(y)]
        norm = "BatchNorm" if training else "Normalize"
        assert names == (["ReLU", *["Add"] * with_addend, norm] if way == "expanded" else ["BatchNormReLU"])
        y.backward(upstream)
        results[way] = [y.data, *running, *(leaf.grad for leaf in leaves)]
    # sums over 140 numbers, and a handful of operations each: some tens of eps of the largest
    for fused, expanded in zip(results["fused"], results["expanded"], strict=True):
        tolerance = 50 * np.finfo(dtype).eps * np.abs(expanded).max()
        np.testing.assert_allclose(fused, expanded, rtol=0, atol=tolerance)


def test_the_same_tensor_may_be_normalized_and_added():
    """An identity shortcut around a batch norm alone: x goes two ways and its gradient comes back from both."""
    x, weight, bias, _ = problem_without_kinks(True, True)

    def compute(t, w, b):
        return batch_norm_relu(t, None, None, w, b, t, training=True)

    for seed in itertools.count():
        x = np.random.default_rng(seed).standard_normal(SHAPE)
        before = functional.batch_norm(Tensor(x), None, None, Tensor(weight), Tensor(bias), training=True).data + x
        if np.abs(before).min() > 20 * REACH:
            break
    check_gradients(compute, x, weight, bias)


def test_the_addend_s_gradient_is_gated_and_otherwise_unchanged():
    x, weight, bias, addend = (Tensor(a, requires_grad=True) for a in problem(True, 9))
    y = operation(True, True)(x, weight, bias, addend)
    upstream = np.random.default_rng(10).standard_normal(SHAPE)
    y.backward(upstream)
    np.testing.assert_array_equal(addend.grad, np.where(y.data > 0, upstream, 0))


def test_no_gradient_is_computed_for_an_addend_that_wants_none():
    x, weight, bias, addend = (Tensor(array) for array in problem(True, 9))
    x.requires_grad = True
    y = operation(True, True)(x, weight, bias, addend)
    assert y.creator.backward(np.ones(SHAPE))[3] is None


@pytest.mark.parametrize(
    ("addend", "error", "message"),
    [
        (
            Tensor(np.zeros((2, 3, 2, 2))),
            ValueError,
            r"addend must have the shape of x; x \(2, 3, 2, 3\), addend",
        ),
        (np.zeros(SHAPE), TypeError, "addend must be a Tensor, got ndarray"),
        (Tensor(np.zeros(SHAPE, np.float32)), TypeError, "different floating-point types"),
    ],
)
def test_an_addend_that_does_not_fit_is_refused(addend, error, message, way):
    x, weight, bias = map(Tensor, problem(False, 0))
    running = np.zeros(3), np.ones(3)
    with pytest.raises(error, match=message):
        operation(True, True, running)(x, weight, bias, addend)
    assert not running[0].any()


def test_matrices_are_refused():
    with pytest.raises(ValueError, match=r"batch_norm_relu: x must be \(N, C, H, W\), got shape \(4, 3\)"):
        batch_norm_relu(Tensor(np.zeros((4, 3))), None, None, training=True)
