"""The Functions that choose: the larger or smaller of two numbers, the largest or smallest of many."""

from __future__ import annotations

import math

from minires.algebra import Binary, expand_reduced, sum_to_shape
from minires.arguments import Axis, reduced_axes
from minires.function import Function
from minires_kernels.arrays import Array, array_module


class Maximum(Binary):
    """The larger of x and y, elementwise: the gradient goes to the larger; of equals each gets half, as in torch."""

    def forward(self, x: Array, y: Array) -> Array:
        self.save_for_backward(x=x, y=y)
        return array_module(x).maximum(x, y)

    def backward(self, grad_output: Array) -> tuple[Array | None, ...]:
        x, y = self.saved.x, self.saved.y
        xp = array_module(x)
        share = xp.where(x == y, grad_output / 2, grad_output)
        needs_x, needs_y = self.needs_input_grad
        return (
            sum_to_shape(xp.where(self._loses(x, y), 0, share), x.shape) if needs_x else None,
            sum_to_shape(xp.where(self._loses(y, x), 0, share), y.shape) if needs_y else None,
        )

    def signature(self) -> Array:
        x, y = self.saved.x, self.saved.y
        return (x > y).astype("int8") - (x < y)

    def _loses(self, x: Array, y: Array) -> Array:
        return x < y


class Minimum(Maximum):
    """The smaller of x and y, elementwise: the gradient goes to the smaller; of equals each gets half, as in torch."""

    def forward(self, x: Array, y: Array) -> Array:
        self.save_for_backward(x=x, y=y)
        return array_module(x).minimum(x, y)

    def _loses(self, x: Array, y: Array) -> Array:
        return x > y


class Max(Function):
    """The maximum over ``axis``; the first of equal maxima, in row order, gets the gradient, as in max pooling."""

    position = "argmax"

    def __init__(self, axis: Axis, keepdims: bool) -> None:
        self.axis, self.keepdims = axis, keepdims

    def forward(self, x: Array) -> Array:
        self._shape = x.shape
        lost = reduced_axes(self.axis, x.ndim)
        kept = [i for i in range(x.ndim) if i not in lost]
        self._order = (*kept, *lost)
        self._rows = (*(x.shape[i] for i in kept), math.prod(x.shape[i] for i in lost))
        rows = x.transpose(self._order).reshape(self._rows)
        chosen = getattr(rows, self.position)(-1)[..., None]  # (*kept, 1)
        self.save_for_backward(chosen=chosen)
        extreme = array_module(x).take_along_axis(rows, chosen, -1)[..., 0]
        output = expand_reduced(extreme, x.shape, self.axis) if self.keepdims else extreme
        self._output_shape = output.shape
        return output

    def backward(self, grad_output: Array) -> tuple[Array | None, ...]:
        xp, chosen = array_module(grad_output), self.saved.chosen
        rows = xp.zeros(self._rows, grad_output.dtype)
        xp.put_along_axis(rows, chosen, grad_output.reshape(chosen.shape), -1)
        shape = tuple(self._shape[i] for i in self._order)
        return (rows.reshape(shape).transpose(sorted(range(len(shape)), key=self._order.__getitem__)),)

    def signature(self) -> Array:
        return self.saved.chosen.reshape(self._output_shape)


class Min(Max):
    """The minimum over ``axis``; the first of equal minima, in row order, gets the gradient."""

    position = "argmin"
