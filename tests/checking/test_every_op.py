"""Every operation of ``minires.functional`` and every operator and method of Tensor, gradient-checked.

Shapes are odd on purpose: H != W, stride > kernel, one image, one channel, padding with a remainder, broadcasting. And
equal where two arrays may be confused without a shape that complains: two operands, a square weight.
"""

import inspect

import numpy as np
import pytest

import minires
from minires import Function, Tensor, algebra, functional
from minires.checking import GradReport


def normal(*shape, seed=0):
    return np.random.default_rng((seed, *shape)).standard_normal(shape)


def positive(*shape):
    return np.abs(normal(*shape)) + 0.5


TARGET = np.array([2, 0, 3])
MEAN, VARIANCE = normal(3), positive(3)
INDEX = Tensor(np.array([0, 2, 2]))

ALGEBRA = {
    "x + y": (lambda x, y: x + y, normal(2, 3), normal(2, 3, seed=1)),
    "x + y, broadcast both ways": (lambda x, y: x + y, normal(2, 1, 3), normal(4, 1)),
    "x - y, broadcast": (lambda x, y: x - y, normal(2, 3), normal(3)),
    "x * y": (lambda x, y: x * y, normal(2, 3), normal(2, 3, seed=1)),
    "x * y, broadcast": (lambda x, y: x * y, normal(2, 3), normal(2, 1)),
    "x * x": (lambda x: x * x, normal(2, 3)),
    "x / y, broadcast": (lambda x, y: x / y, normal(2, 3), positive(3)),
    "2 / x": (lambda x: 2 / x, positive(3)),
    "x ** y": (lambda x, y: x**y, positive(2, 3), normal(3)),
    "x ** 3": (lambda x: x**3, normal(5)),
    "x @ y": (lambda x, y: x @ y, normal(2, 3), normal(3, 4)),
    "x @ y, square": (lambda x, y: x @ y, normal(3, 3), normal(3, 3, seed=1)),
    "x @ y, stacks": (lambda x, y: x @ y, normal(2, 1, 2, 3), normal(4, 3, 2)),
    "x @ y, vectors": (lambda x, y: x @ y, normal(3), normal(3, seed=1)),
    "x @ y, matrix and vector": (lambda x, y: x @ y, normal(2, 3), normal(3)),
    "-x": (lambda x: -x, normal(3)),
    "abs": (lambda x: abs(x), normal(5)),
    "abs at 0": (lambda x: x.abs(), np.array([0.0, 1.0])),
    "exp": (lambda x: x.exp(), normal(5)),
    "log": (lambda x: x.log(), positive(5)),
    "sqrt": (lambda x: x.sqrt(), positive(5)),
    "clip": (lambda x: x.clip(-0.5, 0.5), normal(9)),
    "clip at its bound": (lambda x: x.clip(0.0, None), np.array([0.0, -1.0, 1.0])),
    "sum": (lambda x: x.sum(), normal(2, 3)),
    "sum over axes": (lambda x: x.sum((0, -1)), normal(2, 3, 4)),
    "mean over an axis": (lambda x: x.mean(1, keepdims=True), normal(2, 3)),
    "var": (lambda x: x.var(), normal(2, 3)),
    "var over an axis, unbiased": (lambda x: x.var(0, correction=1), normal(4, 3)),
    "max": (lambda x: x.max(), normal(2, 3)),
    "max over an axis": (lambda x: x.max(1), normal(2, 3)),
    "max with a tie": (lambda x: x.max(0, keepdims=True), np.array([[1.0, 2.0], [1.0, 0.0]])),
    "reshape": (lambda x: x.reshape(3, -1), normal(2, 3)),
    "flatten": (lambda x: x.flatten(1), normal(2, 3, 2)),
    "permute": (lambda x: x.permute(2, 0, 1), normal(2, 3, 4)),
    "transpose": (lambda x: x.transpose(), normal(2, 3)),
    "slice": (lambda x: x[:, ::2], normal(3, 5)),
    "index with repeats": (lambda x: x[INDEX], normal(3, 2)),
    "index with a mask": (lambda x: x[np.array([True, False, True])], normal(3, 2)),
    "astype": (lambda x: (x.astype(np.float64) * 2).astype(x.dtype), normal(3)),
}

CONVOLUTIONS = {
    "3x3, padding 1": ((2, 3, 5, 4), (4, 3, 3, 3), {"padding": 1}),
    "1x1, stride 2": ((1, 2, 5, 6), (3, 2, 1, 1), {"stride": 2}),
    "rectangular, stride (2, 1)": ((2, 1, 7, 4), (2, 1, 3, 2), {"stride": (2, 1), "padding": (1, 0)}),
    "stride over the kernel": ((1, 2, 7, 7), (1, 2, 2, 2), {"stride": 3}),
    "dilation": ((1, 2, 7, 6), (2, 2, 3, 2), {"dilation": (2, 3), "padding": 1}),
    "groups": ((2, 4, 4, 4), (6, 2, 3, 3), {"groups": 2, "padding": 1}),
    "depthwise": ((1, 3, 4, 5), (3, 1, 3, 3), {"groups": 3}),
    "same": ((2, 2, 5, 4), (3, 2, 2, 3), {"padding": "same"}),
    "one image": ((2, 5, 4), (3, 2, 3, 3), {"padding": 1}),
    "padding with a remainder": ((1, 1, 6, 5), (1, 1, 3, 3), {"stride": 2, "padding": 2}),
    "no images": ((0, 2, 4, 4), (3, 2, 3, 3), {}),
}

FUNCTIONAL = {
    "relu": (functional.relu, normal(3, 4)),
    "relu at 0": (functional.relu, np.array([0.0, -0.0, 1.0])),
    "sigmoid": (functional.sigmoid, 4 * normal(9)),
    "tanh": (functional.tanh, normal(5)),
    "softmax": (lambda x: functional.softmax(x, 1), normal(2, 4)),
    "log_softmax": (lambda x: functional.log_softmax(x, 0), normal(4, 2)),
    "linear": (functional.linear, normal(2, 3), normal(4, 3), normal(4)),
    "linear, square": (functional.linear, normal(2, 3), normal(3, 3), normal(3)),
    "linear of a stack": (functional.linear, normal(2, 2, 3), normal(4, 3), normal(4)),
    "linear without bias": (lambda x, weight: functional.linear(x, weight), normal(2, 3), normal(4, 3)),
    "batch_norm": (
        lambda x, weight, bias: functional.batch_norm(x, None, None, weight, bias, training=True),
        normal(2, 3, 2, 3),
        normal(3),
        normal(3, seed=1),
    ),
    "batch_norm without parameters": (lambda x: functional.batch_norm(x, None, None, training=True), normal(5, 3)),
    "batch_norm of a series": (lambda x: functional.batch_norm(x, None, None, training=True), normal(2, 3, 4)),
    "batch_norm of nearly equal numbers": (
        lambda x: functional.batch_norm(x, None, None, training=True, eps=0.1),
        5 + 0.1 * normal(4, 2),
    ),
    "batch_norm in evaluation": (
        lambda x, weight, bias: functional.batch_norm(x, MEAN, VARIANCE, weight, bias),
        normal(2, 3, 2, 3),
        normal(3),
        normal(3, seed=1),
    ),
    "batch_norm_relu": (
        lambda x, weight, bias: functional.batch_norm_relu(x, None, None, weight, bias, training=True),
        normal(2, 3, 2, 3),
        normal(3),
        normal(3, seed=1),
    ),
    "batch_norm_relu with addend": (
        lambda x, weight, bias, y: functional.batch_norm_relu(x, None, None, weight, bias, y, training=True),
        normal(2, 3, 2, 3),
        normal(3),
        normal(3, seed=1),
        normal(2, 3, 2, 3, seed=1),
    ),
    "batch_norm_relu with addend in evaluation": (
        lambda x, weight, bias, y: functional.batch_norm_relu(x, MEAN, VARIANCE, weight, bias, y),
        normal(2, 3, 2, 3),
        normal(3),
        normal(3, seed=1),
        normal(2, 3, 2, 3, seed=1),
    ),
    "max_pool2d": (lambda x: functional.max_pool2d(x, 3, stride=2, padding=1), normal(2, 2, 5, 6)),
    "max_pool2d, ceil": (lambda x: functional.max_pool2d(x, (2, 3), ceil_mode=True), normal(1, 2, 5, 5)),
    "max_pool2d, dilated": (lambda x: functional.max_pool2d(x, 2, stride=1, dilation=2), normal(1, 1, 5, 4)),
    "max_pool2d with ties": (lambda x: functional.max_pool2d(x, 2), np.zeros((1, 1, 2, 2))),
    "avg_pool2d": (lambda x: functional.avg_pool2d(x, 3, stride=2, padding=1), normal(2, 2, 5, 6)),
    "avg_pool2d, ceil, without padding in the mean": (
        lambda x: functional.avg_pool2d(x, 3, stride=2, padding=1, ceil_mode=True, count_include_pad=False),
        normal(1, 2, 6, 4),
    ),
    "adaptive_avg_pool2d": (lambda x: functional.adaptive_avg_pool2d(x, 1), normal(2, 3, 3, 4)),
    "adaptive_avg_pool2d, overlapping": (lambda x: functional.adaptive_avg_pool2d(x, (2, 3)), normal(1, 2, 5, 4)),
    "pad with a number": (lambda x: functional.pad(x, [(0, 1), (2, 0)], value=3), normal(2, 3)),
    "pad": (lambda x: functional.pad(x, [(0, 1), (2, 0)]), normal(2, 3)),
    "concatenate": (lambda x, y: functional.concatenate([x, y, x], axis=1), normal(2, 1), normal(2, 3)),
    "stack": (lambda x, y: functional.stack([x, y], axis=-1), normal(2, 3), normal(2, 3, seed=1)),
    "where": (lambda x, y: functional.where(np.array([True, False, True]), x, y), normal(2, 3), normal(1, 3)),
    "where with a number": (lambda x: functional.where(np.array([True, False, True]), x, 2.0), normal(2, 3)),
    "where on its own values": (lambda x: functional.where(x.data > 0, x, x * 0.1), np.array([0.0, 1.0, -1.0])),
    "subsample_and_pad": (lambda x: functional.subsample_and_pad(x, 5, 2), normal(2, 3, 5, 4)),
    "dropout": (
        lambda x: functional.dropout(x, 0.4, training=True, rng=np.random.default_rng(3)),
        normal(4, 5),
    ),
    "cross_entropy": (lambda z: functional.cross_entropy(z, TARGET), normal(3, 4)),
    "cross_entropy, smoothed sum": (
        lambda z: functional.cross_entropy(z, TARGET, label_smoothing=0.2, reduction="sum"),
        normal(3, 4),
    ),
    "cross_entropy, weighted, one ignored": (
        lambda z: functional.cross_entropy(z, TARGET, VARIANCE[[0, 1, 2, 0]], ignore_index=0),
        normal(3, 4),
    ),
    "cross_entropy of images against probabilities": (
        lambda z, target: functional.cross_entropy(z, target, label_smoothing=0.2),
        normal(2, 4, 3),
        positive(2, 4, 3),
    ),
    "cross_entropy of each": (lambda z: functional.cross_entropy(z, TARGET, reduction="none"), normal(3, 4)),
}


def assert_right(report: GradReport) -> None:
    assert report
    assert all(comparison.every_element for comparison in report.comparisons)


@pytest.mark.parametrize("name", ALGEBRA)
def test_operators_and_methods(name):
    assert_right(minires.gradcheck(*ALGEBRA[name]))


@pytest.mark.parametrize("name", FUNCTIONAL)
def test_functional(name):
    assert_right(minires.gradcheck(*FUNCTIONAL[name]))


@pytest.mark.parametrize("bias", [True, False], ids=["bias", "no bias"])
@pytest.mark.parametrize("case", CONVOLUTIONS)
def test_conv2d(case, bias):
    x_shape, weight_shape, options = CONVOLUTIONS[case]
    arrays = [normal(*x_shape), normal(*weight_shape), *([normal(weight_shape[0])] if bias else [])]
    assert_right(minires.gradcheck(lambda *tensors: functional.conv2d(*tensors, **options), *arrays))


def test_no_public_function_is_left_out():
    checked = {name.split(",")[0].split(" ")[0] for name in FUNCTIONAL} | {"conv2d"}
    assert set(functional.__all__) <= checked


def test_no_function_class_is_left_out():
    """Each Function of the engine takes part in at least one case: seen by running them under a tape and without."""
    applied: set[type] = set()
    for fn, *arrays in (*ALGEBRA.values(), *FUNCTIONAL.values()):
        tensors = [Tensor(array, requires_grad=True) for array in arrays]
        waiting = [fn(*tensors)]
        while waiting:
            creator = waiting.pop().creator
            if creator is not None:
                applied.add(type(creator))
                waiting.extend(tensor for tensor in creator.inputs if tensor is not None)
    modules = [algebra, *(module for _, module in inspect.getmembers(functional, inspect.ismodule))]
    defined = {
        value
        for module in modules
        for _, value in inspect.getmembers(module, inspect.isclass)
        if issubclass(value, Function) and value is not Function and value.__module__ == module.__name__
    }
    # conv2d has a test of its own, Cast needs float32, Transfer another device; Binary is what others are made from
    assert {kind.__name__ for kind in defined - applied} <= {"Conv2d", "Cast", "Transfer", "Binary"}


def test_the_cast_of_a_gradient():
    x = Tensor(normal(3).astype(np.float32), requires_grad=True)
    x.astype(np.float64).backward(normal(3))
    assert x.grad.dtype == np.float32
    np.testing.assert_array_equal(x.grad, normal(3).astype(np.float32))
