"""record(check=True): the line that overwrites a saved array is the line that raises; afterwards all is as before."""

from __future__ import annotations

import traceback

import numpy as np
import pytest

from minires import Tensor, functional, models, no_grad, optim, record, using

READ_ONLY = "read-only"


@pytest.fixture(autouse=True)
def reference_kernels():
    with using("reference"):
        yield


def leaf(*shape, seed=0):
    return Tensor(np.random.default_rng(seed).standard_normal(shape), requires_grad=True)


def test_the_line_that_overwrites_a_saved_array_is_the_line_that_raises():
    x = leaf(3)
    with record(check=True):
        y = x.exp()
        with pytest.raises(ValueError, match=READ_ONLY) as caught:
            y.data += 1  # damage
        y.sum().backward()
    assert traceback.extract_tb(caught.value.__traceback__)[-1].line == "y.data += 1  # damage"
    np.testing.assert_array_equal(x.grad, np.exp(x.data))


def test_without_check_the_same_damage_goes_unnoticed_and_falsifies_the_gradient():
    x = leaf(3)
    with record():
        y = x.exp()
        y.data[:] += 1  # into the array: an assignment, `y.data += 1`, would be noticed
        y.sum().backward()
    np.testing.assert_array_equal(x.grad, np.exp(x.data) + 1)


def test_a_saved_array_is_writable_again_as_soon_as_it_is_released():
    x = leaf(3)
    with record(check=True):
        y = x.exp()
        y.sum().backward()
        y.data += 1
        x.data += 1


def test_a_saved_array_stays_locked_while_the_graph_is_retained():
    x = leaf(3)
    with record(check=True):
        y = x.exp()
        loss = y.sum()
        loss.backward(retain_graph=True)
        with pytest.raises(ValueError, match=READ_ONLY):
            y.data[0] = 1
        loss.backward()
        y.data[0] = 1


def test_an_array_that_two_functions_saved_is_locked_until_both_release_it():
    x, y, z = leaf(3), leaf(3, seed=1), leaf(3, seed=2)
    with record(check=True):
        first, second = (x * y).sum(), (x * z).sum()
        first.backward()
        y.data[0] = 1
        with pytest.raises(ValueError, match=READ_ONLY):
            x.data[0] = 1
        second.backward()
        x.data[0] = 1


def test_the_array_that_a_saved_one_is_a_view_of_is_locked_too():
    base = np.random.default_rng(0).standard_normal((4, 3))
    x = Tensor(base[1:3], requires_grad=True)
    with record(check=True):
        y = (x * x).sum()
        with pytest.raises(ValueError, match=READ_ONLY):
            base[0, 0] = 1
        y.backward()
        base[0, 0] = 1
        x.data[0, 0] = 1


def test_another_tensor_of_the_same_memory_is_locked_too():
    x = leaf(4)
    with record(check=True):
        y = x.reshape(2, 2)
        z = (x * x).sum()
        with pytest.raises(ValueError, match=READ_ONLY):
            y.data[0, 0] = 1
        z.backward()
        y.data[0, 0] = 1


def test_a_view_that_comes_to_be_known_later_is_locked_from_then_on():
    x = leaf(4)
    view = x.data[1:]
    with record(check=True):
        z = (x * x).sum()
        Tensor(view).exp()
        with pytest.raises(ValueError, match=READ_ONLY):
            view[0] = 1
        z.backward()
        view[0] = 1


def test_a_tensor_that_is_made_as_a_view_of_a_locked_one_is_released_with_it():
    x = leaf(4)
    with record(check=True):
        z = (x * x).sum()
        y = x.reshape(2, 2)
        with pytest.raises(ValueError, match=READ_ONLY):
            y.data[0, 0] = 1
        z.backward()
        y.data[0, 0] = 1


def test_a_parameter_may_not_be_updated_between_forward_and_backward():
    net = models.create("plain8", widths=(2, 3, 4))
    images, labels = Tensor(np.random.default_rng(1).standard_normal((2, 3, 4, 4)).astype(np.float32)), np.array([1, 2])
    optimizer = optim.SGD(net.parameters(), lr=0.1)
    with record(check=True):
        functional.cross_entropy(net(images), labels).backward()
        optimizer.step()  # between the steps: nobody needs the old weights
        loss = functional.cross_entropy(net(images), labels)
        with pytest.raises(ValueError, match=READ_ONLY):
            optimizer.step()
        loss.backward()


def test_when_the_block_ends_everything_is_writable_although_backward_never_ran():
    x = leaf(4)
    with record(check=True):
        y = x.exp()
        z = y.reshape(2, 2)
        assert not y.data.flags.writeable
        assert not z.data.flags.writeable
    for tensor in (x, y, z):
        tensor.data += 1


def test_when_the_block_ends_with_an_exception_everything_is_writable():
    x = leaf(4)
    y = x.exp()

    def fail_while_recording():
        with record(check=True):
            (x * y).sum()
            raise ArithmeticError

    with pytest.raises(ArithmeticError):
        fail_while_recording()
    x.data += 1
    y.data += 1


def test_what_was_read_only_before_stays_so():
    frozen, fresh = np.arange(3.0), np.arange(3.0)
    frozen.flags.writeable = False
    guarded = fresh.view()
    guarded.flags.writeable = False
    x, y = Tensor(frozen, requires_grad=True), Tensor(fresh, requires_grad=True)
    with record(check=True):
        (x * x + y * y + x.reshape(3) * Tensor(guarded)).sum().backward()
    assert not frozen.flags.writeable
    assert not guarded.flags.writeable
    assert fresh.flags.writeable


def test_what_needs_no_gradient_is_not_locked():
    x = leaf(3)
    with record(check=True):
        with no_grad():
            y = x.exp() * x
        Tensor(y.data).exp()
        x.data += 1
        y.data += 1


def test_an_array_that_is_not_saved_is_not_locked():
    x, y = leaf(3), leaf(3, seed=1)
    with record(check=True):
        z = x + y
        x.data += 1
        z.data += 1


def test_a_graph_built_before_the_block_is_locked_from_backward_on():
    x = leaf(3)
    y = x.exp()
    loss = y.sum()
    with record(check=True):
        loss.backward(retain_graph=True)
        with pytest.raises(ValueError, match=READ_ONLY):
            y.data += 1
    y.data += 1
