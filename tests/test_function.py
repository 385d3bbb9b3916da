"""Function: what somebody who writes an operation can rely on, and what is said when the operation is wrong."""

from __future__ import annotations

import inspect

import numpy as np
import pytest

from minires import Function, Tensor, functional, no_grad, using
from minires.tensor import apply
from tests.questions import check_gradients, check_politeness


class Square(Function):
    """x squared: the example of the documentation."""

    def forward(self, x):
        self.save_for_backward(x=x)
        return x * x

    def backward(self, grad_output):
        return (2 * self.saved.x * grad_output,)


class Blend(Function):
    """share * x + (1 - share) * y, or share * x without a y."""

    def __init__(self, share):
        self.share = share

    def forward(self, x, y):
        self.seen_needs = self.needs_input_grad
        return self.share * x if y is None else self.share * x + (1 - self.share) * y

    def backward(self, grad_output):
        return self.share * grad_output, (1 - self.share) * grad_output


class Returns(Function):
    """The identity of two arguments' sum, whose backward returns whatever it was told to."""

    def __init__(self, gradients):
        self._gradients = gradients

    def forward(self, x, y):
        return x + y

    def backward(self, grad_output):
        return self._gradients


def leaf(*shape, dtype=np.float32):
    return Tensor(np.ones(shape, dtype), requires_grad=True)


def test_an_operation_written_as_documented_is_right_and_polite():
    x = np.random.default_rng(0).standard_normal((2, 3))
    np.testing.assert_array_equal(apply(Square(), Tensor(x)).data, x * x)
    check_gradients(lambda t: apply(Square(), t), x)
    check_politeness(lambda t: apply(Square(), t), x)


def test_the_function_is_the_node_of_the_graph():
    x, function = leaf(2), Square()
    y = apply(function, x)
    assert y.creator is function
    assert function.inputs == (x,)
    assert x.creator is None
    assert x.is_leaf
    assert not y.is_leaf


def test_creation_numbers_grow_along_the_graph():
    x = leaf(2)
    y = apply(Square(), x)
    z = apply(Square(), y)
    assert z.creator.number > y.creator.number >= 0


def test_an_absent_input_arrives_as_none_and_receives_no_gradient():
    x = leaf(2)
    apply(Blend(0.25), x, None).backward(np.ones(2, np.float32))
    assert x.grad.tolist() == [0.25, 0.25]


def test_needs_input_grad_says_which_gradients_are_wanted():
    x, constant = leaf(2), Tensor(np.ones(2, np.float32))
    assert apply(Blend(0.5), x, constant).creator.seen_needs == (True, False)
    assert apply(Blend(0.5), x, None).creator.seen_needs == (True, False)
    assert apply(Blend(0.5), constant, x).creator.seen_needs == (False, True)
    with no_grad():
        function = Blend(0.5)
        apply(function, x, x)
    assert function.seen_needs == (False, False)


def test_an_unwanted_gradient_may_be_returned_and_is_dropped():
    x, constant = leaf(2), Tensor(np.ones(2, np.float32))
    apply(Blend(0.5), x, constant).backward(np.ones(2, np.float32))
    assert constant.grad is None


def test_a_gradient_of_none_means_that_nothing_flows():
    x, y = leaf(2), leaf(2)
    apply(Returns((np.full(2, 3, np.float32), None)), x, y).backward(np.ones(2, np.float32))
    assert x.grad.tolist() == [3, 3]
    assert y.grad is None


def test_saved_arrays_live_until_backward():
    function = Square()
    y = apply(function, leaf(2))
    assert function.saved_arrays()["x"].tolist() == [1, 1]
    y.backward(np.ones(2, np.float32))
    assert function.saved_arrays() == {}
    assert function.inputs == ()
    assert function.released


def test_saved_arrays_survive_with_retain_graph():
    function = Square()
    y = apply(function, leaf(2))
    y.backward(np.ones(2, np.float32), retain_graph=True)
    assert function.saved_arrays().keys() == {"x"}
    assert not function.released


@pytest.mark.parametrize("tracked", [False, True])
def test_nothing_is_saved_where_no_gradient_is_wanted(tracked):
    function = Square()
    if tracked:
        with no_grad():
            y = apply(function, leaf(2))
    else:
        y = apply(function, Tensor(np.ones(2, np.float32)))
    assert function.saved_arrays() == {}
    assert y.creator is None
    assert not y.requires_grad


def test_repr_shows_the_hyper_parameters_and_nothing_that_the_engine_added():
    function = Blend(0.25)
    assert repr(function) == "Blend(share=0.25)"
    class_attributes = Square()
    y = apply(class_attributes, leaf(2))
    assert repr(class_attributes) == "Square()"
    y.backward(np.ones(2, np.float32))
    assert repr(class_attributes) == "Square()"


@pytest.mark.parametrize(
    ("operation", "expected"),
    [
        (lambda x: x.sum((0, 1)), "Sum(axis=(0, 1), keepdims=False)"),
        (lambda x: functional.relu(x), "ReLU()"),
        (lambda x: functional.conv2d(x, leaf(1, 2, 3, 3), padding=1), "Conv2d(window=3x3, padding 1, groups=1)"),
        (lambda x: functional.batch_norm(x, None, None, training=True, eps=0.5), "BatchNorm(eps=0.5)"),
        (lambda x: functional.batch_norm(x, np.zeros(2, "f"), np.ones(2, "f"), eps=0.5), "Normalize(eps=0.5)"),
        (lambda x: functional.max_pool2d(x, 2), "MaxPool2d(window=2x2, stride 2, ceil_mode=False)"),
        (lambda x: functional.cross_entropy(x[:, :, 0, 0], [0]), "CrossEntropy(label_smoothing=0.0, reduction=mean)"),
    ],
)
def test_repr_of_the_library_s_own_operations_fits_on_a_line(operation, expected):
    with using("reference"):
        y = operation(leaf(1, 2, 4, 4))
    assert repr(y.creator) == expected


def test_the_origin_is_the_line_that_applied_it():
    here = inspect.currentframe().f_lineno
    y = apply(Square(), leaf(2))
    assert y.creator.origin == (__file__, here + 1)
    assert y.creator.where() == f" ({__file__}:{here + 1})"


def test_the_origin_of_a_library_operation_is_the_line_outside_the_library():
    here = inspect.currentframe().f_lineno
    y = functional.relu(leaf(2) * 2)
    assert y.creator.origin == (__file__, here + 1)
    assert y.creator.inputs[0].creator.origin == (__file__, here + 1)


def test_an_instance_is_one_application():
    function = Square()
    apply(function, leaf(2))
    here = inspect.currentframe().f_lineno - 1
    with pytest.raises(RuntimeError, match=rf"Square\(\) was applied already.*test_function.py:{here}.*make a new one"):
        apply(function, leaf(2))


def test_an_instance_is_one_application_without_gradients_too():
    function = Square()
    with no_grad():
        apply(function, leaf(2))
        with pytest.raises(RuntimeError, match="was applied already"):
            apply(function, leaf(2))


def test_inputs_must_be_tensors():
    with pytest.raises(TypeError, match=r"Blend: input 1 must be a Tensor, got ndarray; wrap it: minires.Tensor"):
        apply(Blend(0.5), leaf(2), np.ones(2))


def test_inputs_must_agree_in_their_floating_point_type():
    with pytest.raises(TypeError, match=r"Blend: .*\(2,\) float32, \(3,\) float64; nothing widens silently.*astype"):
        apply(Blend(0.5), leaf(2), leaf(3, dtype=np.float64))


ones = np.ones(2, np.float32)
WRONG = {
    "one gradient of two": ((ones,), r"must return a tuple of 2 gradients, .* but returned 1 gradients"),
    "three gradients of two": ((ones, ones, ones), r"must return a tuple of 2 gradients, .* but returned 3 gradients"),
    "an array": (ones, r"must return a tuple of 2 gradients, .* but returned ndarray"),
    "a list": ([ones, ones], r"must return a tuple of 2 gradients, .* but returned list"),
    "nothing": (None, r"must return a tuple of 2 gradients, .* but returned NoneType"),
    "another shape": (
        (ones, np.ones(3, np.float32)),
        r"returned ndarray \(3,\) float32 for input 1, which is \(2,\) float32",
    ),
    "a wider type": ((np.ones(2), ones), r"returned ndarray \(2,\) float64 for input 0, which is \(2,\) float32"),
    "no array": ((1.0, ones), r"returned float None None for input 0, which is \(2,\) float32"),
    "a tensor": ((Tensor(ones), ones), r"returned Tensor .* for input 0, which is \(2,\) float32"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_backward_that_returns_something_else_is_named_with_its_line(name):
    returned, message = WRONG[name]
    x, y = leaf(2), leaf(2)
    z = apply(Returns(returned), x, y)
    here = inspect.currentframe().f_lineno - 1
    with pytest.raises(RuntimeError, match=rf"Returns.backward .*{message}.*test_function.py:{here}"):
        z.backward(np.ones(2, np.float32))
    assert x.grad is None
    assert y.grad is None


def test_an_output_may_be_a_numpy_scalar():
    class Total(Function):
        def forward(self, x):
            return x.sum()

        def backward(self, grad_output):
            return (np.broadcast_to(grad_output, 3),)

    y = apply(Total(), leaf(3))
    assert isinstance(y.data, np.ndarray)
    assert y.shape == ()
