"""What a tape keeps of the backward pass: contributions, gradients, their states; its memory; the first NaN."""

from __future__ import annotations

import gc
import inspect
import weakref

import numpy as np
import pytest

from minires import Function, Tensor, functional, models, record, using
from minires.inspection import GradientState
from minires.tensor import apply
from tests.inspection.recording import Net, leaf, recorded_net


@pytest.fixture(autouse=True)
def reference_kernels():
    with using("reference"):
        yield


# ---- contributions and gradients -----------------------------------------------------------------


@pytest.mark.parametrize("name", ["resnet8", "preact_resnet8"])
def test_contributions_added_in_order_are_the_gradient_bit_for_bit(name):
    net = models.create(name, widths=(3, 4, 6))
    with record() as tape:
        functional.cross_entropy(net(leaf(3, 3, 6, 7, dtype=np.float32)), np.array([1, 7, 4])).backward()
    assert tape.backward_order
    for node in tape.backward_order:
        first, *others = (each.array for each in tape.contributions(node))
        for each in others:
            first = first + each
        np.testing.assert_array_equal(first, tape.gradient(node).array, err_msg=node.name)
    assert sum(len(tape.contributions(node)) > 1 for node in tape.nodes) == 3


def test_each_use_of_a_tensor_is_a_contribution_of_its_own():
    x, y = leaf(4), leaf(4, seed=1)
    with record() as tape:
        (x * y + x).sum().backward()
    assert [(each.consumer.op, each.slot) for each in tape.contributions(x)] == [("add", 1), ("mul", 0)]
    np.testing.assert_array_equal(tape.contributions(x)[0].array, np.ones(4))
    np.testing.assert_array_equal(tape.contributions(x)[1].array, y.data)
    np.testing.assert_array_equal(tape.gradient(x).array, 1 + y.data)


def test_a_tensor_used_twice_by_one_operation_has_two_contributions():
    x = leaf(4)
    with record() as tape:
        (x * x).sum().backward()
    assert [(each.consumer.op, each.slot) for each in tape.contributions(x)] == [("mul", 0), ("mul", 1)]


def test_the_upstream_gradient_is_a_contribution_without_consumer():
    x, upstream = leaf(3), np.array([1.0, -2.0, 0.5])
    with record() as tape:
        y = x.exp()
        y.backward(upstream)
    (start,) = tape.contributions(y)
    assert start.consumer is None
    assert start.array is upstream
    assert tape[y].kind == "loss"


def test_backward_order_is_that_in_which_gradients_were_complete():
    x = leaf(3)
    with record() as tape:
        y = x.exp()
        (y * y + x).sum().backward()
    assert [node.name for node in tape.backward_order] == ["sum", "add", "mul", "exp", "input"]


def test_the_states_of_a_gradient_are_told_apart():
    x, unused, constant = leaf(3), leaf(3, seed=1), Tensor(np.ones(3))
    with record() as tape:
        y = x * constant
        aside = unused.exp()
        z = y * Tensor(np.zeros(3))
        every = (x, unused, y, aside, z)
        assert {tape.gradient(each).state for each in every} == {GradientState.NOT_COMPUTED}
        z.backward(np.array([1.0, 2.0, 3.0]))
        later = x.abs()
    assert tape.gradient(z).state is GradientState.VALUE
    assert tape.gradient(y).state is GradientState.ZERO
    assert tape.gradient(x).state is GradientState.ZERO
    assert not tape.gradient(x).array.any()
    assert tape.gradient(unused).state is GradientState.NO_PATH
    assert tape.gradient(aside).state is GradientState.NO_PATH
    assert tape.gradient(constant).state is GradientState.NO_PATH
    assert tape.gradient(later).state is GradientState.NOT_COMPUTED
    for each in (unused, aside, constant, later):
        assert tape.gradient(each).array is None
        assert tape.contributions(each) == ()


class Refuses(Function):
    def forward(self, x):
        return x + 0

    def backward(self, grad_output):
        raise ArithmeticError("no gradient today")


class PassesNothing(Function):
    def forward(self, x):
        return x + 0

    def backward(self, grad_output):
        return (None,)


def test_behind_a_backward_that_failed_gradients_are_not_computed():
    x, other = leaf(3), leaf(3, seed=1)
    with record() as tape:
        inner = x.exp()
        y = apply(Refuses(), inner)
        aside = other.exp()
        total = y + other * 2
        with pytest.raises(ArithmeticError):
            total.backward(np.ones(3))
    assert tape.gradient(y).state is GradientState.VALUE
    assert tape.gradient(inner).state is GradientState.NOT_COMPUTED
    assert tape.gradient(x).state is GradientState.NOT_COMPUTED
    assert tape.gradient(other).state is GradientState.NOT_COMPUTED  # it had a contribution, but not yet all
    assert tape.gradient(aside).state is GradientState.NO_PATH


@pytest.mark.parametrize("retain_graph", [False, True])
def test_behind_a_function_that_passes_nothing_there_is_no_path(retain_graph):
    x, other = leaf(3), leaf(3, seed=1)
    with record() as tape:
        inner = x.exp()
        (apply(PassesNothing(), inner) + other).sum().backward(retain_graph=retain_graph)
    assert tape.gradient(inner).state is GradientState.NO_PATH
    assert tape.gradient(x).state is GradientState.NO_PATH
    assert tape.gradient(other).state is GradientState.VALUE


def test_a_new_backward_pass_begins_with_a_clean_slate():
    x, y = leaf(3), leaf(3, seed=1)
    with record() as tape:
        first, second = (x * y).sum(), (x * 2).sum()
        first.backward()
        np.testing.assert_array_equal(tape.gradient(x).array, y.data)
        second.backward()
    np.testing.assert_array_equal(tape.gradient(x).array, [2, 2, 2])
    assert len(tape.contributions(x)) == 1
    assert tape.gradient(y).state is GradientState.NO_PATH
    assert tape.loss is tape[second]
    np.testing.assert_array_equal(x.grad, y.data + 2)


# ---- memory --------------------------------------------------------------------------------------


@pytest.mark.parametrize("check", [False, True])
def test_a_tape_and_what_it_holds_are_freed_without_the_garbage_collector(check):
    net, x = models.create("resnet8", widths=(2, 3, 4)), leaf(2, 3, 4, 4, dtype=np.float32)
    gc.collect()
    gc.disable()
    try:
        with record(check=check) as tape:
            loss = net(x).sum()
            loss.backward()
        watched = [weakref.ref(tape), weakref.ref(loss), *(weakref.ref(n.value) for n in tape.nodes if n.kind == "op")]
        watched += [weakref.ref(each.array) for node in tape.nodes for each in tape.contributions(node)
                    if node.kind == "op"]  # fmt: skip
        del loss
        assert all(each() is not None for each in watched[2:])  # as long as the tape lives
        del tape
        assert [each() for each in watched if each() is not None] == []
    finally:
        gc.enable()


def test_a_deep_graph_is_recorded_and_freed_without_recursion():
    x = leaf(2)
    with record() as tape:
        y = x
        for _ in range(5000):
            y = -y
        y.sum().backward()
    assert len(tape.nodes) == 5002
    np.testing.assert_array_equal(tape.gradient(x).array, [1, 1])
    with record() as late:
        y = x
    for _ in range(5000):
        y = -y
    with record() as late:
        y.sum().backward()
    assert len(late.nodes) == 5002
    del tape, late, y


# ---- the first NaN -------------------------------------------------------------------------------


def test_a_tape_of_finite_numbers_has_no_first_nonfinite():
    _, _, tape = recorded_net()
    assert tape.first_nonfinite() is None


def test_the_first_nonfinite_of_the_forward_pass_is_found_with_its_line():
    x = Tensor(np.array([[1.0, 2.0, 3.0], [4.0, 0.0, -1.0]], np.float32), requires_grad=True)
    with record() as tape, np.errstate(all="ignore"):
        line = inspect.currentframe().f_lineno + 1
        y = (x * 2).log()
        (y.exp() + y).sum().backward()
    found = tape.first_nonfinite()
    assert found.node is tape["log"]
    assert found.phase == "forward"
    assert found.index == (1, 1)
    assert found.count == 2
    assert str(found) == (
        "forward: its value is -inf at index [1, 1] and non-finite in 2 of 6 elements, shape (2, 3) float32; "
        f"log at test_record_backward.py:{line}"
    )


def test_a_bad_input_is_itself_the_culprit():
    net, x = Net(), leaf(2, 2, 5, 4, dtype=np.float32)
    net.conv.weight.data[1, 0, 2, 2] = np.inf
    with record() as tape, np.errstate(all="ignore"):
        net(x)
    found = tape.first_nonfinite()
    assert (found.node.name, found.index, found.count) == ("conv.weight", (1, 0, 2, 2), 1)
    assert "; conv.weight" in str(found)


def test_the_first_nonfinite_of_the_backward_pass_is_the_node_whose_backward_made_it():
    x = Tensor(np.array([1.0, 0.0, 4.0]), requires_grad=True)
    with record() as tape, np.errstate(all="ignore"):
        (x.sqrt() * 3).sum().backward()  # d sqrt(x) = dx / (2 sqrt(x)) is infinite at 0
    found = tape.first_nonfinite()
    assert (found.node.name, found.phase, found.what, found.index) == (
        "sqrt",
        "backward",
        "its gradient for input",
        (1,),
    )


def test_finite_contributions_with_an_infinite_sum_are_found_at_the_fork():
    x = leaf(2)
    huge = Tensor(np.array([1.0, 1e308]))
    with record() as tape, np.errstate(all="ignore"):
        y = x * 1
        ((y * huge) * 1.5 + (y * huge) * 1.5).backward(np.ones(2))
    found = tape.first_nonfinite()
    assert (found.node.name, found.phase, found.what) == ("mul", "backward", "the sum of its contributions")
    with record() as tape, np.errstate(all="ignore"):
        ((x * huge) * 1.5 + (x * huge) * 1.5).backward(np.ones(2))
    assert (tape.first_nonfinite().node.name, tape.first_nonfinite().what) == ("input", "the sum of its contributions")


def test_a_bad_upstream_gradient_is_found():
    with record() as tape:
        y = leaf(2) * 2
        y.backward(np.array([np.nan, 1.0]))
    found = tape.first_nonfinite()
    assert (found.node.name, found.what, found.index) == ("mul", "the upstream gradient", (0,))
