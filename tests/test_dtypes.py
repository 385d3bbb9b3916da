"""Which numbers come into the engine, and in which type operands meet. PyTorch is the witness of the latter."""

from __future__ import annotations

import itertools
import operator
import re

import numpy as np
import pytest

from minires import Parameter, Tensor, functional, nn
from minires.dtypes import SUPPORTED, admit


def unaligned(array):
    """The same numbers, one byte beside the place where the processor likes them."""
    memory = np.empty(array.nbytes + 1, np.uint8)[1:]
    copy = memory.view(array.dtype).reshape(array.shape)
    copy[...] = array
    assert not copy.flags.aligned
    return copy


NUMBERS = np.random.default_rng(0).standard_normal((3, 4)).astype(np.float32)
CONVERTED = {
    "other byte order": NUMBERS.astype(NUMBERS.dtype.newbyteorder()),
    "float64 of other byte order": NUMBERS.astype(np.float64).astype(np.dtype(np.float64).newbyteorder()),
    "integers of other byte order": np.arange(6).astype(np.dtype(np.int32).newbyteorder()),
    "unaligned": unaligned(NUMBERS),
    "unaligned and of other byte order": unaligned(NUMBERS.astype(NUMBERS.dtype.newbyteorder())),
    "numpy.matrix": NUMBERS.view(np.matrix),
    "a masked array that hides nothing": np.ma.masked_array(NUMBERS),
    "a subclass": NUMBERS.view(type("Images", (np.ndarray,), {})),
    "read-only": np.broadcast_to(NUMBERS, (2, 3, 4)),
}


def assert_usual(array, numbers):
    assert type(array) is np.ndarray
    assert array.dtype.isnative
    assert array.flags.aligned
    assert array.dtype == numbers.dtype.newbyteorder("=")
    np.testing.assert_array_equal(array, np.asarray(numbers))


@pytest.mark.parametrize("name", CONVERTED)
def test_what_can_be_converted_without_loss_is(name):
    assert_usual(Tensor(CONVERTED[name]).data, CONVERTED[name])


@pytest.mark.parametrize("name", CONVERTED)
def test_the_same_door_stands_before_every_other_entrance(name):
    given = CONVERTED[name]
    zeros = np.zeros(given.shape, given.dtype.newbyteorder("="))
    tensor = Tensor(zeros)
    tensor.data = given
    assert_usual(tensor.data, given)
    assert_usual((Tensor(zeros) + given).data, given)
    assert_usual((given + Tensor(zeros)).data, given)
    assert Tensor(zeros).__eq__(given).data.tolist() == (zeros == np.asarray(given)).tolist()
    if zeros.dtype.kind == "f":
        leaf = Tensor(zeros, requires_grad=True)
        leaf.grad = given
        assert_usual(leaf.grad, given)
        (leaf * 1).backward(given)
        assert_usual(leaf.grad, 2 * np.asarray(given))


@pytest.mark.parametrize("order", ["=", "<", ">"])
def test_a_training_step_does_not_depend_on_the_byte_order_of_its_images(order):
    """Big-endian images failed in backward, or gave wrong numbers once a kernel had met an unaligned array."""
    images = np.random.default_rng(1).standard_normal((2, 3, 8, 8)).astype(np.float32)
    gradients = []
    for x in (images, unaligned(images), images.astype(images.dtype.newbyteorder(order))):
        conv = nn.Conv2d(3, 4, 3, rng=np.random.default_rng(2))
        functional.relu(conv(Tensor(x))).sum().backward()
        gradients.append(conv.weight.grad)
    for gradient in gradients[1:]:
        np.testing.assert_array_equal(gradient, gradients[0])


def test_a_matrix_multiplies_as_an_array():
    matrix = np.array([[1.0, 2.0], [3.0, 4.0]]).view(np.matrix)
    assert (Tensor(matrix) * Tensor(matrix)).data.tolist() == [[1.0, 4.0], [9.0, 16.0]]
    assert (Tensor(np.asarray(matrix)) * matrix).data.tolist() == [[1.0, 4.0], [9.0, 16.0]]


REFUSED = {
    "float16": (np.ones(2, np.float16), r"float16 isn't supported.*\.astype\(numpy\.float32\)"),
    "long double": (np.ones(2, np.longdouble), r"isn't supported.*\.astype\(numpy\.float64\)"),
    "complex": (np.ones(2, complex), "expected numbers .*, got complex128"),
    "objects": (np.array([1, None]), "expected numbers .*, got object"),
    "strings": (np.array(["a"]), "expected numbers .*, got <U1"),
    "times": (np.zeros(2, "M8[s]"), r"expected numbers .*, got datetime64\[s\]"),
    "records": (np.zeros(2, "f4,i4"), "expected numbers"),
    "a mask": (np.ma.masked_array([1.0, 2.0, 3.0], [0, 1, 1]), r"hides 2 of its 3 elements.*filled\(0\)"),
}
if np.dtype(np.longdouble) in SUPPORTED:  # it is float64 on some machines
    del REFUSED["long double"]


@pytest.mark.parametrize("name", REFUSED)
def test_what_has_no_place_in_a_tensor_is_refused_at_every_entrance(name):
    array, message = REFUSED[name]
    tensor = Tensor(np.zeros(array.shape, np.float32), requires_grad=True)
    for attempt in (
        lambda: Tensor(array),
        lambda: setattr(tensor, "data", array),
        lambda: setattr(tensor, "grad", array),
        lambda: (tensor * 1).backward(array),
        lambda: tensor + array,
        lambda: array + tensor,
        lambda: tensor == array,
        lambda: admit(array, "here"),
    ):
        with pytest.raises(TypeError, match=message):
            attempt()
    assert tensor.data.tolist() == [0.0] * tensor.size
    assert tensor.grad is None


def test_data_that_is_assigned_is_checked_before_it_is_taken():
    tensor = Parameter([1.0, 2.0])
    for data, error, message in (
        (Tensor([1.0]), TypeError, r"a Tensor already.*its \.data"),
        ([1, 2], TypeError, "Tensor.data: a tensor that requires a gradient holds float32 or float64, not int64"),
        ([[1.0], [1.0, 2.0]], ValueError, "the list doesn't make one array"),
        ("text", TypeError, "Tensor.data: expected numbers"),
    ):
        with pytest.raises(error, match=message):
            tensor.data = data
    assert tensor.data.tolist() == [1.0, 2.0]
    tensor.data = [3.0, 4.0]
    assert tensor.data.dtype == np.float32


def test_a_gradient_that_is_assigned_must_be_like_the_data():
    tensor = Parameter([1.0, 2.0])
    for grad, error, message in (
        (np.ones(3, np.float32), ValueError, r"Tensor.grad: the gradient has shape \(3,\), but the tensor \(2,\)"),
        (np.ones(2), TypeError, "Tensor.grad: the gradient must be an array of float32, got float64"),
        ([1.0, 1.0], TypeError, "must be an array of float32, got list"),
    ):
        with pytest.raises(error, match=message):
            tensor.grad = grad
    assert tensor.grad is None
    tensor.grad = Tensor([5.0, 6.0])
    assert tensor.grad.tolist() == [5.0, 6.0]
    tensor.grad = None
    assert tensor.grad is None


def test_other_libraries_numbers_keep_their_width():
    class Foreign:
        dtype = "their own"

        def __array__(self, dtype=None, copy=None):
            return np.array([1.0, 2.0], np.float64)

    assert Tensor(Foreign()).dtype == np.float64
    assert Tensor([1.0, 2.0]).dtype == np.float32


@pytest.mark.parametrize("dtype", [np.float16, complex, "U3", object])
def test_a_conversion_to_what_a_tensor_cannot_hold_is_refused(dtype):
    tensor = Tensor([1.0, 2.0])
    with pytest.raises(TypeError, match=r"astype: (float16 isn't supported|expected numbers)"):
        tensor.astype(dtype)
    net = nn.Linear(2, 3, rng=np.random.default_rng(0))
    with pytest.raises(TypeError, match=r"astype: (float16 isn't supported|expected numbers)"):
        net.astype(dtype)
    assert net.weight.dtype == np.float32


@pytest.mark.parametrize("dtype", ["float33", 3.5])
def test_a_conversion_to_no_type_at_all_is_refused(dtype):
    with pytest.raises(TypeError, match=rf"astype: expected a NumPy dtype such as numpy.float32, got {dtype!r}"):
        Tensor([1.0]).astype(dtype)


def test_a_conversion_to_another_byte_order_changes_nothing():
    tensor = Tensor([1.0])
    assert tensor.astype(np.dtype(np.float32).newbyteorder()) is tensor


def test_integers_cannot_be_made_to_require_a_gradient_later():
    """The gradient would have been cut to integers."""
    tensor = Tensor([1, 2])
    with pytest.raises(TypeError, match="only floating-point tensors can require a gradient, got int64"):
        tensor.requires_grad = True
    assert not tensor.requires_grad
    leaf = Tensor([1.0, 2.0])
    leaf.requires_grad = True
    made = leaf * 2
    with pytest.raises(RuntimeError, match=r"what Mul\(\) made requires a gradient.*tensor\.detach\(\)"):
        made.requires_grad = False
    made.sum().backward()
    leaf.requires_grad = False
    assert leaf.grad.tolist() == [2.0, 2.0]
    assert not (leaf * 2).requires_grad


# ---- in which type operands meet -----------------------------------------------------------------

TYPES = ("float32", "float64", "int64", "int32", "int8", "uint8", "bool")
OPERATORS = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "/": operator.truediv,
    "**": operator.pow,
    "@": operator.matmul,
    "==": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
SCALARS = (2, True, 2.5, -1, np.float64(2.5), np.float32(2.5), np.int64(2), np.bool_(True))
X, Y = np.array([[3, 1], [2, 5]]), np.array([[2, 1], [1, 3]])


def attempt(function, *values):
    """What it returns, or the error that it raises."""
    try:
        return function(*values)
    except (TypeError, ValueError, RuntimeError, NotImplementedError) as error:
        return error


def assert_as_torch(ours, theirs, what, superset=()):
    """Equal value and type; or both refuse; or we do, with a sentence; or torch does where ``superset`` says so."""
    if isinstance(ours, Exception):
        documented = "different floating-point types|outside of the range|not defined for booleans"
        assert isinstance(theirs, Exception) or re.search(documented, str(ours)), f"{what}: {ours!r}"
        return
    if isinstance(theirs, Exception):
        assert str(ours.dtype) in superset, f"{what}: torch refuses, ours is {ours.dtype}"
        return
    assert str(theirs.dtype) == f"torch.{ours.dtype}", what
    np.testing.assert_allclose(ours.data, theirs.numpy(), rtol=1e-6, err_msg=what)


@pytest.mark.witness
@pytest.mark.parametrize("op", OPERATORS)
def test_tensors_of_two_types_meet_as_in_torch(op):
    """Beyond torch: booleans are subtracted from numbers as 0 and 1, matrices of integers meet as elements do."""
    import torch

    for x, y in itertools.product(TYPES, TYPES):
        common = str(np.promote_types(x, y)) if "float" not in x + y else x if "float" in x else y
        beyond = {"-": (common,) if "bool" in (x, y) and x != y else (), "@": (common,) if x != y else ()}.get(op, ())
        arrays = X.astype(x), Y.astype(y)
        ours, theirs = (attempt(OPERATORS[op], *map(kind, arrays)) for kind in (Tensor, torch.tensor))
        assert_as_torch(ours, theirs, f"{x} {op} {y}", beyond)


@pytest.mark.witness
@pytest.mark.parametrize("op", [name for name in OPERATORS if name != "@"])
def test_a_number_meets_a_tensor_as_in_torch(op):
    """Beyond torch: True is subtracted as 1. And -1 is less than every unsigned number, where torch makes it 255."""
    import torch

    for dtype, number, swapped in itertools.product(TYPES, SCALARS, (False, True)):
        if op not in ("+", "-", "*", "/", "**") and (dtype, number) == ("uint8", -1):
            continue
        array, plain = X.astype(dtype), number.item() if isinstance(number, np.generic) else number
        both = ((array, number), (array, plain))
        (ours, mine), (theirs, its) = ((kind(x), y) for kind, (x, y) in zip((Tensor, torch.tensor), both, strict=True))
        results = [
            attempt(OPERATORS[op], y, x) if swapped else attempt(OPERATORS[op], x, y)
            for x, y in ((ours, mine), (theirs, its))
        ]
        whole = "int64" if isinstance(plain, int) else "float32"
        beyond = (dtype if dtype != "bool" else whole,) if op == "-" else ()
        assert_as_torch(*results, f"{dtype} {op} {number!r}, swapped {swapped}", beyond)


METHODS = {
    "neg": operator.neg,
    "abs": abs,
    "exp": lambda t: t.exp(),
    "log": lambda t: t.log(),
    "sqrt": lambda t: t.sqrt(),
    "sum": lambda t: t.sum(),
    "sum(0)": lambda t: t.sum(0),
    "mean": lambda t: t.mean(),
    "max": lambda t: t.max(),
    "clip by integers": lambda t: t.clip(1, 2),
    "clip by numbers": lambda t: t.clip(0.5, 1.0),
    "clip by both": lambda t: t.clip(1, 2.5),
    "clip below": lambda t: t.clip(2),
    "clip far away": lambda t: t.clip(-1000, 1000),
    "index": lambda t: t[[0, 1], [1, 0]],
}


@pytest.mark.witness
@pytest.mark.parametrize("name", METHODS)
def test_a_method_keeps_its_type_as_in_torch(name):
    """Beyond torch: the mean of integers is float32."""
    import torch

    for dtype in TYPES:
        ours, theirs = (attempt(METHODS[name], kind(X.astype(dtype))) for kind in (Tensor, torch.tensor))
        assert_as_torch(ours, theirs, f"{name} of {dtype}", ("float32",) if name == "mean" else ())


def test_clipping_does_not_widen():
    x = Tensor(np.array([0.25, 0.75, 2.0], np.float32), requires_grad=True)
    y = x.clip(np.float64(0.5), 1.0)
    assert y.dtype == np.float32
    y.backward(np.array([1, 2, 3], np.float32))
    assert x.grad.tolist() == [0.0, 2.0, 0.0]
    with pytest.raises(TypeError, match="clip: lower must be a number or None, got a Tensor"):
        x.clip(Tensor(0.5))


def test_booleans_count():
    flags = Tensor([True, False, True])
    assert (flags * 5).data.tolist() == [5, 0, 5]
    assert (flags * 5).dtype == np.int64
    assert flags.sum().item() == 2
    assert (flags + flags).data.tolist() == [True, False, True]
    for refused in (lambda: flags - flags, lambda: -flags, lambda: abs(flags), lambda: flags**flags):
        with pytest.raises(TypeError, match="not defined for booleans; convert them first"):
            refused()
    with pytest.raises(TypeError, match="@: not defined for booleans"):
        flags @ flags


def test_integers_have_no_negative_powers():
    for refused in (lambda: Tensor([2, 3]) ** -1, lambda: 2 ** Tensor([1, -1]), lambda: Tensor([2]) ** Tensor([-2])):
        with pytest.raises(ValueError, match=r"\*\*: integers have no negative powers.*astype\(numpy.float32\)"):
            refused()
    assert (Tensor([2.0]) ** -1).data.tolist() == [0.5]


@pytest.mark.parametrize("number", [300, -1, 2**70, np.int64(256)])
def test_an_integer_that_the_type_has_no_room_for_is_refused(number):
    for refused in (lambda: Tensor(np.ones(2, np.uint8)) + number, lambda: number * Tensor(np.ones(2, np.uint8))):
        with pytest.raises(ValueError, match=rf"{number} is outside of the range of uint8; convert the tensor first"):
            refused()


@pytest.mark.parametrize("dtype", [np.float32, np.int64, bool])
@pytest.mark.parametrize("number", [1j, np.complex64(1), np.str_("a"), np.datetime64("2020")])
def test_a_scalar_that_is_no_real_number_is_refused(number, dtype):
    """numpy.complex64 lost its imaginary part."""
    with pytest.raises(TypeError, match=r"\*: expected a (real number|Tensor, an array or a number), got"):
        Tensor(np.ones(2, dtype)) * number


def test_an_integer_that_no_float_reaches_is_refused():
    for refused in (lambda: Tensor([1.0]) * 10**400, lambda: Tensor([1]) / 10**400):
        with pytest.raises(ValueError, match="is outside of the range of float32"):
            refused()


@pytest.mark.parametrize("op", ["+", "-", "*", "**", "@"])
def test_no_type_of_integers_holds_uint64_and_int64(op):
    """NumPy makes float64 of them."""
    x, y = Tensor(np.ones((2, 2), np.uint64)), Tensor(np.ones((2, 2), np.int64))
    with pytest.raises(TypeError, match="no type of integers holds both uint64 and int64; convert one first"):
        OPERATORS[op](x, y)
    assert OPERATORS[op](x, x).dtype == np.uint64


@pytest.mark.parametrize("dtype", [None, np.float64(0.5), np.zeros(2)], ids=str)
def test_what_numpy_would_read_a_type_from_is_no_type(dtype):
    with pytest.raises(TypeError, match=r"astype: expected a NumPy dtype such as numpy\.float32, got"):
        Tensor([1.0]).astype(dtype)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_converted_numbers_have_numpys_own_dtype(dtype):
    """Another object that is equal to it would take the slow way through every check of arrays."""
    for tensor in (Tensor(np.ones(3)).astype(dtype), Tensor(np.ones(3, np.dtype(dtype).newbyteorder()))):
        assert tensor.dtype is np.dtype(dtype)
