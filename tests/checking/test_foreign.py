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


INDEX = np.array([0, 2, 2])


def chosen(x, index):
    return x[index]


def chosen_backward(grad_output, x, index):
    grad = np.zeros_like(x)
    np.add.at(grad, index, grad_output)
    return grad


def test_a_single_gradient_and_integers_are_accepted():
    assert check_arrays(chosen, chosen_backward, X, INDEX)

    def overwriting(g, x, index):
        grad = np.zeros_like(x)
        grad[index] = g
        return grad

    assert check_arrays(chosen, overwriting, X, INDEX).cause == "overwritten"


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


# ---- the complex step


def softplus(x, weight):
    return np.log(1 + np.exp(x @ weight))


def softplus_backward(grad_output, x, weight):
    slope = grad_output / (1 + np.exp(-(x @ weight)))
    return slope @ weight.T, x.T @ slope


def test_the_complex_step_is_exact_to_rounding():
    report = check_arrays(softplus, softplus_backward, X, WEIGHT, method="complex", rtol=1e-12)
    assert report
    assert all(point.numeric.noise < 1e-13 for comparison in report.comparisons for point in comparison.points)


def test_the_complex_step_finds_what_differences_forgive():
    def off_by_a_billionth(grad_output, x, weight):
        grad_x, grad_weight = softplus_backward(grad_output, x, weight)
        return grad_x * (1 + 1e-9), grad_weight

    assert check_arrays(softplus, off_by_a_billionth, X, WEIGHT)
    report = check_arrays(softplus, off_by_a_billionth, X, WEIGHT, method="complex", rtol=1e-12)
    assert [comparison.ok for comparison in report.comparisons] == [False, True]


def test_integers_stay_as_they_are_in_the_complex_step():
    assert check_arrays(chosen, chosen_backward, X, INDEX, method="complex", rtol=1e-13)


@pytest.mark.parametrize(
    ("forward", "words"),
    [
        (lambda x: np.abs(x) * 2, "returned float64 for complex inputs: .* drops the imaginary part"),
        (lambda x: x * np.conj(x), "isn't analytic in x"),
        (lambda x: np.where(np.abs(x) > 0, x.conj(), x) ** 2 + 0 * x, "isn't analytic in x: along one direction"),
        (lambda x: np.cbrt(x), "doesn't take complex numbers .TypeError: ufunc 'cbrt'"),
    ],
)
def test_what_is_not_analytic_is_refused_in_a_sentence(forward, words):
    with pytest.raises(TypeError, match=words):
        check_arrays(forward, lambda g, x: 2 * g, X, method="complex")


def test_an_unknown_method_is_refused():
    with pytest.raises(ValueError, match="method must be 'differences' or 'complex', got 'forward'"):
        check_arrays(np.tanh, lambda g, x: g, X, method="forward")
