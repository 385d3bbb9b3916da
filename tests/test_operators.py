"""Operators and elementwise methods: the larger and the smaller, clipping, indexing; what is refused, and the cure."""

from __future__ import annotations

import copy
import inspect
import pickle
import re

import numpy as np
import pytest

from minires import Parameter, Tensor, functional
from tests.questions import check_gradients, check_politeness

x = Tensor(np.arange(6, dtype=np.float32).reshape(2, 3))
CHOICES = {"maximum": np.maximum, "minimum": np.minimum}


@pytest.mark.parametrize("shapes", [((2, 3), (2, 3)), ((2, 1, 3), (4, 1)), ((), (2, 2)), ((0, 3), (3,))], ids=str)
@pytest.mark.parametrize("name", CHOICES)
def test_the_larger_or_smaller_of_two(name, shapes):
    rng = np.random.default_rng(0)
    arrays = [rng.standard_normal(shape) for shape in shapes]
    method = getattr(Tensor, name)
    np.testing.assert_array_equal(method(*map(Tensor, arrays)).data, CHOICES[name](*arrays))
    check_gradients(method, *arrays)
    check_politeness(method, *arrays)


@pytest.mark.parametrize("other", [1, 1.5, np.float64(1.5), np.float32(1.5), np.full(3, 1.5, np.float32)], ids=str)
@pytest.mark.parametrize("name", CHOICES)
def test_a_number_or_an_array_may_be_the_other(name, other):
    result = getattr(x, name)(other)
    assert result.dtype == np.float32
    np.testing.assert_array_equal(result.data, CHOICES[name](x.data, np.float32(other)))
    assert getattr(Tensor([1, 5]), name)(3).dtype.kind == "i"


@pytest.mark.parametrize("name", CHOICES)
def test_equals_share_the_gradient_in_halves_and_an_infinite_one_stays_on_its_side(name):
    a, b = (Tensor(np.array(values), requires_grad=True) for values in ([1.0, 2.0, 5.0, 5.0], [1.0, 7.0, 2.0, 2.0]))
    getattr(a, name)(b).backward(np.array([5.0, 6.0, 7.0, np.inf]))
    first, second = [2.5, 0.0, 7.0, np.inf], [2.5, 6.0, 0.0, 0.0]
    if name == "minimum":
        first, second = [2.5, 6.0, 0.0, 0.0], [2.5, 0.0, 7.0, np.inf]
    assert (a.grad.tolist(), b.grad.tolist()) == (first, second)


@pytest.mark.witness
@pytest.mark.parametrize("name", CHOICES)
def test_the_larger_or_smaller_of_two_is_torch_s_with_equals_and_nan(name):
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(1)
    values = rng.integers(0, 3, (2, 50)).astype(np.float32)
    values[0, :4] = values[1, 2:6] = np.nan
    upstream = rng.standard_normal(50).astype(np.float32)
    ours = [Tensor(row, requires_grad=True) for row in values]
    theirs = [torch.tensor(row, requires_grad=True) for row in values]
    result, expected = getattr(ours[0], name)(ours[1]), getattr(torch, name)(*theirs)
    np.testing.assert_array_equal(result.data, expected.detach().numpy())
    result.backward(upstream)
    expected.backward(torch.tensor(upstream))
    for own, other in zip(ours, theirs, strict=True):
        np.testing.assert_array_equal(own.grad, other.grad.numpy())


# ---- clip ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "bounds", [(np.float64(1.5), 4.0), (1, np.float64(4)), (np.int64(1), None), (None, np.float32(2))]
)
def test_bounds_never_widen_float32(bounds):
    leaf = Tensor(x.data, requires_grad=True)
    y = leaf.clip(*bounds)
    assert y.dtype == np.float32
    np.testing.assert_array_equal(y.data, np.clip(x.data.astype(float), *bounds))
    y.backward(np.ones((2, 3), np.float32))
    assert leaf.grad.dtype == np.float32


def test_whole_numbers_stay_whole_between_whole_bounds_and_become_float32_between_others():
    counts = Tensor([1, 5, 9])
    assert counts.clip(2, 6).dtype == counts.dtype
    assert counts.clip(2, 6).data.tolist() == [2, 5, 6]
    assert counts.clip(2.5, 6).dtype == np.float32
    assert counts.clip(2.5, 6).data.tolist() == [2.5, 5, 6]


def test_torch_s_min_and_max_are_the_bounds():
    np.testing.assert_array_equal(x.clip(min=1, max=3).data, x.clip(1, 3).data)


# ---- what is refused, in our words ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda: x.clip(x),
            TypeError,
            "clip: lower must be a number or None, got a Tensor of.*; for a bound for each element",
        ),
        (lambda: x.clip(0, np.ones(3)), TypeError, "clip: upper must be a number or None, got array"),
        (lambda: x.clip("a", "b"), TypeError, "clip: lower must be a number or None, got 'a'"),
        (lambda: x.clip(1j), TypeError, "clip: lower must be a number or None, got 1j"),
        (lambda: x.maximum(None), TypeError, "maximum: expected a Tensor, an array or a number"),
        (lambda: x.maximum(np.ones(4, np.float32)), ValueError, r"Maximum: .*broadcast.*; inputs \(2, 3\).*, \(4,\)"),
        (
            lambda: x @ x,
            ValueError,
            r"MatMul: .* rows of 3 numbers.* columns of 2.*; inputs \(2, 3\) float32, \(2, 3\)",
        ),
        (lambda: x @ 2, ValueError, r"MatMul: .*at least one axis.*; inputs \(2, 3\) float32, \(\) float32"),
        (
            lambda: Tensor(np.ones((2, 5, 3))) @ np.ones((4, 3, 2)),
            ValueError,
            r"MatMul: .*\(2,\) and \(4,\).*broadcast",
        ),
        (lambda: x + np.ones(4, np.float32), ValueError, r"Add: .*\(2, 3\) and \(4,\) don't broadcast.*one of them 1"),
    ],
)
def test_a_bad_operand_is_refused_in_our_words(call, error, message):
    with pytest.raises(error, match=f"^{message}"):
        call()


@pytest.mark.parametrize(
    ("index", "message"),
    [
        (5, "index 5 .*axis 0, .*2"),
        (-3, "index -3 .*axis 0, .*2"),
        ((0, 7), "index 7 .*axis 1, .*3"),
        ((..., 3), "index 3 .*axis 1, .*3"),
        ((None, [0, 2]), "index 2 .*axis 0, .*2"),
        ((slice(None), Tensor([1, -4])), "index -4 .*axis 1, .*3"),
        ("a", "an index is .*got 'a'"),
        (1.0, r"an index is .*got 1\.0"),
        ((0, 1.5), r"an index is .*got 1\.5"),
        ({1}, r"an index is .*got \{1\}"),
        (Tensor([1.0]), "an index is .*got Tensor of float32"),
        (np.ones(2), "an index is .*got ndarray of float64"),
        ([[0], [1, 2]], "an index is .*got a list of lists of different lengths"),
        (np.float32, "an index is .*got <class 'numpy.float32'>"),
        (["a"], "an index is .*got ndarray of <U1"),
        (slice("a", None), "an index is .*got 'a'"),
        (slice(None, None, 1.5), r"an index is .*got 1\.5"),
        (slice(None, None, 0), "step of a slice .*0"),
        ((0, 0, 0), "too many indices: .*3.*2 axes"),
        ((..., ...), "one `...`"),
        (np.ones(3, bool), r"boolean.*3 elements along axis 0.*2"),
        (np.ones((2, 4), bool), r"boolean.*4 elements along axis 1.*3"),
        (([0, 1, 0], [0, 1]), r"arrays in an index must broadcast.*\(3,\), \(2,\)"),
        (2**70, "index 1180591620717411303424 .*outside"),
    ],
    ids=str,
)
def test_a_bad_index_is_an_index_error_with_the_shape(index, message):
    with pytest.raises(IndexError, match=rf"^Tensor index: .*{message}.*; shape \(2, 3\)$"):
        x[index]


def test_an_old_style_iteration_ends_with_an_index_error():
    class Rows:
        def __getitem__(self, i):
            return x[i]

    assert [row.data.tolist() for row in Rows()] == [[0, 1, 2], [3, 4, 5]]


def test_a_list_that_is_changed_after_indexing_does_not_change_the_gradient():
    index, leaf = [0, 1], Tensor(np.zeros(3), requires_grad=True)
    y = leaf[index]
    index[0] = 2
    y.backward(np.array([5.0, 7.0]))
    assert leaf.grad.tolist() == [5.0, 7.0, 0.0]


# ---- what torch allows ---------------------------------------------------------------------------


def test_items_are_not_assigned_or_deleted():
    with pytest.raises(TypeError, match=r"x\[\.\.\.\] = .*: .*functional\.where.*x\.data\[\.\.\.\] = "):
        x[0] = 1
    with pytest.raises(TypeError, match=r"del x\[\.\.\.\]: .*slice"):
        del x[0]
    assert x.data[0, 0] == 0


@pytest.mark.parametrize("operator", ["+=", "-=", "*=", "/=", "**=", "@="])
@pytest.mark.parametrize("leaf", [Parameter(np.eye(2)), Tensor(np.eye(2), requires_grad=True)], ids=["param", "leaf"])
def test_a_leaf_that_learns_is_not_rebound_by_an_assignment_with_an_operator(operator, leaf):
    names = {"w": leaf, "other": np.eye(2)}
    with pytest.raises(
        RuntimeError, match=rf"w {re.escape(operator)} \.\.\.: w is a leaf.*w\.data {re.escape(operator)}"
    ):
        exec(f"w {operator} other", names)
    assert names["w"] is leaf
    assert leaf.data.tolist() == [[1, 0], [0, 1]]


def test_a_sum_that_grows_may_be_assigned_with_an_operator():
    total, weight = Tensor(np.zeros(())), Parameter(np.array(3.0))
    for _ in range(2):
        total += weight * weight
    total.backward()
    assert weight.grad == 12.0
    with pytest.raises(TypeError, match="expected a Tensor, an array or a number"):
        total += "text"


@pytest.mark.witness
def test_a_tensor_of_torch_s_is_named_with_its_library():
    torch = pytest.importorskip("torch")
    theirs = torch.ones(3)
    for call in (lambda: x + theirs, lambda: theirs + x, lambda: functional.relu(theirs)):
        with pytest.raises(TypeError, match=r"got torch\.Tensor"):
            call()
    np.testing.assert_array_equal(Tensor(theirs).data, [1, 1, 1])


def test_tensors_that_learn_are_joined_by_stack_and_not_by_numpy():
    leaf = Parameter([1.0, 2.0])
    for call in (lambda: Tensor([leaf, leaf]), lambda: np.stack([leaf, leaf]), lambda: np.asarray(leaf)):
        with pytest.raises(RuntimeError, match=r"requires a gradient, which NumPy would lose.*functional\.stack"):
            call()


def test_a_number_has_no_rows_and_several_numbers_are_no_number():
    with pytest.raises(TypeError, match=r"iteration: a 0-d tensor has no rows; its number is x\.item\(\)"):
        list(Tensor(1.0))
    with pytest.raises(ValueError, match=r"item: .* must have one element, but its shape is \(2, 3\); x\.tolist\(\)"):
        float(x)


@pytest.mark.parametrize(
    ("name", "cure"),
    [
        ("view", r"x\.reshape"),
        ("clamp", r"x\.clip"),
        ("unsqueeze", r"x\[:, None\]"),
        ("relu", r"functional\.relu\(x\)"),
        ("amax", r"x\.max"),
        ("numel", r"x\.size"),
        ("grad_fn", r"x\.creator"),
        ("add_", "nothing is changed in place"),
        ("argsort", r"x\.data\.argsort"),
    ],
)
def test_a_name_of_torch_or_numpy_leads_to_ours(name, cure):
    with pytest.raises(AttributeError, match=f"^Tensor has no attribute '{name}'.*{cure}") as caught:
        getattr(x, name)
    assert caught.value.name == name
    assert not hasattr(x, name)
    assert not hasattr(Tensor, name)


def test_another_name_is_just_unknown_and_copies_and_pickles_work():
    with pytest.raises(AttributeError, match=r"^Parameter has no attribute 'nothing'$"):
        _ = Parameter([1.0]).nothing
    assert copy.copy(x).data is x.data
    assert copy.deepcopy(x).data.tolist() == pickle.loads(pickle.dumps(x)).data.tolist() == x.data.tolist()


def test_every_public_method_has_a_docstring_that_starts_with_a_sentence():
    for name, value in inspect.getmembers(Tensor):
        if not name.startswith("_") and (callable(value) or isinstance(value, property)):
            first = inspect.getdoc(value).splitlines()[0]
            assert first[0].isupper() or first[0] in "\\`e|m", name
            assert "." in first or ":" in first, name
