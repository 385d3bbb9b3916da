"""Nonlinearities: ReLU, the logistic function (the gates of He et al. 2016), tanh, softmax and its logarithm."""

from __future__ import annotations

from minires.arguments import require_axis
from minires.function import Function
from minires.functional.checks import refuse_inplace, require_tensor
from minires.tensor import Tensor, apply
from minires.vocabulary import torch_keywords
from minires_kernels import activation
from minires_kernels.arrays import Array, array_module, total


class ReLU(Function):
    """max(x, 0): the gradient passes where the output is positive; and where it is NaN, so that it shows."""

    def forward(self, x: Array) -> Array:
        output = activation.relu(x)
        self.save_for_backward(output=output)
        return output

    def backward(self, grad_output: Array) -> tuple[Array | None, ...]:
        return (activation.relu_backward(grad_output, self.saved.output),)

    def signature(self) -> Array:
        return self.saved.output > 0


class Sigmoid(Function):
    """s = 1 / (1 + e^-x): ds = s (1 - s) dx. Computed from e^-|x|, which can't overflow."""

    def forward(self, x: Array) -> Array:
        xp = array_module(x)
        decay = xp.exp(-abs(x))
        output = xp.where(x >= 0, 1, decay) / (1 + decay)
        self.save_for_backward(output=output)
        return output

    def backward(self, grad_output: Array) -> tuple[Array | None, ...]:
        output = self.saved.output
        return (grad_output * output * (1 - output),)


class Tanh(Function):
    """t = tanh(x): dt = (1 - t^2) dx."""

    def forward(self, x: Array) -> Array:
        output = array_module(x).tanh(x)
        self.save_for_backward(output=output)
        return output

    def backward(self, grad_output: Array) -> tuple[Array | None, ...]:
        output = self.saved.output
        return (grad_output * (1 - output * output),)


class Softmax(Function):
    """p = e^x / sum(e^x) along an axis: dp = p (dx - sum(p dx)). Shifting x by its maximum only avoids overflow."""

    def __init__(self, axis: int) -> None:
        self.axis = axis

    def forward(self, x: Array) -> Array:
        exponential = array_module(x).exp(x - x.max(self.axis, keepdims=True))
        output = exponential / total(exponential, self.axis, keepdims=True)
        self.save_for_backward(output=output)
        return output

    def backward(self, grad_output: Array) -> tuple[Array | None, ...]:
        output = self.saved.output
        weighted = grad_output * output
        return (weighted - output * total(weighted, self.axis, keepdims=True),)


class LogSoftmax(Function):
    """log p = x - log(sum(e^x)) along an axis: d log p = dx - sum(p dx)."""

    def __init__(self, axis: int) -> None:
        self.axis = axis

    def forward(self, x: Array) -> Array:
        xp = array_module(x)
        shifted = x - x.max(self.axis, keepdims=True)
        output = shifted - xp.log(total(xp.exp(shifted), self.axis, keepdims=True))
        self.save_for_backward(output=output)
        return output

    def backward(self, grad_output: Array) -> tuple[Array | None, ...]:
        probabilities = array_module(grad_output).exp(self.saved.output)
        return (grad_output - probabilities * total(grad_output, self.axis, keepdims=True),)


def relu(x: Tensor, inplace: bool = False) -> Tensor:
    """max(x, 0), elementwise (Nair and Hinton 2010). Its slope at 0 is 0. Raises TypeError for a non-tensor.

    ``inplace`` is there for those who know it from PyTorch: True is refused, with the reason, by a ValueError.
    """
    require_tensor("relu", "x", x)
    refuse_inplace("relu", inplace)
    return apply(ReLU(), x)


def sigmoid(x: Tensor) -> Tensor:
    """The logistic function 1 / (1 + e^-x), elementwise. Raises TypeError for a non-tensor."""
    require_tensor("sigmoid", "x", x)
    return apply(Sigmoid(), x)


def tanh(x: Tensor) -> Tensor:
    """The hyperbolic tangent, elementwise. Raises TypeError for a non-tensor."""
    require_tensor("tanh", "x", x)
    return apply(Tanh(), x)


@torch_keywords
def softmax(x: Tensor, axis: int) -> Tensor:
    """e^x / sum(e^x) along ``axis`` (or ``dim``): positive numbers that sum to 1.

    Raises ValueError for an axis that isn't there or is empty, TypeError for one that isn't an integer.

    >>> softmax(Tensor([1.0, 1.0]), dim=0).data.tolist()
    [0.5, 0.5]
    """
    return apply(Softmax(_axis_of_numbers("softmax", x, axis)), x)


@torch_keywords
def log_softmax(x: Tensor, axis: int) -> Tensor:
    """log(softmax(x)) along ``axis`` (or ``dim``), without the overflow. Errors as :func:`softmax`."""
    return apply(LogSoftmax(_axis_of_numbers("log_softmax", x, axis)), x)


def _axis_of_numbers(op: str, x: Tensor, axis: int) -> int:
    require_tensor(op, "x", x)
    axis = require_axis(op, axis, x.ndim, f"x {x.shape}")
    if x.shape[axis] == 0:
        raise ValueError(f"{op}: axis {axis} of x {x.shape} has no elements, and nothing can sum to 1")
    return axis
