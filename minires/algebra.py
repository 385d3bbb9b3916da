"""The Functions behind Tensor's operators and methods: elementwise, reductions, shapes, matrix product.

The rule of placement: an operation with an operator or a Tensor method lives here, any other in ``functional/``.
NumPy broadcasting is allowed in the binary operations; its adjoint, the sum over the broadcast axes, is the visible
call to :func:`sum_to_shape` in each of them.
"""

from __future__ import annotations

import math
from typing import Any

from minires.arguments import Axis, reduced_axes
from minires.function import Function
from minires_kernels import activation
from minires_kernels.arrays import Array, array_module, device_of, on_device, total


def sum_to_shape(grad: Array, shape: tuple[int, ...]) -> Array:
    """``grad`` summed over the axes along which an array of ``shape`` was broadcast: the adjoint of broadcasting."""
    if grad.shape == shape:
        return grad
    extra = grad.ndim - len(shape)
    stretched = tuple(i + extra for i, length in enumerate(shape) if length == 1 and grad.shape[i + extra] != 1)
    return total(grad, (*range(extra), *stretched), keepdims=True).reshape(shape)


def expand_reduced(reduced: Array, shape: tuple[int, ...], axis: Axis) -> Array:
    """``reduced``, a reduction over ``axis`` of an array of ``shape``, with the lost axes put back as 1s."""
    chosen = range(len(shape)) if axis is None else (axis if isinstance(axis, tuple) else (axis,))
    axes = [a % len(shape) for a in chosen]
    return reduced.reshape([1 if i in axes else length for i, length in enumerate(shape)])


def broadcast_problem(x: tuple[int, ...], y: tuple[int, ...]) -> str:
    """Why arrays of shapes ``x`` and ``y`` can't be computed with element by element; empty if they can."""
    if all(1 in lengths or lengths[0] == lengths[1] for lengths in zip(x[::-1], y[::-1], strict=False)):
        return ""
    return f"shapes {x} and {y} don't broadcast: from the last axis on, two lengths must be equal, or one of them 1"


class Binary(Function):
    """Two operands of shapes that broadcast."""

    def explain(self, *arrays: Array) -> str:
        return broadcast_problem(*(array.shape for array in arrays))


class Add(Binary):
    """x + y. The gradient passes through unchanged, to both: at a skip connection it *splits* here."""

    def forward(self, x: Array, y: Array) -> Array:
        self._shapes = x.shape, y.shape
        return activation.add(x, y) if x.shape == y.shape and x.dtype.kind == "f" else x + y

    def backward(self, grad_output: Array) -> tuple[Array | None, ...]:
        return tuple(
            sum_to_shape(grad_output, shape) if needed else None
            for shape, needed in zip(self._shapes, self.needs_input_grad, strict=True)
        )


class Sub(Binary):
    """x - y."""

    def forward(self, x: Array, y: Array) -> Array:
        self._shapes = x.shape, y.shape
        return x - y

    def backward(self, grad_output: Array) -> tuple[Array | None, ...]:
        needs_x, needs_y = self.needs_input_grad
        return (
            sum_to_shape(grad_output, self._shapes[0]) if needs_x else None,
            sum_to_shape(-grad_output, self._shapes[1]) if needs_y else None,
        )


class Mul(Binary):
    """x y, elementwise: d(xy) = y dx + x dy."""

    def forward(self, x: Array, y: Array) -> Array:
        self.save_for_backward(x=x, y=y)
        return x * y

    def backward(self, grad_output: Array) -> tuple[Array | None, ...]:
        x, y = self.saved.x, self.saved.y
        needs_x, needs_y = self.needs_input_grad
        return (
            sum_to_shape(grad_output * y, x.shape) if needs_x else None,
            sum_to_shape(grad_output * x, y.shape) if needs_y else None,
        )


class Div(Binary):
    """x / y, elementwise: d(x/y) = dx / y - ((x / y) / y) dy."""

    def forward(self, x: Array, y: Array) -> Array:
        quotient = x / y
        self.save_for_backward(x=x, y=y, quotient=quotient)
        return quotient

    def backward(self, grad_output: Array) -> tuple[Array | None, ...]:
        x, y, quotient = self.saved.x, self.saved.y, self.saved.quotient
        needs_x, needs_y = self.needs_input_grad
        return (
            sum_to_shape(grad_output / y, x.shape) if needs_x else None,
            sum_to_shape(-grad_output * (quotient / y), y.shape) if needs_y else None,
        )


class Pow(Binary):
    """x ** y, elementwise: d(x^y) = y x^(y-1) dx + log(x) x^y dy.

    x's gradient is 0 where y = 0, and the exponent's is 0 where x = 0 and y >= 0, whatever comes from upstream: there
    the formulas would make 0 times infinity.
    """

    def forward(self, x: Array, y: Array) -> Array:
        power = x**y
        self.save_for_backward(x=x, y=y, power=power)
        return power

    def backward(self, grad_output: Array) -> tuple[Array | None, ...]:
        x, y, power = self.saved.x, self.saved.y, self.saved.power
        xp = array_module(x)
        needs_x, needs_y = self.needs_input_grad
        grad_x = grad_y = None
        if needs_x:
            grad_x = sum_to_shape(xp.where(y == 0, 0, grad_output * (y * x ** xp.where(y == 0, 1, y - 1))), x.shape)
        if needs_y:
            flat = (x == 0) & (y >= 0)
            grad_y = sum_to_shape(xp.where(flat, 0, grad_output * (power * xp.log(xp.where(flat, 1, x)))), y.shape)
        return grad_x, grad_y


class MatMul(Function):
    """x @ y for matrices and, as in NumPy, stacks of matrices and vectors: dX = dY B^T, dB = A^T dY."""

    def forward(self, x: Array, y: Array) -> Array:
        self.save_for_backward(x=x, y=y)
        return x @ y

    def explain(self, *arrays: Array) -> str:
        x, y = (array.shape for array in arrays)
        if not (x and y):
            return "both operands must have at least one axis; multiply by a number with *"
        if x[-1] != y[-2:][0]:
            return f"the left has rows of {x[-1]} numbers, the right columns of {y[-2:][0]}; they must be equally long"
        return f"the stacks of matrices, {x[:-2]} and {y[:-2]}, must broadcast"

    def backward(self, grad_output: Array) -> tuple[Array | None, ...]:
        x, y = self.saved.x, self.saved.y
        rows = x[None, :] if x.ndim == 1 else x  # (..., I, K)
        columns = y[:, None] if y.ndim == 1 else y  # (..., K, J)
        grad = grad_output[..., None] if y.ndim == 1 else grad_output
        grad = grad[..., None, :] if x.ndim == 1 else grad  # (..., I, J)
        needs_x, needs_y = self.needs_input_grad
        return (
            sum_to_shape(grad @ columns.swapaxes(-1, -2), rows.shape).reshape(x.shape) if needs_x else None,
            sum_to_shape(rows.swapaxes(-1, -2) @ grad, columns.shape).reshape(y.shape) if needs_y else None,
        )


class Neg(Function):
    """-x."""

    def forward(self, x: Array) -> Array:
        return -x

    def backward(self, grad_output: Array) -> tuple[Array | None, ...]:
        return (-grad_output,)


class Abs(Function):
    """|x|; the slope at 0 is taken to be 0, and 0 is what an infinite gradient becomes there."""

    def forward(self, x: Array) -> Array:
        self.save_for_backward(x=x)
        return abs(x)

    def backward(self, grad_output: Array) -> tuple[Array | None, ...]:
        x = self.saved.x
        xp = array_module(x)
        return (xp.where(x == 0, 0, grad_output * xp.sign(x)),)

    def signature(self) -> Array:
        return array_module(self.saved.x).sign(self.saved.x)


class Exp(Function):
    """e^x, its own derivative."""

    def forward(self, x: Array) -> Array:
        exponential = array_module(x).exp(x)
        self.save_for_backward(exponential=exponential)
        return exponential

    def backward(self, grad_output: Array) -> tuple[Array | None, ...]:
        return (grad_output * self.saved.exponential,)


class Log(Function):
    """The natural logarithm: d log x = dx / x."""

    def forward(self, x: Array) -> Array:
        self.save_for_backward(x=x)
        return array_module(x).log(x)

    def backward(self, grad_output: Array) -> tuple[Array | None, ...]:
        return (grad_output / self.saved.x,)


class Sqrt(Function):
    """The square root: d sqrt(x) = dx / (2 sqrt(x))."""

    def forward(self, x: Array) -> Array:
        root = array_module(x).sqrt(x)
        self.save_for_backward(root=root)
        return root

    def backward(self, grad_output: Array) -> tuple[Array | None, ...]:
        return (grad_output / (2 * self.saved.root),)


class Clip(Function):
    """min(max(x, lower), upper); the gradient passes where lower <= x <= upper, which is nowhere that x is NaN."""

    def __init__(self, lower: float | None, upper: float | None) -> None:
        self.lower, self.upper = lower, upper

    def forward(self, x: Array) -> Array:
        self.save_for_backward(x=x)
        return x.clip(self.lower, self.upper)

    def backward(self, grad_output: Array) -> tuple[Array | None, ...]:
        x = self.saved.x
        xp = array_module(x)
        inside = xp.ones(x.shape, bool)
        if self.lower is not None:
            inside &= x >= self.lower
        if self.upper is not None:
            inside &= x <= self.upper
        return (xp.where(inside, grad_output, 0),)

    def signature(self) -> Array:
        x = self.saved.x
        xp = array_module(x)
        below = xp.zeros(x.shape, bool) if self.lower is None else x < self.lower
        above = xp.zeros(x.shape, bool) if self.upper is None else x > self.upper
        return above.astype("int8") - below


class Sum(Function):
    """The sum over ``axis``: each summand gets the whole gradient."""

    def __init__(self, axis: Axis, keepdims: bool) -> None:
        self.axis, self.keepdims = axis, keepdims

    def forward(self, x: Array) -> Array:
        self._shape = x.shape
        return total(x, self.axis, self.keepdims)

    def backward(self, grad_output: Array) -> tuple[Array | None, ...]:
        xp = array_module(grad_output)
        return (xp.broadcast_to(expand_reduced(grad_output, self._shape, self.axis), self._shape).copy(),)


class Mean(Function):
    """The mean over ``axis``: each of the m numbers gets 1/m of the gradient."""

    def __init__(self, axis: Axis, keepdims: bool) -> None:
        self.axis, self.keepdims = axis, keepdims

    def forward(self, x: Array) -> Array:
        self._shape = x.shape
        mean = total(x, self.axis, self.keepdims)
        return mean / (x.size // max(mean.size, 1))

    def backward(self, grad_output: Array) -> tuple[Array | None, ...]:
        xp = array_module(grad_output)
        count = _size(self._shape) // max(grad_output.size, 1)
        share = expand_reduced(grad_output / count, self._shape, self.axis)
        return (xp.broadcast_to(share, self._shape).copy(),)


class Var(Function):
    """The variance over ``axis``, sum (x - mean)^2 / (m - correction): dx = 2 (x - mean) / (m - correction)."""

    def __init__(self, axis: Axis, correction: int, keepdims: bool) -> None:
        self.axis, self.correction, self.keepdims = axis, correction, keepdims

    def forward(self, x: Array) -> Array:
        mean = total(x, self.axis, keepdims=True)
        count = x.size // max(mean.size, 1)
        deviation = x - mean / count
        self.save_for_backward(deviation=deviation)
        return total(deviation * deviation, self.axis, self.keepdims) / (count - self.correction)

    def backward(self, grad_output: Array) -> tuple[Array | None, ...]:
        deviation = self.saved.deviation
        count = math.prod(deviation.shape[i] for i in reduced_axes(self.axis, deviation.ndim)) - self.correction
        return (expand_reduced(grad_output * (2 / count), deviation.shape, self.axis) * deviation,)


class Reshape(Function):
    """The same numbers, in row order, in another shape."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        self.shape = shape

    def forward(self, x: Array) -> Array:
        self._shape = x.shape
        return x.reshape(self.shape)

    def backward(self, grad_output: Array) -> tuple[Array | None, ...]:
        return (grad_output.reshape(self._shape),)


class Permute(Function):
    """The axes in another order."""

    def __init__(self, axes: tuple[int, ...]) -> None:
        self.axes = axes

    def forward(self, x: Array) -> Array:
        return x.transpose(self.axes)

    def backward(self, grad_output: Array) -> tuple[Array | None, ...]:
        inverse = sorted(range(len(self.axes)), key=lambda i: self.axes[i] % len(self.axes))
        return (grad_output.transpose(inverse),)


class Index(Function):
    """x[index]; an element that was picked several times gets the sum of their gradients."""

    def __init__(self, index: Any) -> None:
        self.index = index

    def forward(self, x: Array) -> Array:
        self._shape = x.shape
        return x[self.index].copy()

    def backward(self, grad_output: Array) -> tuple[Array | None, ...]:
        xp = array_module(grad_output)
        grad_x = xp.zeros(self._shape, grad_output.dtype)
        parts = self.index if isinstance(self.index, tuple) else (self.index,)
        if all(part is None or part is Ellipsis or isinstance(part, (int, slice)) for part in parts):
            grad_x[self.index] = grad_output  # no element can be picked twice
            return (grad_x,)
        sums = grad_x.astype("float64")  # one element may be picked a million times
        xp.add.at(sums, self.index, grad_output)
        return (sums.astype(grad_output.dtype),)


class Cast(Function):
    """x in another floating-point type; the gradient is cast back."""

    casts = True

    def __init__(self, dtype: Any) -> None:
        self.dtype = dtype

    def forward(self, x: Array) -> Array:
        self._dtype = x.dtype
        return x.astype(self.dtype)

    def backward(self, grad_output: Array) -> tuple[Array | None, ...]:
        return (grad_output.astype(self._dtype),)


class Transfer(Function):
    """x in the memory of another device; the gradient comes back."""

    def __init__(self, device: str) -> None:
        self.device = device

    def forward(self, x: Array) -> Array:
        self._device = device_of(x)
        return on_device(x, self.device)

    def backward(self, grad_output: Array) -> tuple[Array | None, ...]:
        return (on_device(grad_output, self._device),)


def _size(shape: tuple[int, ...]) -> int:
    size = 1
    for length in shape:
        size *= length
    return size
