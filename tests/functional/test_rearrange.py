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
            r"concatenate: shapes must have the same number of axes, axis 0 among them, got \(2, 3\), \(2,\)",
        ),
        (lambda: concatenate([tensor(2, 3)], 2), ValueError, r"concatenate: .* axis 2 among them, got \(2, 3\)"),
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
            r"pad: widths must be 2 pairs \(before, after\) of numbers >= 0, got \(\(1, 1\),\); x \(2, 3\)",
        ),
        (lambda: pad(tensor(2), [(1, -1)]), ValueError, r"pad: widths .* got \(\(1, -1\),\)"),
        (lambda: pad(np.zeros(2), [(1, 1)]), TypeError, "pad: x must be a Tensor"),
        (
            lambda: where(np.array([1, 0]), tensor(2), tensor(2)),
            TypeError,
            "where: condition must be boolean, got int64",
        ),
        (lambda: where(MASK, tensor(3), 0.0), TypeError, "where: y must be a Tensor, got float"),
        (lambda: where(MASK, tensor(4), tensor(3)), ValueError, r"Where: .*\(2,3\).*\(4,\).*\(3,\)"),
        (
            lambda: concatenate([tensor(2), tensor(2, dtype=np.float64)]),
            TypeError,
            r"concatenate: tensors must have one dtype, got \(2,\) float32, \(2,\) float64; convert with .astype",
        ),
        (lambda: concatenate([tensor(2), tensor(2, dtype=np.int64)]), TypeError, "concatenate: .*float32.*int64"),
        (lambda: stack([tensor(2), tensor(2, dtype=np.int64)]), TypeError, "stack: .*float32.*int64"),
        (lambda: where(MASK, tensor(3), tensor(3, dtype=np.int64)), TypeError, "where: .*float32.*int64"),
    ],
)
def test_refuses(call, error, message):
    with pytest.raises(error, match=message):
        call()
