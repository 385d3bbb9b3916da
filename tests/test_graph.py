"""Deep graphs and memory: backward doesn't recurse, nothing lives longer than it must, nothing needs the collector."""

from __future__ import annotations

import gc
import sys
import weakref
from contextlib import contextmanager

import numpy as np
import pytest

from minires import Function, Tensor, functional, models, no_grad, using
from tests.questions import graph


@pytest.fixture(autouse=True)
def _on_the_reference():
    """Graphs are the subject here, whatever computes their arrays; and no compiler runs within a recursion limit."""
    with using("reference"):
        yield


@contextmanager
def without_garbage_collector():
    """Reference counting alone frees memory in this block."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


@contextmanager
def recursion_limited_to(frames):
    """``frames`` more Python frames may be entered than are active now."""
    depth, frame = 0, sys._getframe()
    while frame is not None:
        depth, frame = depth + 1, frame.f_back
    previous = sys.getrecursionlimit()
    sys.setrecursionlimit(depth + frames)
    try:
        yield
    finally:
        sys.setrecursionlimit(previous)


def small_net(name="resnet8", **options):
    return models.create(name, widths=(2, 2, 2), num_classes=3, **options)


def loss_of(net, size=8, seed=0):
    x = Tensor(np.random.default_rng(seed).standard_normal((2, 3, size, size)).astype(np.float32))
    return functional.cross_entropy(net(x), np.array([0, 2]))


def test_a_chain_of_five_thousand_operations_goes_backward_without_recursion():
    x = Tensor(np.array([1.0, 2.0]), requires_grad=True)
    y = x
    for _ in range(2500):
        y = -(y + 0.5)
    assert len(graph(y)) == 5000
    with recursion_limited_to(60):
        y.backward(np.array([3.0, 4.0]))
    assert x.grad.tolist() == [3.0, 4.0]  # an even number of sign changes


def test_five_thousand_skip_connections_go_backward_without_recursion():
    """y := y + c F(y) with F(y) = 0.001 y: the gradient is a product, 1.001 to the power of the depth."""
    x = Tensor(np.array([1.0]), requires_grad=True)
    y = x
    for _ in range(2500):
        y = y + y * 0.001
    with recursion_limited_to(60):
        y.backward()
    assert x.grad[0] == pytest.approx(1.001**2500, rel=1e-10)


@pytest.mark.parametrize("name", ["resnet1202", "preact_resnet1202"])
def test_a_net_of_1202_layers_goes_backward_without_recursion(name):
    net = models.create(name, widths=(1, 1, 1))
    x = Tensor(np.random.default_rng(0).standard_normal((2, 3, 8, 8)).astype(np.float32))
    loss = functional.cross_entropy(net(x), np.array([1, 7]))
    depth = sum(type(function).__name__ == "Conv2d" for function in graph(loss)) + 1
    assert depth == 1202  # the linear layer is the one that isn't a convolution
    with recursion_limited_to(60):
        loss.backward()
    assert all(parameter.grad is not None for parameter in net.parameters())
    assert all(np.isfinite(parameter.grad).all() for parameter in net.parameters())


def test_dropping_a_deep_graph_that_was_never_walked_is_safe():
    y = Tensor(np.ones(1, np.float32), requires_grad=True)
    for _ in range(50_000):
        y = y + 1.0
    del y


def test_backward_frees_the_graph_at_once_and_without_the_collector():
    net = small_net()
    with without_garbage_collector():
        loss = loss_of(net)
        functions = [weakref.ref(function) for function in graph(loss)]
        tensors = [weakref.ref(source) for function in graph(loss) for source in function.inputs if source is not None]
        activations = [reference for reference in tensors if not reference().is_leaf]
        saved = [weakref.ref(array) for function in graph(loss) for array in function.saved_arrays().values()]
        parameters = {id(parameter.data) for parameter in net.parameters()}
        saved = [reference for reference in saved if id(reference()) not in parameters]
        assert len(functions) > 15
        assert activations
        assert saved
        loss.backward()
        # the loss itself is still held, and with it only its own Function
        assert sum(reference() is not None for reference in functions) == 1
        assert not any(reference() is not None for reference in activations)
        assert not any(reference() is not None for reference in saved)


def test_a_graph_dies_with_its_last_tensor_without_the_collector():
    net = small_net()
    with without_garbage_collector():
        loss = loss_of(net)
        functions = [weakref.ref(function) for function in graph(loss)]
        del loss
        assert not any(reference() is not None for reference in functions)


def test_a_retained_graph_dies_with_its_last_tensor_without_the_collector():
    net = small_net("preact_resnet8")
    with without_garbage_collector():
        loss = loss_of(net)
        functions = [weakref.ref(function) for function in graph(loss)]
        loss.backward(retain_graph=True)
        assert all(reference() is not None for reference in functions)
        del loss
        assert not any(reference() is not None for reference in functions)


def test_a_net_dies_without_the_collector():
    with without_garbage_collector():
        net = small_net()
        loss_of(net).backward()
        references = [weakref.ref(parameter) for parameter in net.parameters()]
        del net
        assert not any(reference() is not None for reference in references)


def test_a_decorated_generator_function_builds_no_graph_and_its_caller_does():
    weight = Tensor([2.0], requires_grad=True)

    @no_grad()
    def batches():
        for factor in (1.0, 2.0):
            yield weight * factor

    for result in batches():
        assert not result.requires_grad
        assert (weight * 3).requires_grad


def test_no_graph_is_kept_within_no_grad():
    net = small_net()
    with no_grad():
        loss = loss_of(net)
    assert graph(loss) == []


def test_a_failed_backward_leaves_no_cycle():
    x = Tensor(np.ones(2, np.float32), requires_grad=True)
    with without_garbage_collector():
        y = x * 2
        reference = weakref.ref(y.creator)
        with pytest.raises(RuntimeError):
            y.backward()
        del y
        assert reference() is None


def test_steps_do_not_accumulate_memory():
    """As many Functions are alive after the third step as after the second."""
    net = small_net()

    def living_functions():
        # type(), not isinstance(): that asks a weak proxy for its class, which fails when what it stands for is gone
        return sum(issubclass(type(each), Function) for each in gc.get_objects())

    with without_garbage_collector():
        counts = []
        for step in range(3):
            net.zero_grad()
            loss_of(net, seed=step).backward()
            counts.append(living_functions())
        assert counts[1] == counts[2]
