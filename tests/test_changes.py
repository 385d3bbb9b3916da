"""What is changed between forward and backward: noticed where it can be, and kept apart where it was handed in."""

from __future__ import annotations

import copy
import inspect

import numpy as np
import pytest

from minires import Parameter, Tensor, functional, nn, optim, record
from minires.tensor import apply
from tests.test_function import Square

CHANGED = r"was changed since \(.*test_changes.py:{}\).*call backward before the change.*or compute the loss again"


def line():
    """The number of the line that calls."""
    return inspect.currentframe().f_back.f_lineno


def net_and_loss(seed=0):
    rng = np.random.default_rng(seed)
    net = nn.Linear(4, 3, rng=rng)
    return net, functional.cross_entropy(net(Tensor(rng.standard_normal((5, 4)).astype(np.float32))), np.arange(5) % 3)


def test_weights_that_an_optimizer_moved_are_noticed_with_both_lines():
    """The second backward silently took the new weights."""
    net, loss = net_and_loss()
    sgd = optim.SGD(net.parameters(), lr=0.1)
    loss.backward(retain_graph=True)
    sgd.step()
    changed = line() - 1
    before = net.weight.grad.copy()
    with pytest.raises(RuntimeError, match=CHANGED.format(changed)) as caught:
        loss.backward()
    assert "backward: input 1 of Linear() (" in str(caught.value)
    assert "a Parameter of shape (3, 4)" in str(caught.value)
    np.testing.assert_array_equal(net.weight.grad, before)  # no gradient has been changed
    net.zero_grad()
    sgd.step()  # without gradients nothing moves
    _, loss = net_and_loss()
    loss.backward()


WRITERS = {
    "an optimizer": lambda net, sgd: sgd.step(),
    "load_state_dict": lambda net, sgd: net.load_state_dict(net.state_dict()),
    "astype": lambda net, sgd: net.astype(np.float64),
    "an assignment": lambda net, sgd: setattr(net.weight, "data", net.weight.data * 2),
    "an assignment of the same array": lambda net, sgd: exec("weight.data -= 1", {"weight": net.weight}),
    "changed()": lambda net, sgd: net.weight.changed(),
}


@pytest.mark.parametrize("writer", WRITERS)
def test_whatever_writes_to_a_parameter_is_noticed(writer):
    net, loss = net_and_loss()
    loss.backward(retain_graph=True)
    WRITERS[writer](net, optim.SGD(net.parameters(), lr=0.1))
    net.zero_grad()
    with pytest.raises(RuntimeError, match=r"was changed since .*or compute the loss again"):
        loss.backward(retain_graph=True)
    assert all(parameter.grad is None for parameter in net.parameters())


def test_a_conversion_that_converts_nothing_changes_nothing():
    net, loss = net_and_loss()
    net.astype(np.float32).to("cpu")
    loss.backward()
    assert net.weight.grad is not None


def test_what_is_computed_after_a_change_sees_the_new_numbers():
    weight = Parameter(np.array([2.0]))
    for factor in (2.0, 3.0, 5.0):
        weight.data = np.array([factor])
        weight.grad = None
        (weight * weight).backward()
        assert weight.grad.tolist() == [2 * factor]


def test_a_view_of_a_parameter_is_noticed_too():
    """x @ weight.T saves an array in the weight's memory, but its input is what transpose made."""
    x, weight = Tensor(np.ones((2, 3)), requires_grad=True), Parameter(np.ones((4, 3)))
    y = x @ weight.T
    weight.data -= 1
    with pytest.raises(RuntimeError, match=r"input 0 of Permute\(axes=\(1, 0\)\) .* a Parameter of shape \(4, 3\)"):
        y.backward(np.ones((2, 4)))


def test_a_frozen_parameter_that_another_s_gradient_needs_is_noticed():
    x, weight = Tensor(np.ones(3), requires_grad=True), Parameter(np.ones(3), requires_grad=False)
    y = x * weight
    weight.data = np.zeros(3)
    with pytest.raises(RuntimeError, match=r"input 1 of Mul\(\)"):
        y.backward(np.ones(3))


def test_an_input_and_an_output_that_were_assigned_to_are_noticed():
    x = Tensor(np.ones(3), requires_grad=True)
    y = apply(Square(), x)
    x.data += 1
    with pytest.raises(RuntimeError, match=r"input 0 of Square\(\) .*, a Tensor of shape \(3,\), was changed"):
        y.backward(np.ones(3))
    y = x.exp()  # saves what it returns
    y.data *= 2
    with pytest.raises(RuntimeError, match=r"the output of Exp\(\) .*, a Tensor of shape \(3,\), was changed"):
        y.backward(np.ones(3))


def test_an_output_may_be_replaced_before_it_is_used():
    """A quantized forward pass with a straight-through gradient: exp's own result stays as it was."""
    x = Tensor(np.array([0.3, 1.2]), requires_grad=True)
    y = x.exp()
    y.data = np.round(y.data)
    (y * y).backward(np.ones(2))
    np.testing.assert_allclose(x.grad, 2 * np.round(np.exp(x.data)) * np.exp(x.data), rtol=1e-15)


def test_writing_into_the_array_is_found_by_check():
    x = Tensor(np.ones(3), requires_grad=True)
    with record(check=True):
        y = x * x
        with pytest.raises(ValueError, match="read-only"):
            x.data[0] = 5
        y.backward(np.ones(3))
    y = x * x
    x.data[0] = 5
    x.changed()  # said by hand
    with pytest.raises(RuntimeError, match="was changed since"):
        y.backward(np.ones(3))


# ---- what is handed in and changed afterwards ----------------------------------------------------

X = np.arange(2.0, 14.0).reshape(3, 4)


def assign(position, value):
    return lambda container: container.__setitem__(position, value)


HANDED_IN = {
    "a list as index": (lambda x, given: x[given], [0, 1], assign(0, 2)),
    "a list within a tuple": (lambda x, given: x[given], (slice(None), [0, 1]), lambda given: assign(0, 2)(given[1])),
    "a nested list": (lambda x, given: x[given], [[0, 1], [1, 1]], lambda given: assign(0, 2)(given[0])),
    "a list of booleans": (lambda x, given: x[given], [True, False, True], assign(1, True)),
    "an array as index": (lambda x, given: x[given], np.array([0, 1]), assign(0, 2)),
    "a tensor as index": (lambda x, given: x[given], Tensor([0, 1]), lambda given: assign(0, 2)(given.data)),
    "a tensor in a slice": (lambda x, given: x[:given], Tensor(1), lambda given: assign((), 2)(given.data)),
    "a mask": (lambda x, given: x[given], np.eye(3, 4, dtype=bool), assign((0, 1), True)),
    "a condition": (lambda x, given: functional.where(given, x, x * 2), np.eye(3, 4, dtype=bool), assign((0, 1), True)),
    "an array to multiply with": (lambda x, given: x * given, np.ones((3, 4)), assign((0, 0), 7.0)),
    "a divisor": (lambda x, given: x / given, np.ones((3, 4)), assign((0, 0), 7.0)),
    "an exponent": (lambda x, given: x**given, np.full((3, 4), 2.0), assign((0, 1), 5.0)),
    "a matrix": (lambda x, given: x @ given, np.ones((4, 2)), assign((0, 0), 7.0)),
    "widths": (lambda x, given: functional.pad(x, given), [[1, 0], [0, 1]], lambda given: assign(0, 0)(given[0])),
    "a shape": (lambda x, given: x.reshape(given), [4, 3], assign(slice(None), [3, 4])),
    "axes": (lambda x, given: x.permute(given), [1, 0], assign(slice(None), [0, 1])),
    "labels": (functional.cross_entropy, np.array([0, 1, 2]), assign(0, 3)),
    "labels in a list": (functional.cross_entropy, [0, 1, 2], assign(0, 3)),
    "running statistics": (
        lambda x, given: functional.batch_norm(x, *given),
        (np.zeros(4), np.ones(4)),
        lambda given: assign(0, 9.0)(given[1]),
    ),
}


@pytest.mark.parametrize("name", HANDED_IN)
def test_what_was_handed_in_may_be_changed_before_backward(name):
    operation, original, change = HANDED_IN[name]
    given = copy.deepcopy(original)
    x, untouched = Tensor(X, requires_grad=True), Tensor(X, requires_grad=True)
    y = operation(x, given)
    change(given)
    upstream = np.random.default_rng(0).standard_normal(y.shape)
    y.backward(upstream)
    operation(untouched, original).backward(upstream)
    np.testing.assert_array_equal(x.grad, untouched.grad)
    after = operation(Tensor(X), given).data
    assert after.shape != y.shape or not np.array_equal(after, y.data)  # the change wasn't for nothing


@pytest.mark.parametrize("index", [[], [[]], np.array([], int), range(0, 3, 2), (Ellipsis, None, 1), np.int64(1)])
def test_indices_of_every_kind_still_work(index):
    plain = list(index) if isinstance(index, range) else index
    np.testing.assert_array_equal(Tensor(X)[index].data, X[plain])


@pytest.mark.parametrize("times", [1, 2])
def test_a_detached_parameter_shares_its_changes(times):
    """As in PyTorch: the numbers are the same ones, and they have moved."""
    parameter, x = Parameter(np.ones(4, np.float32)), Tensor(np.arange(4, dtype=np.float32), requires_grad=True)
    sgd = optim.SGD([parameter], lr=0.1)
    detached = parameter.detach() if times == 1 else parameter.detach().detach()
    loss = (detached * x).sum()
    parameter.grad = np.ones(4, np.float32)
    sgd.step()
    with pytest.raises(RuntimeError, match=CHANGED.format(line() - 1)):
        loss.backward()
    assert x.grad is None
    (detached * x).sum().backward()  # the same tensor, after the change
    np.testing.assert_array_equal(x.grad, parameter.data)


def test_a_detached_tensor_that_got_numbers_of_its_own_shares_no_changes():
    parameter, x = Parameter(np.ones(4, np.float32)), Tensor(np.ones(4, np.float32), requires_grad=True)
    detached = parameter.detach()
    detached.data = 3 * np.ones(4, np.float32)
    loss = (detached * x).sum()
    parameter.changed()
    loss.backward()
    np.testing.assert_array_equal(x.grad, detached.data)
