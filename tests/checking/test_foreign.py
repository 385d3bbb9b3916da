"""Code that isn't ours: NumPy functions with a hand-written backward, torch functions."""

import numpy as np
import pytest

from minires.checking import check_arrays, check_torch

X = np.random.default_rng(1).standard_normal((4, 3))
WEIGHT = np.random.default_rng(2).standard_normal((3, 3))


def product(x, weight):
    return x @ weight


def product_backward(grad_output, x, weight):
    return grad_output @ weight.T, x.T @ grad_output


def test_a_right_numpy_function_passes():
    report = check_arrays(product, product_backward, X, WEIGHT.astype(np.float32))
    assert report
    assert [str(comparison.dtype) for comparison in report.comparisons] == ["float64", "float32"]


def test_a_wrong_numpy_function_is_explained():
    report = check_arrays(product, lambda g, x, weight: (g @ weight, x.T @ g), X, WEIGHT)
    assert not report
    assert report.cause == "transposed"
    assert "weight were transposed" in str(report)
    assert "test_foreign.py:" in report.source


def test_a_single_gradient_and_integers_are_accepted():
    index = np.array([0, 2, 2])

    def backward(g, x, index):
        grad = np.zeros_like(x)
        np.add.at(grad, index, g)
        return grad

    assert check_arrays(lambda x, index: x[index], backward, X, index)

    def overwriting(g, x, index):
        grad = np.zeros_like(x)
        grad[index] = g
        return grad

    assert check_arrays(lambda x, index: x[index], overwriting, X, index).cause == "overwritten"


def test_misbehaviour_is_said_in_a_sentence():
    def writes(g, x):
        g *= 2
        return g

    assert "upstream" in check_arrays(np.tanh, writes, X).problem or "again" in check_arrays(np.tanh, writes, X).problem
    assert "different values" in check_arrays(lambda x: x * np.random.default_rng().random(), writes, X).problem
    assert "has shape (3,)" in check_arrays(np.tanh, lambda g, x: g.sum(0), X).problem
    assert "float32" in check_arrays(np.tanh, lambda g, x: g.astype(np.float32), X).problem


@pytest.mark.parametrize(
    ("forward", "backward", "arrays", "words"),
    [
        (np.tanh, None, (X + 1j,), "complex128"),
        (np.tanh, None, (np.arange(3),), "nothing to check"),
        (lambda x: None, None, (X,), "must return one array, got NoneType"),
        (lambda x: x > 0, None, (X,), "returned bool"),
        (np.tanh, lambda g, x: (g, g), (X,), "must return 1 gradients"),
    ],
)
def test_what_cannot_be_checked_raises(forward, backward, arrays, words):
    with pytest.raises(TypeError, match=words):
        check_arrays(forward, backward, *arrays)


def test_torch_needs_torch_tensors():
    with pytest.raises(TypeError, match="torch tensor"):
        check_torch(lambda x: x, X)


@pytest.mark.witness
def test_torch_functions():
    torch = pytest.importorskip("torch")

    class Half(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            ctx.save_for_backward(x)
            return x * x

        @staticmethod
        def backward(ctx, grad_output):
            (x,) = ctx.saved_tensors
            return x * grad_output

    assert check_torch(torch.nn.functional.softplus, torch.tensor(X))
    assert check_torch(torch.relu, torch.tensor([0.0, 1.0, -1.0])).excluded == 1
    report = check_torch(Half.apply, torch.tensor(X, dtype=torch.float32))
    assert report.cause == "factor"
    assert "a factor 2 is missing" in str(report)
    with pytest.raises(TypeError, match="must return one tensor"):
        check_torch(lambda x: (x, x), torch.tensor(X))
