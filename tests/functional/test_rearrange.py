"""concatenate, stack, pad, where."""

from __future__ import annotations

import numpy as np
import pytest

from minires import Tensor
from minires.functional import concatenate, pad, stack, where
from tests.questions import check_gradients, check_politeness

MASK = np.array([[True, False, True], [False, False, True]])
OPERATIONS = {
    "concatenate": (lambda *t: concatenate(t), lambda *a: np.concatenate(a), [(2, 3), (1, 3), (0, 3)]),
    "concatenate 1": (lambda *t: concatenate(t, 1), lambda *a: np.concatenate(a, 1), [(2, 3, 2), (2, 1, 2)]),
    "concatenate -1": (lambda *t: concatenate(t, -1), lambda *a: np.concatenate(a, -1), [(2, 3), (2, 2)]),
    "concatenate one": (lambda *t: concatenate(t), lambda *a: np.concatenate(a), [(2, 3)]),
    "stack": (lambda *t: stack(t), lambda *a: np.stack(a), [(2, 3), (2, 3)]),
    "stack 1": (lambda *t: stack(t, 1), lambda *a: np.stack(a, 1), [(2, 3), (2, 3), (2, 3)]),
    "stack -1": (lambda *t: stack(t, -1), lambda *a: np.stack(a, -1), [(2, 3), (2, 3)]),
    "stack numbers": (lambda *t: stack(t), lambda *a: np.stack(a), [(), ()]),
    "pad": (lambda t: pad(t, [(1, 0), (2, 3)]), lambda a: np.pad(a, [(1, 0), (2, 3)]), [(2, 3)]),
    "pad images": (
        lambda t: pad(t, [(0, 0), (0, 1), (1, 2), (3, 0)]),
        lambda a: np.pad(a, [(0, 0), (0, 1), (1, 2), (3, 0)]),
        [(2, 1, 2, 3)],
    ),
    "pad nothing": (lambda t: pad(t, [(0, 0), (0, 0)]), lambda a: a, [(2, 3)]),
    "where": (lambda x, y: where(MASK, x, y), lambda x, y: np.where(MASK, x, y), [(2, 3), (2, 3)]),
    "where broadcast": (lambda x, y: where(MASK, x, y), lambda x, y: np.where(MASK, x, y), [(3,), (2, 1)]),
    "where one number": (lambda x, y: where(Tensor(MASK), x, y), lambda x, y: np.where(MASK, x, y), [(), (1, 3)]),
}


@pytest.mark.parametrize("name", OPERATIONS)
def test_value_gradient_and_manners(name):
    operation, expected, shapes = OPERATIONS[name]
    rng = np.random.default_rng(0)
    arrays = [rng.standard_normal(shape) for shape in shapes]
    np.testing.assert_array_equal(operation(*map(Tensor, arrays)).data, expected(*arrays))
    check_gradients(operation, *arrays)
    check_politeness(operation, *arrays)


def test_one_tensor_may_appear_twice():
    check_gradients(lambda t: concatenate([t, t * 2, t]), np.array([1.0, 2.0]))
    check_gradients(lambda t: where(np.array([True, False]), t, t * 3), np.array([1.0, 2.0]))


def test_gradient_flows_only_into_what_requires_it():
    x, constant = Tensor([1.0], requires_grad=True), Tensor([2.0])
    for y in (concatenate([x, constant]), stack([x, constant]), where(np.array([True]), x, constant)):
        y.sum().backward()
    assert x.grad.tolist() == [3.0]
    assert constant.grad is None


def test_a_condition_that_is_overwritten_later_does_not_change_the_gradient():
    mask = np.array([True, False])
    x = Tensor([1.0, 2.0], requires_grad=True)
    y = where(mask, x, x * 10)
    mask[:] = False
    y.sum().backward()
    assert x.grad.tolist() == [1.0, 10.0]


@pytest.mark.parametrize("join", [concatenate, stack])
def test_the_axis_may_be_called_dim(join):
    x, y = Tensor(np.ones((2, 3))), Tensor(np.zeros((2, 3)))
    np.testing.assert_array_equal(join([x, y], dim=1).data, join([x, y], 1).data)
    np.testing.assert_array_equal(join(iter([x, y]), dim=-1).data, join([x, y], axis=-1).data)


@pytest.mark.parametrize("value", [7, -0.5, np.float64(0.1), -np.inf, np.nan])
def test_padding_with_a_number(value):
    x = np.random.default_rng(1).standard_normal((2, 3))
    y = pad(Tensor(x), [(1, 0), (0, 2)], value=value)
    np.testing.assert_array_equal(y.data, np.pad(x, [(1, 0), (0, 2)], constant_values=value))
    leaf, upstream = Tensor(x, requires_grad=True), np.random.default_rng(2).standard_normal((3, 5))
    pad(leaf, [(1, 0), (0, 2)], value=value).backward(upstream)
    np.testing.assert_array_equal(leaf.grad, upstream[1:, :3])
    assert pad(Tensor(x.astype("f")), [(1, 0), (0, 2)], value=value).dtype == np.float32


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("number", [2, 0.1, np.float64(0.1), np.float32(0.1), -np.inf, True])
def test_where_takes_a_number_in_the_dtype_of_the_tensor(dtype, number):
    x = np.random.default_rng(3).standard_normal((2, 3)).astype(dtype)
    upstream = np.random.default_rng(4).standard_normal((2, 3)).astype(dtype)
    for order in (1, -1):
        leaf = Tensor(x, requires_grad=True)
        y = where(MASK, *(leaf, number)[::order])
        y.backward(upstream)
        taken = MASK if order == 1 else ~MASK
        assert y.dtype == dtype
        np.testing.assert_array_equal(y.data, np.where(taken, x, dtype(number)))
        np.testing.assert_array_equal(leaf.grad, np.where(taken, upstream, 0))


def test_where_mixes_whole_numbers_and_fractions_by_the_rule_of_the_operators():
    whole = Tensor(np.array([1, 2, 3]))
    assert where(MASK, whole, 5).data.tolist() == [[1, 5, 3], [5, 5, 3]]
    for y in (where(MASK, whole, 0.5), where(MASK, whole, Tensor(np.full(3, 0.5, "f")))):
        assert y.dtype == (whole + 0.5).dtype == np.float32
        assert y.data.tolist() == [[1, 0.5, 3], [0.5, 0.5, 3]]


def test_whole_numbers_are_rearranged_too():
    assert concatenate([Tensor([1, 2]), Tensor([3])]).dtype.kind == "i"
    assert pad(Tensor([1, 2]), [(1, 0)]).data.tolist() == [0, 1, 2]


def tensor(*shape, dtype=np.float32):
    return Tensor(np.zeros(shape, dtype))


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: concatenate([]), ValueError, "concatenate: needs at least one tensor"),
        (lambda: stack([]), ValueError, "stack: needs at least one tensor"),
        (
            lambda: concatenate([tensor(2, 3), tensor(2, 4)]),
            ValueError,
            r"concatenate: shapes must agree except on axis 0, got \(2, 3\), \(2, 4\)",
        ),
        (
            lambda: concatenate([tensor(2, 3), tensor(2)]),
            ValueError,
            r"concatenate: shapes must have the same number of axes, got \(2, 3\), \(2,\)",
        ),
        (lambda: concatenate([tensor(2, 3)], 2), ValueError, r"concatenate: axis 2 doesn't exist in \(2, 3\)"),
        (lambda: concatenate([tensor(2, 3)], None), TypeError, "concatenate: axis must be an integer, got None"),
        (
            lambda: concatenate(tensor(2, 3)),
            TypeError,
            r"concatenate: tensors must be a sequence of Tensors, got Tensor; write concatenate\(\[x, y\]\)",
        ),
        (lambda: stack(None), TypeError, "stack: tensors must be a sequence of Tensors, got NoneType"),
        (lambda: stack([tensor(2)], 0.0), TypeError, "stack: axis must be an integer, got 0.0"),
        (lambda: stack([tensor(2)], axis=0, dim=0), TypeError, "stack: axis and dim are two names of one argument"),
        (
            lambda: concatenate([tensor(2), np.zeros(2)]),
            TypeError,
            "concatenate: each item must be a Tensor, got ndarray",
        ),
        (lambda: stack([tensor(2), tensor(3)]), ValueError, r"stack: shapes must agree, got \(2,\), \(3,\)"),
        (lambda: stack([tensor(2)], 2), ValueError, "stack: axis 2 doesn't exist in a result of 2 axes"),
        (lambda: stack([3.0]), TypeError, "stack: each item must be a Tensor, got float"),
        (
            lambda: pad(tensor(2, 3), [(1, 1)]),
            ValueError,
            r"pad: widths must be 2 pairs \(before, after\), one for each axis from the first, of numbers >= 0, "
            r"got \[\(1, 1\)\]; x \(2, 3\)",
        ),
        (lambda: pad(tensor(2), [(1, -1)]), ValueError, r"pad: widths .* of numbers >= 0, got \[\(1, -1\)\]"),
        (lambda: pad(tensor(2), 1), TypeError, r"pad: widths must be 1 pairs \(before, after\), .* got 1; x \(2,\)"),
        (
            lambda: pad(tensor(1, 2, 3, 3), (1, 1, 2, 2)),
            TypeError,
            r"pad: widths must be 4 pairs .* from the first, got \(1, 1, 2, 2\); .*PyTorch's .* begin at the last axis",
        ),
        (lambda: pad(tensor(2), [(0.5, 1)]), TypeError, r"pad: widths must be .* got \[\(0.5, 1\)\]"),
        (lambda: pad(tensor(2), [(2**62, 0)]), ValueError, r"pad: it would need an array of shape .* can address"),
        (lambda: pad(tensor(2), [(1, 1)], value=None), TypeError, "pad: value must be a number, got None"),
        (lambda: pad(tensor(2), [(1, 1)], value=1e39), ValueError, r"pad: value 1e\+39 isn't .* x, float32, can hold"),
        (
            lambda: pad(tensor(2, dtype=int), [(1, 1)], value=0.5),
            ValueError,
            "pad: value 0.5 isn't one of the numbers that x, int64, can hold",
        ),
        (lambda: pad(np.zeros(2), [(1, 1)]), TypeError, "pad: x must be a Tensor"),
        (
            lambda: where(np.array([1, 0]), tensor(2), tensor(2)),
            TypeError,
            "where: condition must be boolean, got int64",
        ),
        (lambda: where(MASK, 1.0, 0.0), TypeError, "where: x or y must be a Tensor, got float and float"),
        (
            lambda: where(MASK, tensor(3), None),
            TypeError,
            "where: expected a Tensor, an array or a number, got NoneType",
        ),
        (lambda: where(MASK, "a", tensor(3)), TypeError, "where: expected a Tensor, an array or a number, got str"),
        (lambda: where(MASK, tensor(3, dtype=np.int8), 300), ValueError, "where: 300 is outside of the range of int8"),
        (lambda: where([[1], [2, 3]], tensor(3), 0), TypeError, r"where: condition must be an array, got \[\[1\], \[2"),
        (
            lambda: where(MASK, tensor(4), tensor(3)),
            ValueError,
            r"where: the shapes don't broadcast: condition \(2, 3\), x \(4,\), y \(3,\)",
        ),
        (
            lambda: where(MASK, tensor(3), tensor(3, dtype=np.float64)),
            TypeError,
            "Where: inputs have different floating-point types",
        ),
        (
            lambda: concatenate([tensor(2), tensor(2, dtype=np.float64)]),
            TypeError,
            r"concatenate: tensors must have one dtype, got \(2,\) float32, \(2,\) float64; convert with .astype",
        ),
        (lambda: concatenate([tensor(2), tensor(2, dtype=np.int64)]), TypeError, "concatenate: .*float32.*int64"),
        (lambda: stack([tensor(2), tensor(2, dtype=np.int64)]), TypeError, "stack: .*float32.*int64"),
    ],
)
def test_refuses(call, error, message):
    with pytest.raises(error, match=message):
        call()
