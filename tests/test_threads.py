"""Several threads at one net: no gradient is lost, and a graph that two of them walk is freed for one alone."""

from __future__ import annotations

import sys
import threading

import numpy as np
import pytest

from minires import Function, Tensor, using
from minires.tensor import apply

THREADS, TIMES = 8, 100


@pytest.fixture(autouse=True)
def _threads_take_turns_all_the_time():
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    with using("reference"):
        yield
    sys.setswitchinterval(interval)


def in_threads(work, count=THREADS):
    """What ``work(i)`` raised, in threads that start together."""
    start, errors = threading.Barrier(count), []

    def run(i):
        start.wait()
        try:
            with using("reference"):
                work(i)
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(i,)) for i in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()
    return errors


def test_no_gradient_is_lost_when_several_threads_go_backward():
    """400 to 510 of 800 arrived: each read the sum, added to it and wrote it back."""
    x = Tensor(np.zeros(100), requires_grad=True)

    def work(_):
        for _ in range(TIMES):
            (x * 1.0).sum().backward()

    assert in_threads(work) == []
    np.testing.assert_array_equal(x.grad, THREADS * TIMES)


def test_what_two_leaves_get_belongs_together():
    """All of a pass is stored at once: nobody sees one leaf with a pass's gradient and the other without."""
    x, y = (Tensor(np.zeros(50), requires_grad=True) for _ in range(2))

    def work(_):
        for _ in range(TIMES):
            (x + y * 3.0).sum().backward()

    assert in_threads(work) == []
    np.testing.assert_array_equal(x.grad * 3, y.grad)


def test_creation_numbers_are_given_once():
    numbers = [[] for _ in range(THREADS)]
    x = Tensor(np.zeros(3), requires_grad=True)

    def work(i):
        for _ in range(TIMES):
            numbers[i].append((x * 2.0).creator.number)

    assert in_threads(work) == []
    assert len({number for each in numbers for number in each}) == THREADS * TIMES
    assert all(each == sorted(each) for each in numbers)


def test_a_retained_graph_may_be_walked_by_several_threads():
    x = Tensor(np.arange(5.0), requires_grad=True)
    y = x
    for _ in range(20):
        y = y * 1.0 + 0.0
    loss = (y * y).sum()
    assert in_threads(lambda _: [loss.backward(retain_graph=True) for _ in range(20)]) == []
    np.testing.assert_array_equal(x.grad, THREADS * 20 * 2 * np.arange(5.0))


def test_a_graph_that_several_threads_free_at_once_says_so():
    """Who comes too late is told, in the words of a second backward; whoever comes through is counted whole."""
    for _ in range(30):
        x = Tensor(np.ones(5), requires_grad=True)
        y = x
        for _ in range(30):
            y = (y * 1.0).exp().log()
        loss = y.sum()
        errors = in_threads(lambda _, loss=loss: loss.backward(), 4)
        assert all("freed by an earlier backward" in str(error) for error in errors), errors
        arrived = 4 - len(errors)
        np.testing.assert_allclose(x.grad if arrived else np.zeros(5), arrived)


def test_a_thread_that_frees_the_graph_in_the_midst_of_another_s_backward():
    class Meets(Function):
        """The identity; while the first backward pass is in it, a second one comes through and frees it."""

        def forward(self, x):
            self.save_for_backward(x=x)
            return x.copy()

        def backward(self, grad_output):
            if first:
                first.pop()
                assert in_threads(lambda _: middle.backward(np.ones(3)), 1) == []
            return (grad_output * np.ones_like(self.saved.x),)

    first, x = [True], Tensor(np.ones(3), requires_grad=True)
    middle = apply(Meets(), x)
    with pytest.raises(RuntimeError, match=r"freed by an earlier backward, at Meets"):
        (middle * 1.0).sum().backward()
    np.testing.assert_array_equal(x.grad, 1.0)
