"""Hooks on tensors: called once with the complete gradient, which they may replace."""

from __future__ import annotations

import numpy as np
import pytest

from minires import Tensor, record

UPSTREAM = np.random.default_rng(0).standard_normal(3)


def leaf(*numbers):
    return Tensor(np.array(numbers), requires_grad=True)


def test_a_hook_sees_the_complete_gradient_once():
    x, seen = leaf(1.0, 2.0, 3.0), []
    middle = x * 2
    middle.register_hook(seen.append)
    (middle * middle + middle).backward(UPSTREAM)
    (gradient,) = seen
    np.testing.assert_allclose(gradient, UPSTREAM * (2 * middle.data + 1), rtol=1e-15)
    np.testing.assert_allclose(x.grad, 2 * gradient, rtol=1e-15)


def test_what_a_hook_returns_is_passed_on():
    x = leaf(1.0, 2.0, 3.0)
    middle = (x * 2).retain_grad()
    middle.register_hook(lambda grad: grad * 10)
    middle.register_hook(lambda grad: grad + 1)
    (middle * 3).backward(UPSTREAM)
    np.testing.assert_allclose(middle.grad, 30 * UPSTREAM + 1, rtol=1e-15)
    np.testing.assert_allclose(x.grad, 2 * (30 * UPSTREAM + 1), rtol=1e-15)


def test_a_leaf_s_hook_is_called_in_each_pass_with_that_pass_s_gradient():
    x, seen = leaf(1.0, 2.0, 3.0), []
    x.register_hook(lambda grad: seen.append(grad) or -grad)
    for factor in (2, 5):
        (x * factor).backward(UPSTREAM)
    np.testing.assert_allclose(seen, [2 * UPSTREAM, 5 * UPSTREAM])
    np.testing.assert_allclose(x.grad, -7 * UPSTREAM)


def test_the_tensor_that_backward_starts_from_has_hooks_too():
    x = leaf(1.0, 2.0, 3.0)
    y = x * 2
    y.register_hook(lambda grad: grad * 0)
    y.backward(UPSTREAM)
    assert x.grad.tolist() == [0, 0, 0]
    x.register_hook(lambda grad: grad + 4)
    x.backward(UPSTREAM * 0)
    assert x.grad.tolist() == [4, 4, 4]


def test_a_hook_that_is_removed_is_not_called():
    x, calls = leaf(1.0), []
    first = x.register_hook(lambda _: calls.append("first"))
    with x.register_hook(lambda _: calls.append("second")):
        (x * 2).backward()
    first.remove()
    first.remove()
    (x * 2).backward()
    assert calls == ["first", "second"]


def test_a_hook_may_remove_itself():
    x, calls = leaf(1.0), []

    def once(grad):
        calls.append(float(grad[0]))
        handle.remove()

    handle = x.register_hook(once)
    x.register_hook(lambda grad: grad * 2)
    for _ in range(2):
        (x * 3).backward()
    assert calls == [3.0]
    assert x.grad.tolist() == [12.0]


@pytest.mark.witness
def test_hooks_do_what_torch_s_do():
    import torch

    results = []
    for x in (Tensor(np.array([1.0, -2.0, 3.0]), requires_grad=True),
              torch.tensor([1.0, -2.0, 3.0], dtype=torch.float64, requires_grad=True)):  # fmt: skip
        y = x * x
        y.retain_grad()
        y.register_hook(lambda grad: grad * 0.5)
        y.register_hook(lambda grad: grad - 1)
        x.register_hook(lambda grad: grad.clip(-4, 4))
        (y * y + y).sum().backward()
        results.append((np.asarray(y.grad), np.asarray(x.grad)))
    for ours, theirs in zip(*results, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-15)


def test_a_gradient_that_a_hook_writes_to_is_read_only():
    x = leaf(1.0, 2.0, 3.0)

    def writes(grad):
        grad *= 2

    x.register_hook(writes)
    for _ in range(2):
        with pytest.raises(ValueError, match="read-only") as caught:
            (x * 2).backward(UPSTREAM)
        (note,) = caught.value.__notes__
        assert note.startswith("in the hook test_a_gradient_that_a_hook_writes_to_is_read_only.<locals>.writes of a ")
        assert note.endswith(
            "Tensor of shape (3,); a hook doesn't write to its gradient, it returns a new one: grad * 2"
        )
    assert x.grad is None


def test_what_a_hook_returns_stays_its_own():
    x, y, kept = leaf(1.0, 2.0, 3.0), leaf(1.0, 2.0, 3.0), np.array([7.0, 8.0, 9.0])
    for tensor, hook in ((x, lambda _: kept), (y, lambda grad: grad[::-1])):
        tensor.register_hook(hook)
    (x + y).backward(UPSTREAM)
    np.testing.assert_array_equal(y.grad, UPSTREAM[::-1])
    assert not np.may_share_memory(x.grad, kept)
    x.grad *= 2
    y.grad *= 2
    assert kept.tolist() == [7.0, 8.0, 9.0]


@pytest.mark.parametrize(
    ("returned", "error", "message"),
    [
        (np.ones(2), ValueError, r"the gradient that a hook returned has shape \(2,\), but the tensor \(3,\)"),
        (np.ones(3, np.float32), TypeError, "must be an array of float64, got float32"),
        (1.0, TypeError, "the gradient that a hook returned must be an array of float64, got float"),
    ],
)
def test_a_replacement_that_does_not_fit_is_refused_and_changes_no_gradient(returned, error, message):
    x, y = leaf(1.0, 2.0, 3.0), leaf(1.0, 2.0, 3.0)
    y.register_hook(lambda _: returned)
    with pytest.raises(error, match=message):
        (x * y).backward(UPSTREAM)
    assert x.grad is None
    assert y.grad is None


def test_a_hook_needs_a_gradient_and_a_function():
    with pytest.raises(RuntimeError, match="register_hook: the tensor doesn't require a gradient"):
        Tensor([1.0]).register_hook(print)
    with pytest.raises(TypeError, match="register_hook: expected a function of the gradient, got int"):
        leaf(1.0).register_hook(3)


def test_a_tape_records_what_the_hooks_left():
    x = leaf(1.0, 2.0, 3.0)
    with record() as tape:
        y = x * 2
        y.register_hook(lambda grad: grad * 10)
        (y * 3).backward(UPSTREAM)
    np.testing.assert_allclose(tape.contributions(y)[0].array, 3 * UPSTREAM)
    np.testing.assert_allclose(tape.gradient(y).array, 30 * UPSTREAM)
    np.testing.assert_allclose(tape.contributions(x)[0].array, 60 * UPSTREAM)
