"""Operators and methods of Tensor: values, gradients, dtypes, broadcasting."""

from __future__ import annotations

import operator
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from minires import Tensor
from minires.algebra import expand_reduced, sum_to_shape
from tests.finite_differences import away_from_zero, distinct
from tests.questions import check_gradients, check_politeness

BINARY = {
    "add": operator.add,
    "sub": operator.sub,
    "mul": operator.mul,
    "div": operator.truediv,
    "pow": operator.pow,
}


def operands(name, x_shape, y_shape, seed):
    """Numbers that ``name`` is smooth at: divisors away from 0, bases positive."""
    rng = np.random.default_rng(seed)
    x, y = rng.standard_normal(x_shape), rng.standard_normal(y_shape)
    if name == "div":
        y = away_from_zero(y, 0.5)
    if name == "pow":
        x = np.abs(x) + 0.5
    return x, y


@pytest.mark.parametrize("name", BINARY)
def test_binary_operator_computes_what_numpy_computes(name):
    x, y = operands(name, (3, 4), (4,), 0)
    np.testing.assert_allclose(BINARY[name](Tensor(x), Tensor(y)).data, BINARY[name](x, y), rtol=1e-15)


@pytest.mark.parametrize("name", BINARY)
@given(shapes=hnp.mutually_broadcastable_shapes(num_shapes=2, max_dims=3, max_side=3), seed=st.integers(0, 2**16))
@settings(max_examples=25, deadline=None)
def test_gradients_of_broadcast_operands_are_summed_back(name, shapes, seed):
    x, y = operands(name, *shapes.input_shapes, seed)
    check_gradients(BINARY[name], x, y, seed=seed)


@pytest.mark.parametrize("name", BINARY)
def test_operands_of_one_shape_do_not_get_each_other_s_gradient(name):
    """Where nothing is broadcast, x g in the place of y g has the right shape."""
    check_gradients(BINARY[name], *operands(name, (2, 3), (2, 3), 2))


@pytest.mark.parametrize("name", BINARY)
@pytest.mark.parametrize("shapes", [((2, 3), (2, 3)), ((2, 1, 3), (4, 1)), ((), (2, 2)), ((0, 3), (3,))])
def test_binary_operator_is_polite(name, shapes):
    check_politeness(BINARY[name], *operands(name, *shapes, 1))


@pytest.mark.parametrize("name", BINARY)
def test_one_tensor_may_be_both_operands(name):
    x = np.array([0.7, 1.3, 2.1])
    check_gradients(lambda t: BINARY[name](t, t), x)


@pytest.mark.parametrize("name", BINARY)
@pytest.mark.parametrize("number", [2, 2.5, True, np.float64(2.5), np.int64(3), np.float32(1.5)])
def test_numbers_take_the_dtype_of_the_tensor_on_either_side(name, number):
    x = Tensor(np.array([1.5, 2.5], np.float32), requires_grad=True)
    for result, expected in (
        (BINARY[name](x, number), BINARY[name](x.data.astype(float), float(number))),
        (BINARY[name](number, x), BINARY[name](float(number), x.data.astype(float))),
    ):
        assert result.dtype == np.float32
        np.testing.assert_allclose(result.data, expected, rtol=1e-6)
        result.backward(np.ones(2, np.float32))
        assert x.grad.dtype == np.float32


@pytest.mark.parametrize("name", [*BINARY, "matmul"])
def test_array_operand_works_on_either_side(name):
    op = operator.matmul if name == "matmul" else BINARY[name]
    x, y = np.abs(np.random.default_rng(0).standard_normal((2, 3, 3))) + 0.5
    for result in (op(Tensor(x), y), op(x, Tensor(y))):
        assert isinstance(result, Tensor)
        np.testing.assert_allclose(result.data, op(x, y), rtol=1e-15)


@pytest.mark.parametrize("name", [*BINARY, "matmul"])
def test_mixed_floating_point_types_are_refused_by_name(name):
    op = operator.matmul if name == "matmul" else BINARY[name]
    x, y = Tensor(np.ones((2, 2), np.float32)), Tensor(np.ones((2, 2), np.float64))
    with pytest.raises(TypeError, match=r"different floating-point types: \(2, 2\) float32, \(2, 2\) float64.*astype"):
        op(x, y)
    with pytest.raises(TypeError, match="different floating-point types"):
        op(x, np.ones((2, 2)))


@pytest.mark.parametrize("name", BINARY)
@pytest.mark.parametrize("other", ["text", None, [1.0, 2.0]])
def test_operand_that_is_no_number_is_refused(name, other):
    with pytest.raises(TypeError, match=r"expected a Tensor, an array or a number, got (str|NoneType|list)"):
        BINARY[name](Tensor([1.0, 2.0]), other)


@pytest.mark.parametrize("name", BINARY)
def test_shapes_that_do_not_broadcast_are_refused_with_the_operation_s_name(name):
    x, y = Tensor(np.ones((2, 3), np.float32)), Tensor(np.ones(4, np.float32))
    message = rf"{name.title()}: .*broadcast.*; inputs \(2, 3\) float32, \(4,\) float32"
    with pytest.raises(ValueError, match=message):
        BINARY[name](x, y)


@pytest.mark.parametrize(("x_shape", "y_shape"), [((2, 3), (4, 2)), ((2, 3), ()), ((5, 2, 3), (4, 3, 2)), ((3,), (4,))])
def test_matrices_that_do_not_fit_are_refused_with_the_operation_s_name(x_shape, y_shape):
    message = re.escape(f"; inputs {x_shape} float64, {y_shape} float64")
    with pytest.raises(ValueError, match=f"MatMul: .*{message}"):
        Tensor(np.ones(x_shape)) @ Tensor(np.ones(y_shape))


def test_division_by_zero_gives_infinity_and_not_an_error():
    with np.errstate(divide="ignore"):
        assert (Tensor([1.0]) / 0.0).item() == np.inf


# ---- power ---------------------------------------------------------------------------------------


def test_power_of_negative_base_with_whole_exponent_has_a_gradient():
    check_gradients(lambda x: x**3, np.array([-1.5, -0.3, 0.4]))
    check_gradients(lambda x: x**-2, np.array([-1.5, -0.5, 0.4]))


@pytest.mark.parametrize(("exponent", "slope"), [(0, 0.0), (1, 1.0), (2, 0.0), (3, 0.0)])
def test_power_at_zero_has_the_slope_of_the_polynomial(exponent, slope):
    x = Tensor(np.zeros(1), requires_grad=True)
    (x**exponent).backward(np.array([3.0]))
    assert x.grad == [3.0 * slope]


def test_gradient_of_the_exponent_at_base_zero_is_zero():
    x, y = Tensor(np.zeros(1), requires_grad=True), Tensor(np.array([2.0]), requires_grad=True)
    (x**y).backward(np.array([1.0]))
    assert y.grad == [0.0]


# ---- matrix product ------------------------------------------------------------------------------

MATMUL_SHAPES = [
    ((2, 3), (3, 4)),
    ((3,), (3,)),
    ((3,), (3, 4)),
    ((2, 3), (3,)),
    ((5, 2, 3), (3, 4)),
    ((2, 3), (5, 3, 4)),
    ((5, 2, 3), (5, 3, 4)),
    ((5, 1, 2, 3), (2, 3, 1)),
    ((3,), (2, 3, 4)),
    ((2, 4, 3), (3,)),
    ((2, 0), (0, 3)),
]


@pytest.mark.parametrize("shapes", MATMUL_SHAPES, ids=str)
def test_matrix_product_of_vectors_matrices_and_stacks(shapes):
    rng = np.random.default_rng(2)
    x, y = (rng.standard_normal(shape) for shape in shapes)
    expected = np.einsum("...ij,...jk->...ik", np.atleast_2d(x), y if y.ndim > 1 else y[:, None])
    np.testing.assert_allclose((Tensor(x) @ Tensor(y)).data, expected.reshape((x @ y).shape), rtol=1e-13, atol=1e-14)
    check_gradients(operator.matmul, x, y)
    check_politeness(operator.matmul, x, y)


# ---- elementwise methods -------------------------------------------------------------------------

UNARY = {
    "neg": (operator.neg, np.negative),
    "abs operator": (abs, np.abs),
    "abs": (Tensor.abs, np.abs),
    "exp": (Tensor.exp, np.exp),
    "log": (lambda x: x.log(), np.log),
    "sqrt": (lambda x: x.sqrt(), np.sqrt),
    "clip": (lambda x: x.clip(0.8, 1.4), lambda x: np.clip(x, 0.8, 1.4)),
    "clip below": (lambda x: x.clip(lower=1.1), lambda x: np.maximum(x, 1.1)),
    "clip above": (lambda x: x.clip(upper=1.1), lambda x: np.minimum(x, 1.1)),
    "clip nothing": (lambda x: x.clip(), lambda x: x),
}


@pytest.mark.parametrize("name", UNARY)
def test_elementwise_method(name):
    method, expected = UNARY[name]
    x = np.array([[0.31, 0.73, 1.03], [1.27, 1.61, 2.9]])  # positive, away from every bound
    if name in ("neg", "abs", "abs operator", "exp"):
        x = x * [[1], [-1]]
    np.testing.assert_allclose(method(Tensor(x)).data, expected(x), rtol=1e-15)
    check_gradients(method, x)
    check_politeness(method, x)


def test_slope_of_abs_at_zero_is_zero_and_clip_passes_the_gradient_at_its_bounds():
    x = Tensor(np.array([0.0, 1.0, 2.0]), requires_grad=True)
    x.abs().backward(np.array([5.0, 5.0, 5.0]))
    assert x.grad.tolist() == [0.0, 5.0, 5.0]
    x.grad = None
    x.clip(0.0, 1.0).backward(np.array([5.0, 6.0, 7.0]))
    assert x.grad.tolist() == [5.0, 6.0, 0.0]


def test_clip_with_crossed_bounds_is_refused():
    with pytest.raises(ValueError, match="clip: lower must not exceed upper, got lower=2, upper=1"):
        Tensor([1.0]).clip(2, 1)


# ---- reductions ----------------------------------------------------------------------------------

AXES = [None, 0, 1, -1, (0, 2), (1,), (-1, 0), (0, 1, 2)]
REDUCTIONS = {
    "sum": (lambda x, **options: x.sum(**options), np.sum),
    "mean": (lambda x, **options: x.mean(**options), np.mean),
    "var": (lambda x, **options: x.var(**options), np.var),
    "sample var": (lambda x, **options: x.var(correction=1, **options), lambda x, **o: np.var(x, ddof=1, **o)),
}


@pytest.mark.parametrize("keepdims", [False, True])
@pytest.mark.parametrize("axis", AXES, ids=str)
@pytest.mark.parametrize("name", REDUCTIONS)
def test_reduction_over_any_axes(name, axis, keepdims):
    method, expected = REDUCTIONS[name]
    x = np.random.default_rng(3).standard_normal((2, 3, 4))
    options = {"axis": axis, "keepdims": keepdims}
    y = method(Tensor(x), **options)
    np.testing.assert_allclose(y.data, expected(x, **options), rtol=1e-13)
    assert y.shape == expected(x, **options).shape
    check_gradients(lambda t: method(t, **options), x)
    check_politeness(lambda t: method(t, **options), x)


def test_variance_of_numbers_far_from_zero_keeps_its_digits_in_float32():
    x = (1e4 + np.random.default_rng(4).standard_normal(4096)).astype(np.float32)
    exact = x.astype(float).var()
    assert Tensor(x).var().item() == pytest.approx(exact, rel=1e-4)  # E[x^2] - E[x]^2 would be off by several 1


@pytest.mark.parametrize("axis", [None, 0, 1, -1])
@pytest.mark.parametrize("keepdims", [False, True])
def test_maximum_over_one_axis_or_all(axis, keepdims):
    x = distinct((3, 4), np.random.default_rng(5))
    options = {"axis": axis, "keepdims": keepdims}
    np.testing.assert_array_equal(Tensor(x).max(**options).data, x.max(**options))
    check_gradients(lambda t: t.max(**options), x)
    check_politeness(lambda t: t.max(**options), x)


def test_the_first_of_equal_maxima_receives_the_gradient():
    x = Tensor(np.array([[1.0, 3.0, 3.0], [2.0, 2.0, 2.0]]), requires_grad=True)
    x.max(1).backward(np.array([5.0, 7.0]))
    assert x.grad.tolist() == [[0.0, 5.0, 0.0], [7.0, 0.0, 0.0]]


@pytest.mark.parametrize("method", ["sum", "mean", "var", "max"])
def test_reduction_over_an_axis_that_is_not_there_is_refused(method):
    with pytest.raises(ValueError, match=rf"{method}: axis 2 doesn't exist in shape \(2, 3\)"):
        getattr(Tensor(np.ones((2, 3))), method)(2)


def test_variance_of_too_few_numbers_is_refused():
    with pytest.raises(ValueError, match=r"var: needs more than 1 numbers along axis 1, got shape \(3, 1\)"):
        Tensor(np.ones((3, 1))).var(1, correction=1)
    with pytest.raises(ValueError, match="var: needs more than 0 numbers"):
        Tensor(np.ones((0, 2))).var(0)


# ---- shapes --------------------------------------------------------------------------------------

SHAPES = {
    "reshape": (lambda x: x.reshape(4, 6), lambda x: x.reshape(4, 6)),
    "reshape with a tuple": (lambda x: x.reshape((4, -1)), lambda x: x.reshape(4, 6)),
    "reshape to one more axis": (lambda x: x.reshape(2, 1, 3, 4), lambda x: x[:, None]),
    "flatten": (lambda x: x.flatten(), lambda x: x.reshape(24)),
    "flatten from 1": (lambda x: x.flatten(1), lambda x: x.reshape(2, 12)),
    "flatten up to 1": (lambda x: x.flatten(0, 1), lambda x: x.reshape(6, 4)),
    "permute": (lambda x: x.permute(2, 0, 1), lambda x: x.transpose(2, 0, 1)),
    "permute negative": (lambda x: x.permute((-1, 0, 1)), lambda x: x.transpose(2, 0, 1)),
    "transpose": (lambda x: x.transpose(), lambda x: x.swapaxes(1, 2)),
    "transpose 0 -1": (lambda x: x.transpose(0, -1), lambda x: x.swapaxes(0, 2)),
    "T": (lambda x: x.T, lambda x: x.T),
    "index": (lambda x: x[1], lambda x: x[1]),
    "slice": (lambda x: x[:, 1:, ::2], lambda x: x[:, 1:, ::2]),
    "ellipsis and new axis": (lambda x: x[..., None, 0], lambda x: x[..., None, 0]),
    "boolean array": (lambda x: x[np.array([True, False])], lambda x: x[[0]]),
    "integer array": (lambda x: x[:, [2, 0, 2]], lambda x: x[:, [2, 0, 2]]),
    "paired arrays": (lambda x: x[[0, 1, 0], [2, 2, 2]], lambda x: x[[0, 1, 0], [2, 2, 2]]),
    "tensor as index": (lambda x: x[Tensor(np.array([1, 1, 0]))], lambda x: x[[1, 1, 0]]),
}


@pytest.mark.parametrize("name", SHAPES)
def test_shape_method_moves_numbers_and_their_gradients(name):
    method, expected = SHAPES[name]
    x = np.random.default_rng(6).standard_normal((2, 3, 4))
    np.testing.assert_array_equal(method(Tensor(x)).data, expected(x))
    check_gradients(method, x)
    check_politeness(method, x)


def test_an_element_picked_twice_receives_both_gradients():
    x = Tensor(np.zeros(3), requires_grad=True)
    x[[0, 2, 0]].backward(np.array([1.0, 10.0, 100.0]))
    assert x.grad.tolist() == [101.0, 0.0, 10.0]


def test_an_index_that_is_overwritten_later_does_not_change_the_gradient():
    index = np.array([0, 2])
    x = Tensor(np.zeros(3), requires_grad=True)
    y = x[index, None]
    index[:] = 1
    y.backward(np.ones((2, 1)))
    assert x.grad.tolist() == [1.0, 0.0, 1.0]


def test_an_indexed_result_is_a_copy():
    x = Tensor(np.zeros(3, np.float32))
    x[:2].data[...] = 1
    assert not x.data.any()


def test_iterating_gives_the_rows():
    x = Tensor(np.arange(6.0).reshape(3, 2), requires_grad=True)
    assert len(x) == 3
    assert [row.data.tolist() for row in x] == [[0, 1], [2, 3], [4, 5]]
    with pytest.raises(TypeError, match="0-d"):
        len(Tensor(1.0))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda x: x.reshape(5, 5), r"reshape: shape \(2, 3, 4\) has 24 elements, \(5, 5\) has 25"),
        (lambda x: x.reshape(5, -1), r"reshape: cannot turn shape \(2, 3, 4\) into \(5, -1\)"),
        (lambda x: x.reshape(-1, -1), r"reshape: cannot turn shape \(2, 3, 4\) into \(-1, -1\)"),
        (lambda x: x.reshape(-2, -12), r"reshape: .*\(-2, -12\)"),
        (lambda x: x.flatten(2, 1), r"flatten: start_axis 2 lies behind end_axis 1; shape \(2, 3, 4\)"),
        (lambda x: x.flatten(3), r"flatten: .*3"),
        (lambda x: x.permute(0, 1), r"permute: \(0, 1\) doesn't name each axis of shape \(2, 3, 4\) once"),
        (lambda x: x.permute(0, 1, 1), r"permute: \(0, 1, 1\) doesn't name each axis"),
        (lambda x: x.permute(0, 1, 5), r"permute: \(0, 1, 5\) doesn't name each axis"),
        (lambda x: x.transpose(0, 3), r"transpose: axis1 3 doesn't exist in shape \(2, 3, 4\)"),
    ],
)
def test_shape_that_does_not_fit_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call(Tensor(np.zeros((2, 3, 4))))


# ---- types ---------------------------------------------------------------------------------------


def test_astype_casts_forward_and_casts_the_gradient_back():
    x = Tensor(np.array([1.0, 2.0], np.float32), requires_grad=True)
    y = x.astype(np.float64)
    assert y.dtype == np.float64
    (y * np.array([3.0, 4.0])).backward(np.array([1.0, 10.0]))
    assert x.grad.dtype == np.float32
    assert x.grad.tolist() == [3.0, 40.0]
    assert x.astype(np.float32) is x


def test_astype_of_integers_to_floats_and_back():
    counts = Tensor([1, 2])
    assert counts.dtype.kind == "i"
    assert counts.astype(np.float32).dtype == np.float32
    with pytest.raises(TypeError, match="requires a gradient can't become int64; detach it first"):
        Tensor([1.0], requires_grad=True).astype(np.int64)


INTEGER_EXPRESSIONS = {
    "int tensor * 2.5": lambda n, x: n * 2.5,
    "2.5 * int tensor": lambda n, x: 2.5 * n,
    "int tensor / 2": lambda n, x: n / 2,
    "int tensor + float32 tensor": lambda n, x: n + x,
    "float32 tensor + int tensor": lambda n, x: x + n,
    "int tensor @ float32 tensor": lambda n, x: n @ x,
    "int array * float32 tensor": lambda n, x: n.data * x,
    "sqrt of an int tensor": lambda n, x: n.sqrt(),
    "mean of an int tensor": lambda n, x: n.mean(),
}


@pytest.mark.parametrize("name", INTEGER_EXPRESSIONS)
def test_integers_never_bring_float64_into_a_float32_computation(name):
    n, x = Tensor(np.array([1, 2, 4])), Tensor(np.array([0.5, 1.5, 2.5], np.float32))
    assert INTEGER_EXPRESSIONS[name](n, x).dtype == np.float32


def test_whole_numbers_stay_whole_among_themselves():
    assert (Tensor([1, 2]) + 1).dtype.kind == "i"
    assert (Tensor([1, 2]) * Tensor([3, 4])).data.tolist() == [3, 8]


# ---- the two helpers that adjoints are written with ----------------------------------------------


@given(shapes=hnp.mutually_broadcastable_shapes(num_shapes=2, max_dims=4, max_side=3), seed=st.integers(0, 2**16))
@settings(max_examples=50, deadline=None)
def test_sum_to_shape_is_the_adjoint_of_broadcasting(shapes, seed):
    shape, result = shapes.input_shapes[0], shapes.result_shape
    rng = np.random.default_rng(seed)
    x, grad = rng.standard_normal(shape), rng.standard_normal(result)
    reduced = sum_to_shape(grad, shape)
    assert reduced.shape == shape
    np.testing.assert_allclose((np.broadcast_to(x, result) * grad).sum(), (x * reduced).sum(), atol=1e-12)


@pytest.mark.parametrize("axis", AXES, ids=str)
def test_expand_reduced_puts_the_lost_axes_back(axis):
    x = np.random.default_rng(8).standard_normal((2, 3, 4))
    expected = x.sum(axis, keepdims=True)
    np.testing.assert_array_equal(expand_reduced(x.sum(axis), x.shape, axis).shape, expected.shape)


@pytest.mark.parametrize("name", BINARY)
def test_gradients_of_0d_leaves_are_arrays(name):
    leaves = [Tensor(1.5, requires_grad=True), Tensor(2.5, requires_grad=True)]
    for _ in range(2):  # the second time gradients are added to what is there
        BINARY[name](*leaves).backward()
        assert all(isinstance(leaf.grad, np.ndarray) for leaf in leaves)
