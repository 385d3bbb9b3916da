"""Calls that are right, of each public function of tensors and of arrays: what bad inputs are made of."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from minires import Tensor, functional, nn, optim
from minires.nn import initializers
from minires.tensor import Parameter
from minires_kernels import (
    Window,
    activation,
    convolution,
    cross_entropy,
    normalization,
    patches,
    pooling,
    shortcut,
    update,
)


@dataclass(frozen=True)
class Call:
    """A call that is right: ``name``, as a refusal begins with it; ``make(rng)``: its arguments; ``run(*arguments)``.

    Arrays among the arguments are handed to ``run`` as they are; ``run`` returns an array, a Tensor or a tuple of them.
    ``written``: the positions of arguments that the call may write. ``names``: what else a refusal may begin with.
    ``padded``: the positions where an infinity or a NaN may meet the zeros of the padding, which makes NaN.
    ``loose``: those where one makes its channel's results not finite, be they infinite or NaN.
    """

    name: str
    make: Callable[[np.random.Generator], list[Any]]
    run: Callable[..., Any]
    written: tuple[int, ...] = ()
    names: tuple[str, ...] = ()
    padded: tuple[int, ...] = ()
    loose: tuple[int, ...] = ()

    @property
    def speakers(self) -> tuple[str, ...]:
        """What a refusal may begin with: the function, its Function, or the door."""
        function = "".join(word[:1].upper() + word[1:] for word in self.name.split("_"))
        return (self.name, function, "Tensor", "Window", *self.names)


def floats(*shape: int) -> Callable[[np.random.Generator], np.ndarray]:
    return lambda rng: rng.standard_normal(shape).astype(np.float32)


def positive(*shape: int) -> Callable[[np.random.Generator], np.ndarray]:
    return lambda rng: (rng.random(shape) + 0.5).astype(np.float32)


def whole(high: int, *shape: int) -> Callable[[np.random.Generator], np.ndarray]:
    return lambda rng: rng.integers(0, high, shape)


def drawn(*makers: Any) -> Callable[[np.random.Generator], list[Any]]:
    """Arguments from ``makers``: functions of a generator, or values, which stay what they are."""
    return lambda rng: [maker(rng) if callable(maker) else copy.deepcopy(maker) for maker in makers]


def on_tensors(function: Callable[..., Any], *positions: int) -> Callable[..., Any]:
    """``function`` with the arguments at ``positions`` as tensors that require a gradient where they can."""

    def run(*arguments: Any) -> Any:
        tensors = [as_tensor(a) if i in positions else a for i, a in enumerate(arguments)]
        return with_gradients(function(*tensors), [tensors[i] for i in positions])

    return run


def on_methods(function: Callable[..., Any], *positions: int) -> Callable[..., Any]:
    """The same for methods and operators: what stands first goes through ``Tensor(...)``, whatever it is."""

    def run(first: Any, *others: Any) -> Any:
        return on_tensors(function, *positions)(first if isinstance(first, Tensor) else Tensor(first), *others)

    return run


def as_tensor(value: Any) -> Any:
    if not isinstance(value, (Tensor, np.ndarray)):
        return value
    tensor = value if isinstance(value, Tensor) else Tensor(value)
    tensor.requires_grad = tensor.dtype.kind == "f"
    return tensor


def with_gradients(output: Any, tensors: list[Any]) -> tuple[Any, ...]:
    """The output's array, and the gradient of each tensor under a random upstream gradient."""
    if not isinstance(output, Tensor):
        return (output,)
    if output.requires_grad:
        upstream = np.random.default_rng(0).standard_normal(output.shape).astype(output.dtype)
        output.backward(upstream)
    return (output.data, *(t.grad for t in tensors if isinstance(t, Tensor)))


def conv2d(x, weight, bias, stride, padding, dilation, groups):
    return functional.conv2d(x, weight, bias, stride=stride, padding=padding, dilation=dilation, groups=groups)


def batch_norm(x, mean, variance, weight, bias, training, momentum, eps):
    options = {"training": training, "momentum": momentum, "eps": eps}
    return functional.batch_norm(x, mean, variance, weight, bias, **options)


def batch_norm_relu(x, mean, variance, weight, bias, addend, training):
    return functional.batch_norm_relu(x, mean, variance, weight, bias, addend, training=training)


def sgd_step(data, grad, lr, momentum, weight_decay):
    parameter = Parameter(data)
    optimizer = optim.SGD([parameter], lr=lr, momentum=momentum, weight_decay=weight_decay)
    for _ in range(2):
        parameter.grad = grad
        optimizer.step()
    return (parameter.data,)


def module(make: Callable[..., nn.Module]) -> Callable[..., Any]:
    """A layer from the arguments behind the first, called with the first."""

    def run(x: Any, *settings: Any) -> Any:
        layer = make(*settings)
        tensor = as_tensor(x)
        return with_gradients(layer(tensor), [tensor])

    return run


RNG = np.random.default_rng
IMAGE, VECTOR = floats(2, 4, 6, 7), positive(4)
CALLS = [
    Call(
        "conv2d",
        drawn(IMAGE, floats(6, 2, 3, 3), floats(6), 1, 1, 1, 2),
        on_tensors(conv2d, 0, 1, 2),
        padded=(0, 1),
    ),
    Call(
        "conv2d",
        drawn(floats(2, 16, 8, 8), floats(16, 16, 3, 3), None, (1, 1), (1, 1), 1, 1),
        on_tensors(conv2d, 0, 1),
        padded=(0, 1),
    ),
    Call("linear", drawn(floats(5, 4), floats(3, 4), floats(3)), on_tensors(functional.linear, 0, 1, 2)),
    Call(
        "batch_norm",
        drawn(IMAGE, VECTOR, VECTOR, VECTOR, VECTOR, True, 0.1, 1e-5),
        on_tensors(batch_norm, 0, 3, 4),
        (1, 2),
        loose=(1, 2, 3, 4),
    ),
    Call(
        "batch_norm",
        drawn(IMAGE, VECTOR, VECTOR, VECTOR, VECTOR, False, 0.1, 1e-5),
        on_tensors(batch_norm, 0, 3, 4),
        (1, 2),
        names=("Normalize",),
        loose=(1, 2, 3, 4),
    ),
    Call(
        "batch_norm_relu",
        drawn(IMAGE, VECTOR, VECTOR, VECTOR, VECTOR, IMAGE, True),
        on_tensors(batch_norm_relu, 0, 3, 4, 5),
        (1, 2),
        names=("BatchNormReLU",),
        loose=(1, 2, 3, 4),
    ),
    Call("relu", drawn(IMAGE), on_tensors(functional.relu, 0)),
    Call("sigmoid", drawn(IMAGE), on_tensors(functional.sigmoid, 0)),
    Call("tanh", drawn(IMAGE), on_tensors(functional.tanh, 0)),
    Call("softmax", drawn(floats(5, 4), 1), on_tensors(functional.softmax, 0)),
    Call("log_softmax", drawn(floats(5, 4), -1), on_tensors(functional.log_softmax, 0)),
    Call(
        "cross_entropy",
        drawn(floats(5, 4), whole(4, 5), 0.1),
        on_tensors(lambda x, t, s: functional.cross_entropy(x, t, label_smoothing=s), 0),
    ),
    Call(
        "max_pool2d",
        drawn(IMAGE, 2, 2, 1, 1),
        on_tensors(lambda x, k, s, p, d: functional.max_pool2d(x, k, stride=s, padding=p, dilation=d), 0),
    ),
    Call(
        "avg_pool2d",
        drawn(IMAGE, (2, 3), 2, 1),
        on_tensors(lambda x, k, s, p: functional.avg_pool2d(x, k, stride=s, padding=p), 0),
    ),
    Call("adaptive_avg_pool2d", drawn(IMAGE, (2, 3)), on_tensors(functional.adaptive_avg_pool2d, 0)),
    Call(
        "dropout",
        drawn(IMAGE, 0.0, True),
        on_tensors(lambda x, p, t: functional.dropout(x, p, training=t, rng=RNG(0)), 0),
    ),
    Call("pad", drawn(IMAGE, ((0, 0), (0, 0), (1, 2), (0, 1))), on_tensors(functional.pad, 0)),
    Call(
        "concatenate", drawn(IMAGE, IMAGE, 1), on_tensors(lambda x, y, axis: functional.concatenate([x, y], axis), 0, 1)
    ),
    Call("stack", drawn(IMAGE, IMAGE, 1), on_tensors(lambda x, y, axis: functional.stack([x, y], axis), 0, 1)),
    Call(
        "where",
        drawn(lambda rng: rng.random((4, 5)) > 0.5, floats(4, 5), floats(5)),
        on_tensors(functional.where, 1, 2),
    ),
    Call("subsample_and_pad", drawn(IMAGE, 8, 2), on_tensors(functional.subsample_and_pad, 0)),
    Call("add", drawn(floats(4, 5), floats(5)), on_methods(lambda x, y: x + y, 0, 1), names=("Add", "+")),
    Call("sub", drawn(floats(4, 5), floats(4, 1)), on_methods(lambda x, y: x - y, 0, 1), names=("Sub", "-")),
    Call("mul", drawn(floats(4, 5), floats(4, 5)), on_methods(lambda x, y: x * y, 0, 1), names=("Mul", "*")),
    Call("div", drawn(floats(4, 5), positive(4, 5)), on_methods(lambda x, y: x / y, 0, 1), names=("Div", "/")),
    Call("pow", drawn(positive(4, 5), floats(5)), on_methods(lambda x, y: x**y, 0, 1), names=("Pow", "**")),
    Call("matmul", drawn(floats(3, 4, 5), floats(5, 2)), on_methods(lambda x, y: x @ y, 0, 1), names=("MatMul", "@")),
    Call("abs", drawn(floats(4, 5)), on_methods(lambda x: x.abs(), 0)),
    Call("neg", drawn(floats(4, 5)), on_methods(lambda x: -x, 0), names=("Neg", "-")),
    Call("exp", drawn(floats(4, 5)), on_methods(lambda x: x.exp(), 0)),
    Call("log", drawn(positive(4, 5)), on_methods(lambda x: x.log(), 0)),
    Call("sqrt", drawn(positive(4, 5)), on_methods(lambda x: x.sqrt(), 0)),
    Call("clip", drawn(floats(4, 5), -0.5, 0.5), on_methods(lambda x, a, b: x.clip(a, b), 0)),
    Call("sum", drawn(IMAGE, (0, 2)), on_methods(lambda x, axis: x.sum(axis), 0)),
    Call("mean", drawn(IMAGE, 1, True), on_methods(lambda x, axis, keep: x.mean(axis, keepdims=keep), 0)),
    Call("var", drawn(IMAGE, (1, 3), 1), on_methods(lambda x, axis, c: x.var(axis, correction=c), 0)),
    Call("max", drawn(IMAGE, 2), on_methods(lambda x, axis: x.max(axis), 0)),
    Call("min", drawn(IMAGE, (1, 3)), on_methods(lambda x, axis: x.min(axis), 0)),
    Call("argmax", drawn(IMAGE, 1, False), on_methods(lambda x, axis, keep: x.argmax(axis, keep), 0)),
    Call("any", drawn(IMAGE, (0, 1)), on_methods(lambda x, axis: x.any(axis), 0)),
    Call("maximum", drawn(floats(4, 5), floats(5)), on_methods(lambda x, y: x.maximum(y), 0, 1), names=("Maximum",)),
    Call("reshape", drawn(IMAGE, (8, -1)), on_methods(lambda x, shape: x.reshape(shape), 0)),
    Call("flatten", drawn(IMAGE, 1, 2), on_methods(lambda x, a, b: x.flatten(a, b), 0)),
    Call("permute", drawn(IMAGE, (0, 3, 1, 2)), on_methods(lambda x, axes: x.permute(axes), 0)),
    Call("transpose", drawn(IMAGE, 1, 2), on_methods(lambda x, a, b: x.transpose(a, b), 0)),
    Call("index", drawn(IMAGE, (0, slice(1, 3))), on_methods(lambda x, i: x[i], 0), names=("Index", "[]")),
    Call("astype", drawn(floats(4, 5), "float64"), lambda x, dtype: (Tensor(x).astype(dtype).data,)),
    Call("backward", drawn(floats(3), floats(3)), lambda x, g: with_upstream(x, g)),
    Call(
        "SGD",
        drawn(floats(4, 5), floats(4, 5), 0.1, 0.9, 1e-4),
        sgd_step,
        (0,),
        names=("update.sgd", "sgd", "Parameter"),
    ),
    Call(
        "Conv2d",
        drawn(IMAGE, 4, 6, 3),
        module(lambda c, o, k: nn.Conv2d(c, o, k, rng=RNG(0))),
        names=("conv2d", "initializers", "he_normal"),
        padded=(0,),
    ),
    Call("BatchNorm2d", drawn(IMAGE, 4), module(nn.BatchNorm2d), names=("batch_norm",)),
    Call("Linear", drawn(floats(3, 4), 4, 5), module(lambda i, o: nn.Linear(i, o, rng=RNG(0))), names=("linear",)),
    Call("MaxPool2d", drawn(IMAGE, 2), module(nn.MaxPool2d), names=("max_pool2d",)),
    Call("AvgPool2d", drawn(IMAGE, 2), module(nn.AvgPool2d), names=("avg_pool2d",)),
    Call("Dropout", drawn(IMAGE, 0.0), module(lambda p: nn.Dropout(p, rng=RNG(0))), names=("dropout",)),
    Call(
        "initializers",
        drawn((6, 4, 3, 3)),
        lambda shape: initializers.he_normal(shape, rng=RNG(0)),
        names=("fans", "he_normal"),
    ),
    Call(
        "Window",
        drawn(3, 2, 1, 1),
        lambda k, s, p, d: np.array(Window.of(k, stride=s, padding=p, dilation=d).output_size(9, 9)),
        names=("kernel_size",),
    ),
    # the kernels, which may be called without the engine
    Call(
        "convolution.forward",
        drawn(IMAGE, floats(6, 2, 3, 3), Window.of(3, padding=1), 2),
        convolution.forward,
        names=("convolution",),
    ),
    Call(
        "convolution.grad_input",
        drawn(floats(2, 6, 6, 7), floats(6, 2, 3, 3), (2, 4, 6, 7), Window.of(3, padding=1), 2),
        convolution.grad_input,
        names=("convolution",),
        padded=(1,),
    ),
    Call(
        "convolution.grad_weight",
        drawn(floats(2, 6, 6, 7), IMAGE, Window.of(3, padding=1), 2),
        convolution.grad_weight,
        names=("convolution",),
        padded=(0, 1),
    ),
    Call("im2col", drawn(IMAGE, Window.of(3, padding=1)), patches.im2col, names=("patches",)),
    Call("col2im", drawn(floats(2, 36, 42), (2, 4, 6, 7), Window.of(3, padding=1)), patches.col2im, names=("patches",)),
    Call("batch_statistics", drawn(IMAGE), normalization.batch_statistics, names=("normalization",)),
    Call(
        "normalize",
        drawn(IMAGE, VECTOR, VECTOR, VECTOR, VECTOR, IMAGE, True),
        normalization.normalize,
        names=("normalization",),
        loose=(1, 2, 3, 4),
    ),
    Call(
        "batch_norm_backward",
        drawn(IMAGE, IMAGE, VECTOR, VECTOR, VECTOR, IMAGE, True),
        normalization.batch_norm_backward,
        names=("normalization",),
        loose=(2, 3, 4),
    ),
    Call(
        "normalize_backward",
        drawn(IMAGE, IMAGE, VECTOR, VECTOR, VECTOR, IMAGE, True),
        normalization.normalize_backward,
        names=("normalization",),
        loose=(2, 3, 4),
    ),
    Call("activation.relu", drawn(IMAGE), activation.relu, names=("relu", "activation")),
    Call(
        "activation.relu_backward", drawn(IMAGE, IMAGE), activation.relu_backward, names=("relu_backward", "activation")
    ),
    Call("activation.add", drawn(IMAGE, IMAGE), activation.add, names=("add", "activation")),
    Call("activation.add_relu", drawn(IMAGE, IMAGE), activation.add_relu, names=("add_relu", "activation")),
    Call("max_pool", drawn(IMAGE, Window.of(2), False), pooling.max_pool, names=("pooling",)),
    Call(
        "max_pool_backward",
        drawn(floats(2, 4, 3, 3), whole(42, 2, 4, 3, 3), (2, 4, 6, 7)),
        lambda g, a, s: pooling.max_pool_backward(
            g, a.astype("int32") if isinstance(a, np.ndarray) and a.dtype == "int64" else a, s
        ),
        names=("pooling",),
    ),
    Call("avg_pool", drawn(IMAGE, Window.of(2), False, True), pooling.avg_pool, names=("pooling",)),
    Call(
        "avg_pool_backward",
        drawn(floats(2, 4, 3, 3), (2, 4, 6, 7), Window.of(2), False, True),
        pooling.avg_pool_backward,
        names=("pooling",),
    ),
    Call(
        "cross_entropy.cross_entropy",
        drawn(floats(5, 4), whole(4, 5), 0.1),
        cross_entropy.cross_entropy,
        names=("cross_entropy",),
    ),
    Call(
        "cross_entropy_backward",
        drawn(positive(5, 4), whole(4, 5), 0.1, positive(5)),
        cross_entropy.cross_entropy_backward,
        names=("cross_entropy",),
    ),
    Call(
        "shortcut.subsample_and_pad",
        drawn(IMAGE, 8, 2),
        shortcut.subsample_and_pad,
        names=("shortcut", "subsample_and_pad"),
    ),
    Call(
        "subsample_and_pad_backward",
        drawn(floats(2, 8, 3, 4), (2, 4, 6, 7), 2),
        shortcut.subsample_and_pad_backward,
        names=("shortcut",),
    ),
    Call(
        "update.sgd",
        drawn(floats(4, 5), floats(4, 5), floats(4, 5), 0.1, 0.9, 1e-4, False, False),
        lambda p, g, v, *rest: sgd_kernel(p, g, v, *rest),
        (0, 2),
        names=("sgd",),
    ),
]


def with_upstream(x: Any, grad: Any) -> tuple[Any, ...]:
    tensor = as_tensor(x if isinstance(x, (Tensor, np.ndarray)) else Tensor(x))
    (tensor * 2).backward(grad)
    return (tensor.grad,)


def sgd_kernel(parameter: Any, grad: Any, velocity: Any, *settings: Any) -> tuple[Any, ...]:
    update.sgd(parameter, grad, velocity, *settings)
    return parameter, velocity
