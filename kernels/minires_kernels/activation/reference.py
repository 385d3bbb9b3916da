"""Activation with the array library's own elementwise operations.

Results are allocated like the first operand, since a ufunc falls back to C order when its operands' layouts differ.
"""

from __future__ import annotations

from minires_kernels.arrays import Array, array_module

DEVICE = "any"


def relu(x: Array) -> Array:
    """See :func:`minires_kernels.activation.relu`."""
    xp = array_module(x)
    return xp.maximum(x, 0, out=xp.empty_like(x))


def relu_backward(grad_output: Array, output: Array) -> Array:
    """See :func:`minires_kernels.activation.relu_backward`."""
    xp = array_module(grad_output)
    grad_x = xp.zeros_like(grad_output)
    xp.copyto(grad_x, grad_output, where=~(output <= 0))
    return grad_x


def add(x: Array, y: Array) -> Array:
    """See :func:`minires_kernels.activation.add`."""
    xp = array_module(x)
    return xp.add(x, y, out=xp.empty_like(x))


def add_relu(x: Array, y: Array) -> Array:
    """See :func:`minires_kernels.activation.add_relu`."""
    total = add(x, y)
    return array_module(x).maximum(total, 0, out=total)
