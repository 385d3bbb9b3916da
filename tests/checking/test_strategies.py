"""The hypothesis strategies keep their promises; the decorators make tests that can fail."""

import numpy as np
import pytest
from hypothesis import given

from minires import Function, Tensor, functional
from minires.checking.strategies import (
    PROFILE,
    broadcastable,
    check_backward,
    check_forward,
    conv_cases,
    layouts,
    shapes,
    tensors,
)
from minires.tensor import apply


@PROFILE
@given(broadcastable(3))
def test_broadcastable_shapes_broadcast(drawn):
    assert len(drawn) == 3
    np.broadcast_shapes(*drawn)


@PROFILE
@given(tensors(shapes(min_dims=1), avoid=[0.0, 1.0], min_gap=1e-3))
def test_elements_keep_their_distance(x):
    values = np.sort(x.data.reshape(-1))
    assert np.all(np.diff(values) >= 1e-3 * 0.999)
    assert np.all(np.abs(values) >= 1e-3 * 0.999)
    assert np.all(np.abs(values - 1) >= 1e-3 * 0.999)


@PROFILE
@given(tensors((2, 3, 4, 5)), layouts())
def test_layouts_keep_the_values(x, layout):
    moved = layout(x.data)
    np.testing.assert_array_equal(moved, x.data)
    assert not np.shares_memory(moved, x.data) or moved is x.data


@PROFILE
@given(conv_cases())
def test_conv_cases_fit(case):
    y = functional.conv2d(Tensor(np.ones(case.x)), Tensor(np.ones(case.weight)), **case.options)
    assert min(y.shape) >= 1


@check_backward(x=tensors(shapes(min_dims=1, max_dims=3), avoid=[0.0], min_gap=1e-2))
def test_relu_by_decorator(x):
    return functional.relu(x)


@check_forward(np.tanh, x=tensors(shapes()))
def test_tanh_by_decorator(x):
    return functional.tanh(x)


def test_the_decorators_make_tests_that_fail_for_what_is_wrong():
    class Wrong(Function):
        def forward(self, x):
            return np.tanh(x)

        def backward(self, grad_output):
            return (grad_output.copy(),)

    @check_backward(x=tensors((3,)))
    def backward(x):
        return apply(Wrong(), x)

    @check_forward(np.sin, x=tensors((3,)))
    def forward(x):
        return apply(Wrong(), x)

    with pytest.raises(AssertionError, match="gradcheck FAILED"):
        backward()
    with pytest.raises(AssertionError, match="Not equal to tolerance"):
        forward()


def test_too_many_elements_for_the_gap_are_refused():
    @PROFILE
    @given(tensors((100,), min_gap=0.5))
    def never(x):
        raise AssertionError("unreachable")

    with pytest.raises(ValueError, match="no room for 100 elements"):
        never()
