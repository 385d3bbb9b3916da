"""Arrays that don't fit each other never reach a kernel: each contract refuses them, and nothing has been written."""

import importlib
import re

import numpy as np
import pytest

from minires_kernels import Window, convolution, cross_entropy, fit, pooling, shortcut, update
from tests.kernels.cases import CASES

# ---- each array of each kernel, made unfit in every way

UNCHECKED = {  # (argument, axis): a number more or less there is another right call
    ("activation", "relu"): {(0, axis) for axis in range(4)},
    ("convolution", "forward"): {(0, 0), (0, 2), (0, 3), (1, 0)},
    ("convolution", "grad_weight"): {(0, 1), (1, 1)},
    ("cross_entropy", "cross_entropy"): {(0, 1)},
    ("cross_entropy", "cross_entropy_backward"): {(0, 1)},
    ("normalization", "batch_statistics"): {(0, axis) for axis in range(4)},
    ("patches", "im2col"): {(0, axis) for axis in range(4)},
    ("pooling", "max_pool"): {(0, axis) for axis in range(4)},
    ("pooling", "avg_pool"): {(0, axis) for axis in range(4)},
    ("shortcut", "subsample_and_pad"): {(0, axis) for axis in range(4)},
    ("shortcut", "subsample_and_pad_backward"): {(0, 1)},
}
TYPICAL = {
    "activation": "(2, 3, 4, 5)",
    "convolution": "3x3",
    "cross_entropy": "(5, 10), smoothing 0.1",
    "normalization": "(2, 3, 4, 5) + addend + relu",
    "patches": "3x3",
    "pooling": "3x3 overlapping",
    "shortcut": "(1, 3, 7, 5) to 3 channels, stride 2",
    "update": "(3, 4, 2, 2) lr, momentum, decay, nesterov, caffe = (0.1, 0.9, 0.01, True, False)",
}


def typical(family, kernel):
    """One case of the kernel, with as many arrays as it takes."""
    cases = CASES[family, kernel]
    return next((case for case in cases if str(case).startswith(TYPICAL[family])), cases[0])


ARRAYS = [
    (family, kernel, k)
    for family, kernel in CASES
    for k, argument in enumerate(typical(family, kernel).arguments("float32"))
    if isinstance(argument, np.ndarray)
]
every_array = pytest.mark.parametrize(("family", "kernel", "k"), ARRAYS)


def refused(family, kernel, k, unfit, error):
    """Call the kernel with ``unfit(array)`` for its k-th argument: it raises, and writes nothing."""
    arguments = list(typical(family, kernel).arguments("float32"))
    arguments[k] = unfit(arguments[k])
    before = [argument.copy() if isinstance(argument, np.ndarray) else argument for argument in arguments]
    with pytest.raises(error) as caught:
        getattr(importlib.import_module(f"minires_kernels.{family}"), kernel)(*arguments)
    for argument, copy in zip(arguments, before, strict=True):
        if isinstance(argument, np.ndarray):
            np.testing.assert_array_equal(argument, copy)
    return str(caught.value)


@pytest.mark.parametrize("change", [-1, 1])
@every_array
def test_a_number_less_or_more_on_any_axis(family, kernel, k, change):
    array = typical(family, kernel).arguments("float32")[k]
    for axis in range(array.ndim):
        if (k, axis) in UNCHECKED.get((family, kernel), ()):
            continue
        shape = tuple(length + change * (a == axis) for a, length in enumerate(array.shape))
        message = refused(family, kernel, k, lambda x, shape=shape: np.resize(x, shape), ValueError)
        assert kernel in message


@every_array
def test_an_axis_more_or_less(family, kernel, k):
    if (family, kernel) != ("activation", "relu"):
        assert kernel in refused(family, kernel, k, lambda x: x[None], ValueError)
        assert kernel in refused(family, kernel, k, lambda x: x[0], ValueError)


def is_float(argument):
    return isinstance(argument, np.ndarray) and argument.dtype.kind == "f"


@pytest.mark.parametrize("dtype", ["float64", "float16", "longdouble", "complex64", "bool", ">f4", ">i4", "object"])
@every_array
def test_another_dtype(family, kernel, k, dtype):
    array = typical(family, kernel).arguments("float32")[k]
    floats = [argument for argument in typical(family, kernel).arguments("float32") if is_float(argument)]
    if (len(floats) == 1 and dtype == "float64") or (family == "cross_entropy" and dtype == ">i4"):
        return  # right in itself
    if array.dtype.kind == "i":
        refused(family, kernel, k, lambda x: x.astype(dtype), (TypeError, ValueError))
    else:
        message = refused(family, kernel, k, lambda x: x.astype(dtype), TypeError)
        assert re.search(rf"{kernel}.*float32.*astype", message)


NOT_PLAIN = {
    "list": np.ndarray.tolist,
    "masked": np.ma.array,
    "matrix": lambda x: np.ones((1, 1), np.float32).view(np.matrix),
}


@pytest.mark.parametrize("kind", NOT_PLAIN)
@every_array
def test_what_is_no_plain_array(family, kernel, k, kind):
    assert "numpy.asarray" in refused(family, kernel, k, NOT_PLAIN[kind], TypeError)


# ---- what numbers may be


@pytest.mark.parametrize("place", [20, -2, 1 << 30, -(1 << 31)])
@pytest.mark.parametrize("implementation", ["reference", "numba_cpu"])
def test_a_maximum_outside_its_image(implementation, place, rng):
    _, argmax = pooling.max_pool(rng.normal(size=(2, 3, 4, 5)), Window.of(2))
    argmax[1, 2, 0, 1] = place
    module = importlib.import_module(f"minires_kernels.pooling.{implementation}")
    message = rf"max_pool_backward: argmax must hold integers from -1 to 19, got {place}"
    with pytest.raises(ValueError, match=message):
        module.max_pool_backward(rng.normal(size=argmax.shape), argmax, (2, 3, 4, 5))


@pytest.mark.parametrize("wrong", [4, -1, 1 << 40, np.iinfo(np.int64).min, np.uint64(1 << 63)])
def test_a_class_that_is_not_there(wrong, rng):
    target = np.array([0, wrong], np.asarray(wrong).dtype)
    for kernel, *arguments in (
        (cross_entropy.cross_entropy, rng.normal(size=(2, 4)), target),
        (cross_entropy.cross_entropy_backward, rng.random((2, 4)), target, 0.0, np.ones(2)),
    ):
        with pytest.raises(ValueError, match=f"target must hold integers from 0 to 3, got {wrong}"):
            kernel(*arguments)
    for rows in (0, 2):
        with pytest.raises(ValueError, match=r"cross_entropy: there is no class.*K > 0, got"):
            cross_entropy.cross_entropy(np.ones((rows, 0)), np.zeros(rows, np.int64))


def test_geometry_that_does_not_fit(rng):
    x, weight, window = rng.normal(size=(2, 4, 5, 6)), rng.normal(size=(6, 2, 3, 3)), Window.of(3)
    with pytest.raises(ValueError, match="groups must be at least 1"):
        convolution.forward(x, weight, window, 0)
    for groups in (3, 4):
        with pytest.raises(ValueError, match=rf"groups must be a positive divisor.*got groups = {groups}"):
            convolution.forward(x, weight, window, groups)
    with pytest.raises(ValueError, match=r"weight must have shape \(6, 2, 2, 2\), got \(6, 2, 3, 3\)"):
        convolution.forward(x, weight, Window.of(2), 2)
    with pytest.raises(ValueError, match=r"x_shape must be \(N, C, H, W\), four integers from 0 on, got"):
        convolution.grad_input(rng.normal(size=(2, 6, 3, 4)), weight, (2, 4, 5), window, 2)
    for channels, stride, message in ((3, 1, "channels must be at least 4"), (4, 0, "stride .* least 1.* got 0")):
        with pytest.raises(ValueError, match=message):
            shortcut.subsample_and_pad(x, channels, stride)
    with pytest.raises(ValueError, match=r"avg_pool: the window's dilation must be 1, got \(2, 2\)"):
        pooling.avg_pool(x, Window.of(2, dilation=2))


OPTIONS = [
    (family, kernel, k)
    for family, kernel in CASES
    for k, argument in enumerate(typical(family, kernel).arguments("float32"))
    if not isinstance(argument, (np.ndarray, tuple)) and argument is not None
]


@pytest.mark.parametrize("value", ["same", None, (1, 2), [1], 1j, {}, np.ones(2), ..., object()], ids=type)
@pytest.mark.parametrize(("family", "kernel", "k"), OPTIONS)
def test_an_option_of_another_type(family, kernel, k, value):
    assert kernel in refused(family, kernel, k, lambda _: value, TypeError)


def test_options_may_be_numpys(rng):
    x, weight = rng.normal(size=(1, 4, 3, 3)), rng.normal(size=(2, 2, 3, 3))
    y = convolution.forward(x, weight, Window.of(3), np.int64(2))
    np.testing.assert_array_equal(y, convolution.forward(x, weight, Window.of(3), 2))
    y = pooling.avg_pool(x, Window.of(2, padding=1), np.False_, np.bool_(0))
    np.testing.assert_array_equal(y, pooling.avg_pool(x, Window.of(2, padding=1), False, False))
    update.sgd(x, x.copy(), None, np.float32(0.5))


@pytest.mark.parametrize(
    "numbers",
    [
        ((0, 1), (1, 1), (0, 0), (1, 1)),
        ((1, 1), (1, 0), (0, 0), (1, 1)),
        ((1, 1), (1, 1), (0, -1), (1, 1)),
        ((1, 1), (1, 1), (0, 0), (-1, 1)),
        ((1, 1), (1 << 31, 1), (0, 0), (1, 1)),
        ((1, 1), (1, 1), (1 << 70, 0), (1, 1)),
        ((1.0, 1), (1, 1), (0, 0), (1, 1)),
        ((1, 1, 1), (1, 1), (0, 0), (1, 1)),
    ],
)
def test_a_window_that_no_loop_could_walk(numbers):
    with pytest.raises(ValueError, match="Window: sizes, strides and dilations are pairs of integers from 1 to"):
        Window(*numbers)


# ---- what is written


def test_sgd_writes_only_what_it_may(rng):
    grad = rng.normal(size=(3, 4))
    shared = rng.normal(size=(4, 4))
    frozen = rng.normal(size=(3, 4))
    frozen.flags.writeable = False
    repeated = np.lib.stride_tricks.as_strided(np.zeros(4), (3, 4), (0, 8))
    windows = np.lib.stride_tricks.as_strided(np.zeros(6), (3, 4), (8, 8))
    fresh = np.zeros((3, 4))
    for parameter, gradient, velocity, message in (
        (frozen, grad, fresh, r"update.sgd: parameter \(3, 4\) can't be written, it is read-only.*parameter.copy\(\)"),
        (fresh, grad, frozen, "velocity .* is read-only"),
        (repeated, grad, fresh, "parameter .*share their places"),
        (fresh, grad, windows, "velocity .*share their places"),
        (shared[1:], grad, shared[:-1], "parameter .* and velocity .* share memory"),
        (shared[1:], shared[:-1], fresh, "parameter .* and grad .* share memory"),
        (fresh, shared[1:], shared[1:], "grad .* and velocity .* share memory"),
    ):
        before = [x.copy() for x in (parameter, gradient, velocity)]
        with pytest.raises(ValueError, match=message):
            update.sgd(parameter, gradient, velocity, 0.1, 0.9)
        for x, copy in zip((parameter, gradient, velocity), before, strict=True):
            np.testing.assert_array_equal(x, copy)


def test_sgd_takes_views_of_one_buffer_that_lie_between_each_other(rng):
    buffer, grad = np.zeros((3, 8)), rng.normal(size=(3, 4))
    update.sgd(buffer[:, ::2], grad, buffer[:, 1::2], 0.5, 0.9)
    np.testing.assert_array_equal(buffer[:, ::2], -0.5 * grad)
    np.testing.assert_array_equal(buffer[:, 1::2], grad)


@pytest.mark.parametrize(("momentum", "velocity"), [(0.9, None), (0.0, np.zeros(3))])
def test_sgd_has_a_velocity_exactly_with_momentum(momentum, velocity):
    with pytest.raises(ValueError, match=f"velocity exactly when momentum isn't 0; got momentum = {momentum}"):
        update.sgd(np.ones(3), np.ones(3), velocity, 0.1, momentum)


# ---- what is right, though it isn't the usual


def test_numpys_files_in_memory_and_scalars_are_arrays(tmp_path, rng):
    x = rng.normal(size=(2, 3)).astype(np.float32)
    x.tofile(tmp_path / "x")
    mapped = np.memmap(tmp_path / "x", np.float32, "r", shape=(2, 3))
    fit.require("op", x=(mapped, (2, 3)), y=(x, (2, 3)))
    fit.require_alike("op", x=x, y=mapped)
    fit.require_alike("op", x=np.float32(1), y=np.float32(2))
    assert fit.unwritable(mapped) == "is read-only"
    assert fit.unwritable(x[:, ::2].T) is None


def test_a_message_lists_every_array():
    message = r"op: weight must have shape \(3,\), got \(2,\); x \(2, 3\) float32, weight \(2,\) float32"
    with pytest.raises(ValueError, match=message):
        fit.require("op", x=(np.ones((2, 3), "f4"), (2, 3)), weight=(np.ones(2, "f4"), (3,)))
    with pytest.raises(TypeError, match=r"op: x must be a NumPy or CuPy array, got list; wrap it in numpy\.asarray"):
        fit.axes("op", "x", [1.0], "N, C, H, W")
    with pytest.raises(ValueError, match=r"op: x must be \(N, C, H, W\), got shape \(2,\)"):
        fit.axes("op", "x", np.ones(2), "N, C, H, W")
