"""Functions that misbehave in every way: the gradients are right, or the error names them and nothing has changed."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from minires import Function, Tensor, no_grad
from minires.tensor import apply
from tests.test_dtypes import unaligned

SHAPE = (2, 3)


class Odd(Function):
    """The identity, by ways of its own."""

    def __init__(self, forward, backward):
        self._forward, self._backward = forward, backward

    def forward(self, x):
        return self._forward(x)

    def backward(self, grad_output):
        return self._backward(grad_output)


def fails(*_):
    raise ArithmeticError("odd")


def swapped(array):
    return array.astype(array.dtype.newbyteorder())


# The same numbers in another form: these are right, whatever they look like.
FORMS = {
    "a copy": np.copy,
    "itself": lambda array: array,
    "a view": lambda array: array[...],
    "turned twice": lambda array: array.T.copy().T,
    "backwards": lambda array: array[::-1, ::-1].copy()[::-1, ::-1],
    "read-only": lambda array: np.frombuffer(array.tobytes(), array.dtype).reshape(array.shape),
    "without strides": lambda array: np.broadcast_to(array[0, 0], array.shape),
    "other byte order": swapped,
    "unaligned": unaligned,
    "a matrix": lambda array: array.view(np.matrix),
    "a masked array that hides nothing": np.ma.masked_array,
}
# What is no array of the input's type at all.
NEITHER = {
    "a list": lambda array: array.tolist(),
    "None": lambda array: None,
    "a number": lambda array: 1.0,
    "a tensor": Tensor,
    "a wider type": lambda array: array.astype(np.float64),
    "float16": lambda array: array.astype(np.float16),
    "complex": lambda array: array.astype(np.complex64),
    "objects": lambda array: array.astype(object),
    "text": lambda array: array.astype(str),
    "a mask": lambda array: np.ma.masked_array(array, np.eye(*SHAPE)),
}
BAD_BACKWARD = {
    **{name: lambda grad, form=form: (form(grad),) for name, form in NEITHER.items() if name != "None"},
    "no tuple": lambda grad: grad,
    "nothing": lambda grad: None,
    "two": lambda grad: (grad, grad),
    "none": lambda grad: (),
    "another shape": lambda grad: (grad[0],),
    "one axis more": lambda grad: (grad[None],),
    "integers": lambda grad: (grad.astype(int),),
    "an error": fails,
}


def identity(grad):
    return (grad,)


def graph_around(function):
    """Leaves ``a`` (with an old gradient), ``b``; and 3 * sum(function(2 * a) + b), so that all gradients are known."""
    a, b = (Tensor(np.full(SHAPE, 1.5, np.float32), requires_grad=True) for _ in range(2))
    a.grad = np.full(SHAPE, 7, np.float32)
    middle = (a * 2).retain_grad()
    return a, b, middle, lambda: ((apply(function, middle) + b) * 3).sum()


@pytest.mark.parametrize(("forward", "backward"), list(itertools.product(FORMS, FORMS)))
def test_right_numbers_in_an_odd_form_are_right_and_the_gradients_plain(forward, backward):
    kept = []

    def gradient(grad_output):
        kept.append(FORMS[backward](grad_output))
        return (kept[0],)

    a, b, middle, loss = graph_around(Odd(FORMS[forward], gradient))
    loss().backward()
    assert (a.grad == 7 + 6).all()
    assert (b.grad == 3).all()
    assert (middle.grad == 3).all()
    arrays = [a.grad, b.grad, middle.grad]
    for array in arrays:
        assert type(array) is np.ndarray
        assert array.dtype == np.float32
        assert array.flags.behaved
    for one, other in itertools.combinations([*arrays, a.data, b.data, middle.data], 2):
        assert not np.may_share_memory(one, other)
    for array in arrays:
        array *= 2  # each is its owner's alone
    assert (a.data == 1.5).all()


@pytest.mark.parametrize("backward", FORMS)
def test_a_leaf_s_gradient_is_plain_whatever_form_it_came_in(backward):
    x = Tensor(np.ones(SHAPE, np.float32), requires_grad=True)
    (apply(Odd(np.copy, lambda grad: (FORMS[backward](grad),)), x) * 3).sum().backward()
    assert type(x.grad) is np.ndarray
    assert x.grad.flags.behaved
    assert 0 not in x.grad.strides
    x.grad += np.arange(6, dtype=np.float32).reshape(SHAPE)
    assert x.grad.ravel().tolist() == [3, 4, 5, 6, 7, 8]


@pytest.mark.parametrize("name", NEITHER)
def test_a_forward_that_returns_no_array_of_its_inputs_type_is_named(name):
    function = Odd(NEITHER[name], identity)
    a, b, middle, loss = graph_around(function)
    with pytest.raises(TypeError, match=r"Odd: forward (must return one array|made float64 of)"):
        loss()
    assert (a.grad == 7).all()
    assert b.grad is None
    assert function.number == -1
    (middle * 3 + b).sum().backward()  # what was there before is as it was
    assert (a.grad == 13).all()


def test_the_sentences_about_a_forward():
    x = Tensor(np.ones(SHAPE, np.float32), requires_grad=True)
    for name, message in (
        ("a list", r"Odd: forward must return one array of numbers; got list"),
        ("a tensor", r"Odd: forward must return one array of numbers; got Tensor; use its data"),
        ("a wider type", r"Odd: forward made float64 of \(2, 3\) float32; .*: return array.astype\(float32\)"),
        ("float16", r"Odd: forward must return one array of numbers; Tensor: float16 isn't supported"),
        ("a mask", r"Odd: forward must return one array of numbers; Tensor: the masked array hides 2 of its 6"),
    ):
        with pytest.raises(TypeError, match=message):
            apply(Odd(NEITHER[name], identity), x)


def test_a_forward_that_fails_leaves_the_graph_as_it_was():
    a, b, middle, loss = graph_around(Odd(fails, identity))
    with pytest.raises(ArithmeticError, match="odd") as caught:
        loss()
    assert caught.value.__notes__ == ["in the forward pass of Odd(); inputs (2, 3) float32"]
    (middle * 3 + b).sum().backward()
    assert (a.grad == 13).all()
    assert (b.grad == 1).all()


def test_an_error_that_is_raised_again_is_noted_once():
    error = ArithmeticError("odd")

    def raises(*_):
        raise error

    for _ in range(2):
        x = Tensor(np.ones(SHAPE, np.float32), requires_grad=True)
        with pytest.raises(ArithmeticError, match="odd"):
            apply(Odd(raises, identity), x)
        with pytest.raises(ArithmeticError, match="odd"):
            apply(Odd(np.copy, raises), x).sum().backward()
    forward, backward = error.__notes__
    assert forward == "in the forward pass of Odd(); inputs (2, 3) float32"
    assert backward.startswith("in the backward pass of Odd()")


@pytest.mark.parametrize("name", BAD_BACKWARD)
@pytest.mark.parametrize("retain_graph", [False, True])
def test_a_backward_that_returns_no_gradient_is_named_and_no_gradient_changes(name, retain_graph):
    a, b, middle, loss = graph_around(Odd(np.copy, BAD_BACKWARD[name]))
    loss = loss()
    with pytest.raises((RuntimeError, ArithmeticError)) as caught:
        loss.backward(retain_graph=retain_graph)
    sentence = " ".join([str(caught.value), *getattr(caught.value, "__notes__", ())])
    assert "Odd" in sentence
    assert "test_misbehaving_functions.py:" in sentence
    assert (a.grad == 7).all()
    assert b.grad is None
    assert middle.grad is None
    with pytest.raises((RuntimeError, ArithmeticError)):  # again, or because the graph is freed by now
        loss.backward()
    assert (a.grad == 7).all()


def test_integers_and_booleans_have_no_gradient():
    x = Tensor(np.array([1.5, 2.5]), requires_grad=True)
    for dtype in (int, bool):
        y = apply(Odd(lambda array, dtype=dtype: array.astype(dtype), identity), x)
        assert not y.requires_grad
        assert y.is_leaf
        with pytest.raises(RuntimeError, match="backward: this tensor has no graph"):
            y.sum().backward()
    (x * y).sum().backward()
    assert x.grad.tolist() == [1.0, 1.0]


def test_a_scalar_may_come_as_numpy_s_scalar_or_as_an_array():
    for form in (np.float64, np.asarray, lambda number: np.asarray(number)[()]):
        x = Tensor(np.array(2.5), requires_grad=True)
        apply(Odd(lambda _, form=form: form(2.5), lambda grad, form=form: (form(grad),)), x).backward()
        assert type(x.grad) is np.ndarray
        assert x.grad.shape == ()
        assert x.grad == 1.0


def test_backward_may_be_called_where_no_graph_is_built():
    x = Tensor(np.array([1.0, 2.0]), requires_grad=True)
    y = (x * x).sum()
    with no_grad():
        y.backward()
    assert x.grad.tolist() == [2.0, 4.0]


def test_a_gradient_from_before_the_data_was_replaced_is_named():
    x = Tensor(np.array([1.0, 2.0]), requires_grad=True)
    y = Tensor(np.array([1.0, 2.0]), requires_grad=True)
    (x * y).sum().backward()
    x.data = np.ones(2, np.float32)
    with pytest.raises(RuntimeError, match=r"has a gradient \(2,\) float64 from before its data was replaced.*= None"):
        (x.astype(np.float64) * y).sum().backward()
    assert y.grad.tolist() == [1.0, 2.0]
    x.grad = None
    (x.astype(np.float64) * y).sum().backward()
    assert x.grad.dtype == np.float32
