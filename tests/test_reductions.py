"""Reductions beyond sum and mean: extremes over any axes, their positions, any and all; what is refused."""

from __future__ import annotations

import operator

import numpy as np
import pytest

from minires import Tensor
from tests.finite_differences import distinct
from tests.questions import check_gradients, check_politeness

AXES = [None, 0, 1, -1, (0, 2), (1,), (-1, 0), (2, 0), (0, 1, 2), ()]
EXTREMES = ["max", "min"]
REDUCTIONS = ["sum", "mean", "var", "max", "min", "any", "all"]
POSITIONS = ["argmax", "argmin"]


@pytest.mark.parametrize("keepdims", [False, True])
@pytest.mark.parametrize("axis", AXES, ids=str)
@pytest.mark.parametrize("name", EXTREMES)
def test_extreme_over_any_axes(name, axis, keepdims):
    x = distinct((2, 3, 4), np.random.default_rng(0))
    options = {"axis": axis, "keepdims": keepdims}

    def method(t):
        return getattr(t, name)(**options)

    expected = getattr(np, name)(x, **options)
    np.testing.assert_array_equal(method(Tensor(x)).data, expected)
    assert method(Tensor(x)).shape == expected.shape
    check_gradients(method, x)
    check_politeness(method, x)


@pytest.mark.parametrize("name", EXTREMES)
def test_the_first_of_equal_extremes_in_row_order_receives_the_whole_gradient(name):
    x = Tensor(np.array([[[0.0, 2.0], [5.0, 5.0]], [[5.0, 1.0], [2.0, 2.0]]]), requires_grad=True)
    if name == "min":
        x.data *= -1
    upstream = np.random.default_rng(1).standard_normal(2)
    getattr(x, name)((0, 2)).backward(upstream)  # columns x[:, 0, :] and x[:, 1, :]
    expected = np.zeros((2, 2, 2))
    expected[1, 0, 0], expected[0, 1, 0] = upstream
    np.testing.assert_array_equal(x.grad, expected)


@pytest.mark.parametrize("name", EXTREMES)
def test_a_nan_is_the_extreme_and_gets_the_gradient(name):
    x = Tensor(np.array([1.0, np.nan, 3.0, np.nan]), requires_grad=True)
    y = getattr(x, name)()
    assert np.isnan(y.item())
    y.backward(np.array(-2.5))
    assert x.grad.tolist() == [0.0, -2.5, 0.0, 0.0]


@pytest.mark.parametrize("values", [[3, -1, 2], [True, False, True]])
@pytest.mark.parametrize("name", EXTREMES)
def test_extremes_of_whole_numbers_and_booleans_keep_their_type(name, values):
    array = np.array(values)
    result = getattr(Tensor(array), name)()
    assert result.dtype == array.dtype
    assert result.item() == getattr(array, name)()


@pytest.mark.parametrize("shape", [(0, 3), (2, 0, 3)])
@pytest.mark.parametrize("name", [*EXTREMES, *POSITIONS])
def test_an_extreme_of_nothing_is_refused_and_nothing_of_extremes_is_empty(name, shape):
    x = Tensor(np.zeros(shape, np.float32))
    for axis in (None, len(shape) - 2):
        with pytest.raises(ValueError, match=rf"{name}: .* at least one element, .*shape \({shape[0]}, "):
            getattr(x, name)(axis)
    assert getattr(x, name)(-1).shape == shape[:-1]


@pytest.mark.parametrize("keepdims", [False, True])
@pytest.mark.parametrize("axis", [None, 0, 1, -1])
@pytest.mark.parametrize("name", POSITIONS)
def test_position_of_the_first_extreme_has_no_gradient(name, axis, keepdims):
    x = np.random.default_rng(2).integers(0, 3, (4, 5)).astype(np.float32)  # with many equals
    result = getattr(Tensor(x, requires_grad=True), name)(axis, keepdims=keepdims)
    assert not result.requires_grad
    assert result.dtype == np.int64
    expected = getattr(np, name)(x, axis=axis, keepdims=keepdims)
    assert result.shape == np.shape(expected)
    np.testing.assert_array_equal(result.data, expected)


@pytest.mark.parametrize("dtype", [np.bool_, np.float32, np.int64])
@pytest.mark.parametrize("axis", [None, 1, (0, 2)], ids=str)
@pytest.mark.parametrize("name", ["any", "all"])
def test_any_and_all_ask_whether_elements_hold(name, axis, dtype):
    x = (np.random.default_rng(3).random((3, 4, 2)) < (0.2 if name == "any" else 0.8)).astype(dtype)
    for keepdims in (False, True):
        result = getattr(Tensor(x), name)(axis, keepdims)
        assert result.dtype == bool
        np.testing.assert_array_equal(result.data, getattr(np, name)(x, axis, keepdims=keepdims))
    assert Tensor(np.zeros((0, 2), bool)).any().item() is False
    assert Tensor(np.zeros((0, 2), bool)).all().item() is True


@pytest.mark.filterwarnings("error")
def test_the_mean_of_nothing_is_nan_as_in_torch_without_a_warning():
    x = Tensor(np.zeros((0, 3), np.float32), requires_grad=True)
    assert np.isnan(x.mean().item())
    column_means = x.mean(0)
    assert column_means.dtype == np.float32
    assert np.isnan(column_means.data).tolist() == [True] * 3
    column_means.backward(np.ones(3, np.float32))
    assert x.grad.shape == (0, 3)
    assert x.mean(1).shape == (0,)


@pytest.mark.filterwarnings("error")
def test_the_variance_along_an_axis_of_nothing_is_empty_where_it_is_defined():
    x = Tensor(np.zeros((0, 3), np.float32), requires_grad=True)
    y = x.var(1)
    assert y.shape == (0,)
    y.backward(np.zeros(0, np.float32))
    assert x.grad.shape == (0, 3)
    with pytest.raises(ValueError, match="var: correction must not be negative, got -1"):
        x.var(0, correction=-1)


# ---- what is refused, in our words ---------------------------------------------------------------

NO_AXES = [
    (1.0, r"axis must be an integer.*got 1\.0"),
    ("a", r"axis must be an integer.*got 'a'"),
    (True, r"axis must be an integer.*got True"),
    (np.True_, r"axis must be an integer.*got np\.True_"),
    (np.ones(2), r"axis must be an integer.*got array"),
    ({0}, r"axis must be an integer.*got \{0\}"),
    (Tensor([1.0]), r"axis must be an integer.*got a Tensor of shape \(1,\); use .item"),
]


@pytest.mark.parametrize("method", [*REDUCTIONS, *POSITIONS])
@pytest.mark.parametrize(("axis", "message"), NO_AXES, ids=str)
def test_an_axis_that_is_no_integer_is_refused(method, axis, message):
    with pytest.raises(TypeError, match=f"^{method}: {message}"):
        getattr(Tensor(np.ones((2, 3))), method)(axis)


@pytest.mark.parametrize("method", REDUCTIONS)
def test_axes_that_are_not_integers_or_not_there_or_come_twice_are_refused(method):
    reduce = getattr(Tensor(np.ones((2, 3))), method)
    with pytest.raises(TypeError, match=rf"^{method}: axis must be an integer.*got 0\.5"):
        reduce((0, 0.5))
    with pytest.raises(TypeError, match=rf"^{method}: axis must be an integer.*got \(0,\)"):
        reduce([(0,)])
    with pytest.raises(ValueError, match=rf"^{method}: axis 2 doesn't exist in shape \(2, 3\)"):
        reduce((0, 2))
    with pytest.raises(ValueError, match=rf"^{method}: axis \(0, -2\) names axis 0 twice; shape \(2, 3\)"):
        reduce((0, -2))


@pytest.mark.parametrize("method", POSITIONS)
def test_a_position_is_along_one_axis_or_all(method):
    with pytest.raises(TypeError, match=rf"^{method}: axis must be an integer or None, got \(0, 1\)"):
        getattr(Tensor(np.ones((2, 3))), method)((0, 1))
    with pytest.raises(ValueError, match=rf"^{method}: axis -3 doesn't exist in shape \(2, 3\)"):
        getattr(Tensor(np.ones((2, 3))), method)(-3)


@pytest.mark.parametrize("method", REDUCTIONS)
def test_a_list_or_numpy_integers_will_do_for_axes(method):
    x = Tensor(np.random.default_rng(4).standard_normal((2, 3, 4)))
    expected = getattr(x, method)((0, 2)).data
    for axis in ([0, 2], (np.int64(0), np.int8(-1))):
        np.testing.assert_array_equal(getattr(x, method)(axis).data, expected)


@pytest.mark.parametrize("method", [*REDUCTIONS, *POSITIONS])
@pytest.mark.parametrize("keepdims", ["yes", 1, None, 0.0, np.ones(2)], ids=str)
def test_keepdims_is_true_or_false(method, keepdims):
    with pytest.raises(TypeError, match=f"^{method}: keepdims must be True or False, got "):
        getattr(Tensor(np.ones((2, 3))), method)(0, keepdims=keepdims)


@pytest.mark.parametrize("correction", [None, 1.5, "1", True])
def test_the_correction_of_a_variance_is_an_integer(correction):
    with pytest.raises(TypeError, match=r"^var: correction must be an integer, got "):
        Tensor(np.ones((2, 3))).var(correction=correction)


# ---- torch ---------------------------------------------------------------------------------------


@pytest.mark.witness
@pytest.mark.parametrize("name", ["max", "min", "sum", "mean", "var", "argmax", "argmin", "any", "all"])
def test_values_and_gradients_are_torch_s(name):
    """Distinct numbers: among equals torch's amax spreads the gradient evenly, ours goes to the first."""
    torch = pytest.importorskip("torch")
    theirs_by_name = {"max": torch.amax, "min": torch.amin, "var": lambda t, d, k: t.var(d, correction=0, keepdim=k)}
    theirs = theirs_by_name.get(name, getattr(torch, name))
    x = distinct((3, 4, 5), np.random.default_rng(5)).astype(np.float32)
    for axis in (1,) if name in POSITIONS else (1, -1, (0, 2)):
        for keepdims in (False, True):
            ours, other = Tensor(x, requires_grad=True), torch.tensor(x, requires_grad=True)
            result = getattr(ours, name)(dim=axis, keepdim=keepdims)
            expected = theirs(other, axis, keepdims)
            np.testing.assert_allclose(result.data, expected.detach().numpy(), rtol=1e-5, atol=1e-6)
            assert result.dtype.name == str(expected.dtype).removeprefix("torch.")
            if result.requires_grad:
                upstream = np.random.default_rng(6).standard_normal(result.shape).astype(np.float32)
                result.backward(upstream)
                expected.backward(torch.tensor(upstream))
                np.testing.assert_allclose(ours.grad, other.grad.numpy(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("method", [*REDUCTIONS, *POSITIONS])
def test_torch_s_keywords_mean_ours_and_both_are_refused(method):
    x = Tensor(np.random.default_rng(7).standard_normal((2, 3)))
    reduce = getattr(x, method)
    np.testing.assert_array_equal(reduce(dim=1, keepdim=True).data, reduce(axis=1, keepdims=True).data)
    for call in (lambda: reduce(axis=0, dim=0), lambda: reduce(0, dim=0)):
        with pytest.raises(TypeError, match=rf"^{method}: axis and dim are two names of one argument"):
            call()
    with pytest.raises(TypeError, match="keepdims and keepdim are two names of one argument"):
        reduce(0, keepdims=True, keepdim=True)
    with pytest.raises(TypeError, match="unexpected keyword argument 'dims'"):
        reduce(dims=0)


def test_a_scalar_result_of_any_serves_as_a_condition():
    assert Tensor([0.0, 1.0]).any()
    assert operator.index(Tensor([3, 7, 5]).argmax()) == 1
