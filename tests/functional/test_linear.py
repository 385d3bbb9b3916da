"""linear."""

from __future__ import annotations

import numpy as np
import pytest

from minires import Tensor
from minires.functional import linear
from minires.functional.linear import FEW_PRODUCTS
from tests import oracles_net
from tests.questions import check_gradients, check_politeness


@pytest.mark.parametrize("shape", [(3, 4, 2), (1, 1, 1), (0, 3, 2), (5, 2, 7), (2, 3, 3)])
def test_value_and_gradients(shape):
    """A square weight is among them: transposed by mistake it has the right shape."""
    N, features, outputs = shape
    rng = np.random.default_rng(0)
    arrays = [rng.standard_normal(each) for each in ((N, features), (outputs, features), (outputs,))]
    np.testing.assert_allclose(linear(*map(Tensor, arrays)).data, oracles_net.linear(*arrays), rtol=1e-13, atol=1e-14)
    check_gradients(linear, *arrays)
    check_gradients(linear, *arrays[:2])
    check_politeness(linear, *arrays)


@pytest.mark.parametrize("leading", [(), (1,), (0,), (2, 3), (2, 0, 3), (2, 1, 3, 1)], ids=str)
def test_any_leading_axes_are_the_batch(leading):
    rng = np.random.default_rng(2)
    arrays = [rng.standard_normal(each) for each in ((*leading, 4), (3, 4), (3,))]
    y = linear(*map(Tensor, arrays))
    assert y.shape == (*leading, 3)
    rows = oracles_net.linear(arrays[0].reshape(int(np.prod(leading)), 4), *arrays[1:])
    np.testing.assert_allclose(y.data, rows.reshape(y.shape), rtol=1e-13, atol=1e-14)
    check_gradients(linear, *arrays)
    check_gradients(linear, *arrays[:2])
    check_politeness(linear, *arrays)


@pytest.mark.parametrize("shape", [(40, 100, 80), (13, 7, 3001)])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_many_products_give_the_same(shape, dtype):
    """Above FEW_PRODUCTS other kernels compute: their three results against matrix products in float64."""
    N, features, outputs = shape
    assert N * features * outputs > FEW_PRODUCTS
    rng = np.random.default_rng(1)
    x, weight, upstream = (
        rng.standard_normal(each).astype(dtype) for each in ((N, features), (outputs, features), (N, outputs))
    )
    tensors = Tensor(x, requires_grad=True), Tensor(weight, requires_grad=True)
    y = linear(*tensors)
    y.backward(upstream)
    wide = [array.astype(np.float64) for array in (x, weight, upstream)]
    expected = wide[0] @ wide[1].T, wide[2] @ wide[1], wide[2].T @ wide[0]
    for found, value in zip((y.data, *(t.grad for t in tensors)), expected, strict=True):
        assert found.dtype == dtype
        np.testing.assert_allclose(found, value, rtol=0, atol=40 * np.finfo(dtype).eps * abs(value).max())


@pytest.mark.parametrize("skipped", range(3))
def test_a_gradient_that_nobody_wants_is_not_computed(skipped):
    shapes = ((3, 4), (2, 4), (2,))
    y = linear(*(Tensor(np.ones(s), requires_grad=position != skipped) for position, s in enumerate(shapes)))
    returned = y.creator.backward(np.ones((3, 2)))
    assert [gradient is None for gradient in returned] == [position == skipped for position in range(3)]


def tensor(*shape, dtype=np.float32):
    return Tensor(np.zeros(shape, dtype))


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (
            (tensor(2, 3), tensor(5, 4)),
            ValueError,
            r"linear: x has 3 features, but weight takes 4; x \(2, 3\), weight \(5, 4\); weight must be \(out_features",
        ),
        (
            (tensor(2, 3), tensor(5, 3), tensor(3)),
            ValueError,
            r"linear: bias must have shape \(5,\); x \(2, 3\), weight \(5, 3\), bias \(3,\)",
        ),
        (
            (tensor(2, 3, 1, 1), tensor(5, 3)),
            ValueError,
            r"linear: x has 1 features, but weight takes 3; x \(2, 3, 1, 1\), weight \(5, 3\)",
        ),
        (
            (tensor(), tensor(5, 3)),
            ValueError,
            r"linear: x has no features, but weight takes 3; x \(\), weight \(5, 3\)",
        ),
        ((tensor(2, 3), tensor(5)), ValueError, "linear: weight must be"),
        ((tensor(2, 3), np.zeros((5, 3))), TypeError, "linear: weight must be a Tensor, got ndarray"),
        ((tensor(2, 3), tensor(5, 3, dtype=np.float64)), TypeError, "Linear: inputs have different floating-point"),
        (
            (tensor(2, 3, dtype=np.int64), tensor(5, 3)),
            TypeError,
            "linear: x must hold floating-point numbers, got int64",
        ),
    ],
)
def test_refuses(arguments, error, message):
    with pytest.raises(error, match=message):
        linear(*arguments)
