"""Tensor: construction, dtypes, the graph, backward and its errors."""

from __future__ import annotations

import inspect
import itertools
import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minires import Function, Parameter, Tensor, functional, no_grad
from minires.tensor import apply


def leaf(values=(1.0, 2.0), dtype=np.float32):
    return Tensor(np.array(values, dtype), requires_grad=True)


# ---- what it is ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "dtype"),
    [
        (1.5, np.float32),
        ([1.0, 2.0], np.float32),
        ([[1, 2.5]], np.float32),
        (3, np.int64),
        ([1, 2], np.int64),
        (True, np.bool_),
        ([True, False], np.bool_),
        (np.zeros(2, np.float64), np.float64),
        (np.zeros(2, np.float32), np.float32),
        (np.zeros(2, np.uint8), np.uint8),
        (np.float64(2.0), np.float64),
        (np.float32(2.0), np.float32),
    ],
)
def test_python_numbers_become_float32_and_arrays_keep_their_type(data, dtype):
    tensor = Tensor(data)
    assert tensor.dtype == dtype
    assert isinstance(tensor.data, np.ndarray)


def test_an_array_is_not_copied():
    array = np.zeros(3, np.float32)
    assert Tensor(array).data is array


def test_properties_are_those_of_the_array():
    tensor = Tensor(np.zeros((2, 3), np.float32))
    assert (tensor.shape, tensor.ndim, tensor.size, tensor.device) == ((2, 3), 2, 6, "cpu")
    assert tensor.numpy() is tensor.data
    assert Tensor(2.5).item() == 2.5
    assert float(Tensor(2.5)) == 2.5
    assert bool(Tensor(2.5)) is True
    with pytest.raises(ValueError, match=r"item: the tensor must have one element, but its shape is \(2, 3\)"):
        tensor.item()


@pytest.mark.parametrize("data", ["text", None, [object()], np.array(["a"]), np.array([1j]), np.array([None])])
def test_what_is_no_number_is_refused(data):
    with pytest.raises(TypeError, match="Tensor: expected numbers"):
        Tensor(data)


def test_a_tensor_of_a_tensor_is_refused():
    with pytest.raises(TypeError, match=r"a Tensor already.*detach"):
        Tensor(Tensor(1.0))


def test_integers_cannot_require_a_gradient():
    with pytest.raises(TypeError, match=r"only floating-point tensors can require a gradient, got int64.*float32"):
        Tensor([1, 2], requires_grad=True)


def test_a_parameter_requires_a_gradient():
    assert Parameter([1.0]).requires_grad
    assert isinstance(Parameter([1.0]), Tensor)


def test_repr_shows_small_contents_and_sums_up_large_ones():
    assert repr(Tensor([1.0, 2.5])) == "Tensor([1. , 2.5], (2,) float32)"
    assert repr(leaf([1.0])) == "Tensor([1.], (1,) float32, requires_grad)"
    assert repr(leaf([1.0]).sum()) == "Tensor(1., () float32, Sum(axis=None, keepdims=False))"
    assert repr(Parameter(np.arange(9.0))) == "Parameter(mean 4, std 2.582, (9,) float64, requires_grad)"
    assert repr(Tensor(np.arange(9))) == "Tensor(..., (9,) int64)"


def test_numpy_reads_a_constant_but_not_what_has_a_graph():
    assert np.asarray(Tensor([1.0, 2.0])).tolist() == [1.0, 2.0]
    with pytest.raises(RuntimeError, match=r"requires a gradient, which NumPy would lose; use tensor\.data"):
        np.asarray(leaf())


def test_detach_shares_the_data_and_stops_the_gradient():
    x = leaf()
    y = (x * 2).detach()
    assert not y.requires_grad
    assert y.is_leaf
    assert x.detach().data is x.data


# ---- backward ------------------------------------------------------------------------------------


def test_gradients_accumulate_over_calls_and_at_forks():
    x = leaf()
    (x * x + x).backward(np.array([1, 10], np.float32))
    assert x.grad.tolist() == [3.0, 50.0]  # 2x + 1
    (x * 5).backward(np.ones(2, np.float32))
    assert x.grad.tolist() == [8.0, 55.0]


def test_an_operand_used_in_three_places_collects_three_contributions():
    x = leaf([3.0])
    y = x * 2
    z = y * y + y.exp().log() + y
    z.backward(np.ones(1, np.float32))
    assert x.grad == pytest.approx([2 * (2 * 6 + 1 + 1)])


def test_a_gradient_is_complete_before_it_is_passed_on():
    """A depth-first walk would pass the fork's gradient on before the longer way has added its share."""
    x = leaf([1.0], np.float64)
    calls = []

    class Counted(Function):
        def forward(self, array):
            return array * 1

        def backward(self, grad_output):
            calls.append(grad_output.copy())
            return (grad_output,)

    fork = apply(Counted(), x)
    way = fork
    for _ in range(10):
        way = way * 2
    (fork + way).backward(np.ones(1))
    assert len(calls) == 1
    assert calls[0] == [1 + 2**10]


@given(st.lists(st.tuples(st.integers(0, 50), st.integers(0, 50)), min_size=1, max_size=25), st.integers(0, 2**16))
@settings(max_examples=50, deadline=None)
def test_any_graph_of_sums_has_the_gradient_that_counts_paths(edges, seed):
    """Nodes are c_a a + c_b b of two earlier ones: the gradient is the sum over paths of products of the c's."""
    rng = np.random.default_rng(seed)
    nodes, values, slopes = [leaf([1.0], np.float64)], [1.0], [1.0]
    for first, second in edges:
        a, b = first % len(nodes), second % len(nodes)
        p, q = rng.uniform(-1, 1, 2)
        nodes.append(nodes[a] * float(p) + nodes[b] * float(q))
        values.append(values[a] * p + values[b] * q)
        slopes.append(slopes[a] * p + slopes[b] * q)
    nodes[-1].backward()
    assert nodes[-1].item() == pytest.approx(values[-1], abs=1e-12)
    assert nodes[0].grad == pytest.approx([slopes[-1]], abs=1e-12)


def test_only_leaves_that_require_it_get_a_gradient():
    x, constant = leaf(), Tensor([3.0, 4.0])
    y = x * constant
    y.sum().backward()
    assert x.grad.tolist() == [3.0, 4.0]
    assert constant.grad is None
    assert y.grad is None


def test_retain_grad_keeps_an_intermediate_gradient():
    x = leaf()
    y = x * 2
    assert y.retain_grad() is y
    z = (y * y).retain_grad()
    z.backward(np.array([1, 10], np.float32))
    assert y.grad.tolist() == [4.0, 80.0]
    assert z.grad.tolist() == [1.0, 10.0]
    with pytest.raises(RuntimeError, match="doesn't require a gradient; create it with requires_grad=True"):
        Tensor([1.0]).retain_grad()


def test_backward_from_a_leaf_adds_the_upstream_gradient():
    x, upstream = leaf(), np.array([5, 6], np.float32)
    x.backward(upstream)
    assert x.grad.tolist() == [5.0, 6.0]
    assert not np.may_share_memory(x.grad, upstream)


def test_a_scalar_starts_with_gradient_one_and_a_tensor_is_a_gradient_too():
    x = leaf()
    x.sum().backward()
    assert x.grad.tolist() == [1.0, 1.0]
    (x * 1).backward(Tensor([2.0, 3.0]))
    assert x.grad.tolist() == [3.0, 4.0]
    x.grad = None
    (x[:1] * 4).backward()  # one element, though not 0-d
    assert x.grad.tolist() == [4.0, 0.0]


@pytest.mark.parametrize(
    "expression",
    {
        "sum": lambda a, b: a + b,
        "difference": lambda a, b: a - b,
        "twice the same": lambda a, b: a + a,
        "views": lambda a, b: a.reshape(2, 1).T.flatten() + b,
        "parts of one array": lambda a, b: functional.concatenate([a, b])[0:4],
        "stack": lambda a, b: functional.stack([a, b, a]),
        "a chain of sums": lambda a, b: (a + b) + (a + b),
    }.items(),
    ids=lambda item: item[0],
)
def test_leaf_gradients_never_share_memory_with_anything(expression):
    a, b = leaf([1.0, 2.0]), leaf([3.0, 4.0])
    middle = (a * 1).retain_grad()
    y = expression[1](middle + 0, b)
    upstream = np.ones(y.shape, np.float32)
    y.backward(upstream)
    arrays = [tensor.grad for tensor in (a, b, middle) if tensor.grad is not None]
    arrays += [a.data, b.data, middle.data, upstream]
    for first, second in itertools.combinations(arrays, 2):
        assert not np.may_share_memory(first, second)


def test_a_gradient_that_is_somebody_s_saved_array_is_not_shared_with_the_leaf():
    """sum(x y) at an upstream gradient of 1: an operation may return the other factor itself."""

    class Dot(Function):
        def forward(self, x, y):
            self.save_for_backward(x=x, y=y)
            return (x * y).sum()

        def backward(self, grad_output):
            return self.saved.y, self.saved.x

    x, y = leaf([1.0, 2.0]), leaf([3.0, 4.0])
    apply(Dot(), x, y).backward()
    x.data -= x.grad
    y.data -= y.grad
    assert x.data.tolist() == [-2.0, -2.0]
    assert y.data.tolist() == [2.0, 2.0]


def test_no_grad_builds_nothing_and_ends_with_its_block():
    x = leaf()
    with no_grad():
        y = x * 2
        with pytest.raises(RuntimeError), no_grad():
            raise RuntimeError
        assert not (x * 2).requires_grad
    assert not y.requires_grad
    assert y.creator is None
    assert (x * 2).requires_grad


def test_no_grad_concerns_its_own_thread_alone():
    x, seen = leaf(), []
    with no_grad():
        thread = threading.Thread(target=lambda: seen.append((x * 2).requires_grad))
        thread.start()
        thread.join()
    assert seen == [True]


# ---- misuse --------------------------------------------------------------------------------------


def test_a_second_backward_names_the_function_and_its_line():
    x = leaf()
    y = x.exp()
    here = inspect.currentframe().f_lineno - 1
    y.sum().backward()
    with pytest.raises(
        RuntimeError, match=rf"freed by an earlier backward, at Exp\(\) .*test_tensor.py:{here}\).*retain_graph=True"
    ):
        y.backward(np.ones(2, np.float32))


def test_a_second_backward_through_the_same_scalar_is_refused_too():
    loss = leaf().sum()
    loss.backward()
    with pytest.raises(RuntimeError, match="freed by an earlier backward"):
        loss.backward()


def test_retain_graph_allows_a_second_backward():
    x = leaf()
    loss = (x * x).sum()
    loss.backward(retain_graph=True)
    loss.backward()
    assert x.grad.tolist() == [4.0, 8.0]


def test_several_elements_need_an_upstream_gradient():
    with pytest.raises(RuntimeError, match=r"a tensor of shape \(2,\) needs an upstream gradient of that shape"):
        (leaf() * 2).backward()


@pytest.mark.parametrize("tensor", [Tensor([1.0]), Tensor([1.0]) * 2])
def test_backward_without_a_graph_is_refused(tensor):
    with pytest.raises(RuntimeError, match=r"this tensor has no graph.*no_grad\(\)"):
        tensor.backward()


@pytest.mark.parametrize(
    ("upstream", "error", "message"),
    [
        (np.ones(3, np.float32), ValueError, r"the upstream gradient has shape \(3,\), but the tensor \(2,\)"),
        (np.ones(1, np.float32), ValueError, r"the upstream gradient has shape \(1,\), but the tensor \(2,\)"),
        (np.ones(2), TypeError, "must be an array of float32, got float64"),
        ([1.0, 1.0], TypeError, "must be an array of float32, got list"),
        (1.0, TypeError, "must be an array of float32, got float"),
    ],
)
def test_an_upstream_gradient_that_does_not_fit_is_refused(upstream, error, message):
    with pytest.raises(error, match=message):
        (leaf() * 2).backward(upstream)


class Fails(Function):
    """The identity; its backward raises."""

    def forward(self, x):
        return x.copy()

    def backward(self, grad_output):
        raise ArithmeticError("the backward of Fails fails")


def test_a_backward_that_fails_changes_no_gradient():
    early, late = leaf(), leaf()
    early.grad = np.array([7, 8], np.float32)
    middle = (apply(Fails(), early) * 1).retain_grad()
    loss = (middle * late).sum()
    with pytest.raises(ArithmeticError, match="the backward of Fails fails"):
        loss.backward()
    assert early.grad.tolist() == [7.0, 8.0]
    assert late.grad is None
    assert middle.grad is None
