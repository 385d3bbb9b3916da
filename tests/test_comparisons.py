"""Comparisons of tensors: elementwise, without a gradient; and what follows from them where tensors are keys."""

from __future__ import annotations

import operator

import numpy as np
import pytest

from minires import Parameter, Tensor, functional, optim, record
from minires.operators import Operators

COMPARISONS = {
    "==": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}


@pytest.mark.parametrize("name", COMPARISONS)
@pytest.mark.parametrize("other", ["tensor", "array", "number", "row"])
def test_a_comparison_is_elementwise_on_the_numbers_and_has_no_gradient(name, other):
    rng = np.random.default_rng(0)
    x = rng.integers(0, 3, (3, 4)).astype(np.float32)
    y = {"number": 1.0, "row": rng.integers(0, 3, 4).astype(np.float32)}.get(other, rng.integers(0, 3, (3, 4)))
    y = y.astype(np.float32) if isinstance(y, np.ndarray) else y
    tensor = Tensor(x, requires_grad=True)
    given = Tensor(y, requires_grad=True) if other == "tensor" else y
    for result, expected in (
        (COMPARISONS[name](tensor, given), COMPARISONS[name](x, y)),
        (COMPARISONS[name](given, tensor), COMPARISONS[name](y, x)),
    ):
        assert isinstance(result, Tensor)
        assert result.dtype == bool
        assert not result.requires_grad
        assert result.is_leaf
        np.testing.assert_array_equal(result.data, expected)


def test_accuracy_by_hand():
    logits = Tensor([[1.0, 2.0], [3.0, 0.0], [0.0, 1.0]], requires_grad=True)
    predicted = Tensor(logits.data.argmax(1))
    assert (predicted == Tensor([1, 0, 0])).astype(np.float32).mean().item() == pytest.approx(2 / 3)
    assert (predicted == np.array([1, 0, 0])).sum().item() == 2


def test_another_library_s_numbers_are_numbers():
    class Foreign:
        def __array__(self, dtype=None, copy=None):
            return np.array([1, 0, 0])

    assert (Tensor([1, 1, 0]) == Foreign()).data.tolist() == [True, False, True]


def test_numbers_are_compared_in_the_tensor_s_own_type():
    x = Tensor([0.1])
    assert (x == 0.1).item() is True
    assert (x == np.float64(0.1)).item() is True
    assert (Tensor([1, 2]) < 1.5).data.tolist() == [True, False]
    assert (Tensor(np.array([255], np.uint8)) == -1).item() is False
    assert (Tensor(np.array([255], np.uint8)) < 300).item() is True


def test_nan_is_equal_to_nothing():
    x = Tensor([np.nan, 1.0])
    assert (x == x).data.tolist() == [False, True]
    assert (x != x).data.tolist() == [True, False]


@pytest.mark.parametrize("other", [None, "text", object(), {1.0}])
def test_what_is_no_number_is_never_equal(other):
    x = Tensor([1.0, 2.0])
    assert (x == other) is False
    assert (x != other) is True
    assert x not in [None, "text"]
    with pytest.raises(TypeError, match="not supported between instances"):
        x < other  # noqa: B015


def test_shapes_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match=r"==: shapes \(2,\) and \(3,\) don.t broadcast: from the last axis on"):
        Tensor([1.0, 2.0]) == Tensor([1.0, 2.0, 3.0])  # noqa: B015


def test_several_elements_are_not_true_or_false():
    with pytest.raises(ValueError, match=r"bool: a tensor of shape \(2,\) isn't true or false.*any.*all.*item"):
        bool(Tensor([1.0, 2.0]))
    with pytest.raises(ValueError, match=r"shape \(0,\) isn't true or false"):
        bool(Tensor(np.zeros(0)))
    with pytest.raises(ValueError, match="isn't true or false"):
        assert Tensor([1.0, 2.0]) == Tensor([1.0, 2.0])
    assert Tensor([1.0]) == Tensor([1.0])


def test_a_tensor_is_a_key_by_identity():
    x, y = Tensor([1.0, 2.0]), Tensor([1.0, 2.0])
    assert hash(x) == object.__hash__(x)
    names = {x: "x", y: "y"}
    assert names[x] == "x"
    assert names[y] == "y"
    assert len({x, y, x}) == 2


def test_the_engine_never_compares_tensors(monkeypatch):
    """Backward, a tape and an optimizer keep tensors in dictionaries: by identity alone."""

    def compared(*_):
        raise AssertionError("the engine compared two tensors")

    monkeypatch.setattr(Operators, "__eq__", compared)
    monkeypatch.setattr(Operators, "__ne__", compared)
    leaves = [Parameter(np.full((2, 2), float(i))) for i in range(40)]
    optimizer = optim.SGD(leaves, lr=0.1, momentum=0.9)
    with record(check=True) as tape:
        total = leaves[0]
        for leaf in leaves[1:]:
            total = functional.where(np.eye(2, dtype=bool), total * leaf, total + leaf)
        total.retain_grad()
        total.sum().backward()
    optimizer.step()
    optimizer.load_state_dict(optimizer.state_dict())
    assert all(leaf.grad is not None for leaf in leaves)
    assert tape[leaves[3]].shape == (2, 2)
    assert len(tape.contributions(leaves[3])) == 2


@pytest.mark.parametrize("other", [[1, 0, 2], (1, 0, 2), [1.0, 0.0, 2.0], [True, False, 2]])
def test_lists_and_tuples_are_compared_element_by_element(other):
    """An accuracy written by hand over a list of labels was silently 0."""
    x = Tensor([1, 2, 2])
    assert (x == other).data.tolist() == [True, False, True]
    assert (x != other).data.tolist() == [False, True, False]
    assert (x > other).data.tolist() == [False, True, False]
    assert (other <= x).data.tolist() == [True, True, True]


@pytest.mark.parametrize("other", [[1, 2], np.ones(2, np.float32), Tensor([[1.0], [2.0]])[:, [0, 0]]])
def test_shapes_that_do_not_broadcast_are_named_with_the_sign(other):
    with pytest.raises(ValueError, match=r"<=: shapes \(3,\) and \(.*2,?\) don't broadcast: from the last axis on"):
        assert Tensor([1.0, 2.0, 3.0]) <= other
    with pytest.raises(ValueError, match="==: the list doesn't make one array"):
        assert Tensor([1.0]) == [[1.0], [1.0, 2.0]]
