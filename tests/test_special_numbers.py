"""0, -0, infinities, NaN, denormals and extreme numbers through every operation, forward and backward, as in PyTorch.

Where we differ there is a reason, in ``REASONS``, and the test looks away there and nowhere else.
"""

from __future__ import annotations

import operator

import numpy as np
import pytest

from minires import Tensor, functional, using

torch = pytest.importorskip("torch")
F = torch.nn.functional
pytestmark = [pytest.mark.witness, pytest.mark.filterwarnings("ignore::RuntimeWarning")]

SPECIAL = [0.0, -0.0, np.inf, -np.inf, np.nan, 1e-40, -1e-40, 1e30, -1e30, 1e-30, -1e-30, 1.0, -1.0, 0.5, -2.5, 3.0]
X, Y = (each.ravel() for each in np.meshgrid(SPECIAL, SPECIAL))
ROWS = np.where(np.eye(16, dtype=bool), np.array(SPECIAL)[:, None], 1 + np.arange(16) / 7)  # one special number in each
MASK = np.random.default_rng(0).random(256) < 0.5
TOLERANCE = {"float32": 2e-5, "float64": 1e-11}


def gradients(operation, arrays, upstream):
    leaves = [Tensor(array.copy(), requires_grad=True) for array in arrays]
    y = operation(*leaves)
    y.backward(upstream(y.shape).astype(arrays[0].dtype))
    return y.data, *(leaf.grad for leaf in leaves)


def witnessed(operation, arrays, upstream):
    leaves = [torch.tensor(array, requires_grad=True) for array in arrays]
    y = operation(*leaves)
    y.backward(torch.tensor(upstream(tuple(y.shape)).astype(arrays[0].dtype)))
    return y.detach().numpy(), *(leaf.grad.numpy() for leaf in leaves)


def drawn(shape):
    return np.asarray(np.random.default_rng(7).standard_normal(shape))


def endless(shape):
    return np.full(shape, np.inf)


ELEMENTWISE = {
    "add": (operator.add, operator.add, (X, Y)),
    "sub": (operator.sub, operator.sub, (X, Y)),
    "mul": (operator.mul, operator.mul, (X, Y)),
    "div": (operator.truediv, operator.truediv, (X, Y)),
    "pow": (operator.pow, operator.pow, (X, Y)),
    "neg": (operator.neg, operator.neg, (X,)),
    "abs": (abs, abs, (X,)),
    "exp": (Tensor.exp, lambda x: x.exp(), (X,)),
    "log": (Tensor.log, lambda x: x.log(), (X,)),
    "sqrt": (Tensor.sqrt, lambda x: x.sqrt(), (X,)),
    "clip": (lambda x: x.clip(-1, 1), lambda x: x.clamp(-1, 1), (X,)),
    "clip below": (lambda x: x.clip(lower=0), lambda x: x.clamp(min=0), (X,)),
    "clip above": (lambda x: x.clip(upper=0), lambda x: x.clamp(max=0), (X,)),
    "relu": (functional.relu, lambda x: x.relu(), (X,)),
    "sigmoid": (functional.sigmoid, lambda x: x.sigmoid(), (X,)),
    "tanh": (functional.tanh, lambda x: x.tanh(), (X,)),
    "where": (
        lambda x, y: functional.where(MASK, x, y),
        lambda x, y: x.where(x.new_tensor(MASK).bool(), y),
        (X, Y),
    ),
    "pad": (
        lambda x: functional.pad(x, [(1, 2)]),
        lambda x: x.new_zeros(259).index_add(0, x.new_tensor(range(1, 257)).long(), x),
        (X,),
    ),
    "index": (lambda x: x[[0, 2, 2, 4]], lambda x: x[[0, 2, 2, 4]], (X,)),
    "max": (lambda x: x.max(1), lambda x: x.max(1)[0], (ROWS,)),
    "sum": (lambda x: x.sum(0), lambda x: x.sum(0), (ROWS,)),
    "mean": (lambda x: x.mean(0), lambda x: x.mean(0), (ROWS,)),
    "max of one": (lambda x: x.max(0), lambda x: x.max(0)[0], (ROWS,)),
}
for _exponent in (0, 1, 2, 3, -1, 0.5, -0.5, 2.5, np.inf, np.nan):
    ELEMENTWISE[f"x ** {_exponent}"] = (lambda x, e=_exponent: x**e, lambda x, e=_exponent: x**e, (X,))
    ELEMENTWISE[f"{_exponent} ** x"] = (
        lambda x, b=_exponent: float(b) ** x,
        lambda x, b=_exponent: float(b) ** x,
        (X,),
    )

SIGNED = np.signbit(X) & ((X == 0) | np.isinf(X))

REASONS = {
    # PyTorch takes square roots: -0 keeps its sign, and -infinity gives NaN. C's pow, which we take, has no sign there.
    "x ** -0.5": SIGNED,
    "x ** 0.5": SIGNED,
    # PyTorch's slope at NaN is 0, as if it were a kink. We let the NaN show.
    "abs": np.isnan(X),
}
ENDLESS_REASONS = {
    # PyTorch multiplies by the slope 0, which makes NaN; we choose 0.
    "abs": (X == 0) | np.isnan(X),
    "pow": (X == 0) & (Y >= 0),
    "0 ** x": X >= 0,
}


def compare(results, expected, looked_away, dtype):
    for position, (result, value) in enumerate(zip(results, expected, strict=True)):
        assert result.dtype == dtype
        result, value = np.array(result), np.array(value)
        if looked_away is not None and result.shape == looked_away.shape:
            result[looked_away] = value[looked_away] = 0
        np.testing.assert_allclose(
            result, value, rtol=TOLERANCE[dtype], atol=1e-42, err_msg=f"result {position}: value, gradients"
        )


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", ELEMENTWISE)
def test_special_numbers_and_their_gradients_as_in_pytorch(name, dtype):
    operation, witness, arrays = ELEMENTWISE[name]
    arrays = [array.astype(dtype) for array in arrays]
    results = gradients(operation, arrays, drawn)
    compare(results, witnessed(witness, arrays, drawn), REASONS.get(name), dtype)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", ["where", "clip", "clip below", "clip above", "relu", "abs", "pow", "0 ** x", "x ** 0",
                                  "max", "index"])  # fmt: skip
def test_an_infinite_gradient_where_nothing_passes_is_zero(name, dtype):
    operation, witness, arrays = ELEMENTWISE[name]
    arrays = [array.astype(dtype) for array in arrays]
    results = gradients(operation, arrays, endless)
    compare(results, witnessed(witness, arrays, endless), ENDLESS_REASONS.get(name), dtype)


# ---- what mixes numbers --------------------------------------------------------------------------


def statistics(x):
    return np.linspace(-0.3, 0.2, 2).astype(x.dtype), np.linspace(0.7, 1.9, 2).astype(x.dtype)


IMAGES = {
    "max pool": (
        lambda x: functional.max_pool2d(x, 3, stride=2, padding=1),
        lambda x: F.max_pool2d(x, 3, 2, 1),
    ),
    "average pool": (
        lambda x: functional.avg_pool2d(x, 3, stride=2, padding=1),
        lambda x: F.avg_pool2d(x, 3, 2, 1),
    ),
    "adaptive pool": (lambda x: functional.adaptive_avg_pool2d(x, 2), lambda x: F.adaptive_avg_pool2d(x, 2)),
    "softmax": (lambda x: functional.softmax(x, 1), lambda x: F.softmax(x, 1)),
    "log softmax": (lambda x: functional.log_softmax(x, 3), lambda x: F.log_softmax(x, 3)),
    "norm in evaluation": (
        lambda x: functional.batch_norm(x, *statistics(x), weight(x), weight(x)),
        lambda x: F.batch_norm(x, *map(x.new_tensor, statistics(x.detach().numpy())), *map(x.new_tensor, two(x))),
    ),
    "norm and ReLU in evaluation": (
        lambda x: functional.batch_norm_relu(x, *statistics(x), weight(x), weight(x)),
        lambda x: F.batch_norm(
            x, *map(x.new_tensor, statistics(x.detach().numpy())), *map(x.new_tensor, two(x))
        ).relu(),
    ),
    "norm in training": (
        lambda x: functional.batch_norm(x, None, None, weight(x), weight(x), training=True),
        lambda x: F.batch_norm(x, None, None, *map(x.new_tensor, two(x)), training=True),
    ),
}


def two(x):
    return [[1.5, -0.5]] * 2


def weight(x):
    return Tensor(np.array([1.5, -0.5], x.dtype))


@pytest.mark.parametrize("implementation", [None, "reference"])
@pytest.mark.parametrize("number", [np.inf, -np.inf, np.nan, 1e-40])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", IMAGES)
def test_one_special_pixel_as_in_pytorch(name, dtype, number, implementation):
    operation, witness = IMAGES[name]
    x = np.random.default_rng(3).standard_normal((2, 2, 6, 6)).astype(dtype)
    x[0, 1, 2, 3] = number
    expected = witnessed(witness, [x], drawn)
    if implementation is None:
        results = gradients(operation, [x], drawn)
    else:
        with using(implementation):
            results = gradients(operation, [x], drawn)
    for result, value in zip(results, expected, strict=True):
        np.testing.assert_allclose(result, value, rtol=TOLERANCE[dtype], atol=TOLERANCE[dtype])


@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_cross_entropy_of_rows_with_a_special_logit_as_in_pytorch(dtype, smoothing, reduction):
    options = {"label_smoothing": smoothing, "reduction": reduction}
    for target in (np.arange(16), np.arange(16)[::-1].copy()):
        results = gradients(lambda z, t=target: functional.cross_entropy(z, t, **options), [ROWS.astype(dtype)], drawn)
        expected = witnessed(
            lambda z, t=target: F.cross_entropy(z, torch.tensor(t), **options), [ROWS.astype(dtype)], drawn
        )
        for result, value in zip(results, expected, strict=True):
            np.testing.assert_allclose(result, value, rtol=TOLERANCE[dtype], atol=TOLERANCE[dtype])
