"""Activation: ReLU, addition and their fusion. The smallest family, and the one to read first.

Contract, for each implementation:

- ``relu(x)`` is max(x, 0), elementwise. ``relu_backward(grad_output, output)`` is grad_output where output > 0, else 0:
  the slope at exactly 0 is taken to be 0, as everyone does.
- ``add(x, y)`` is x + y for equal shapes; ``add_relu(x, y)`` is relu(x + y): the end of a residual block (He et al.
  2015, eq. 1 followed by the second nonlinearity). Its backward is relu_backward, once, for both operands.
- NaN and infinities: relu keeps a NaN, and relu_backward lets the gradient pass there, as PyTorch does, so that neither
  hides one; elsewhere the gradient is chosen, not multiplied: where output <= 0 it is 0, were it infinite or NaN.
- float32 or float64, kept; arrays of any (equal) shape and any strides; the result is new and lies in memory as the
  first operand does. Inputs are never written.

Cost: relu moves 2 numbers an element, the others 3; one operation an element (two for add_relu). Bound by memory.
"""

from __future__ import annotations

from minires_kernels.arrays import Array
from minires_kernels.fit import require_alike
from minires_kernels.registry import select

FAMILY = "activation"
KERNELS = {
    "relu": ("y",),
    "relu_backward": ("grad_x",),
    "add": ("sum",),
    "add_relu": ("y",),
}
"""Each kernel, with the names of its results and of their axes: what a report of a difference calls them."""


def relu(x: Array) -> Array:
    """max(x, 0), elementwise."""
    require_alike("activation.relu", x=x)
    return select(FAMILY, "relu", x)(x)


def relu_backward(grad_output: Array, output: Array) -> Array:
    """``grad_output`` where ``output``, the result of the ReLU, is positive (or NaN); 0 elsewhere."""
    require_alike("activation.relu_backward", grad_output=grad_output, output=output)
    return select(FAMILY, "relu_backward", grad_output, output)(grad_output, output)


def add(x: Array, y: Array) -> Array:
    """x + y, elementwise, for arrays of one shape and dtype."""
    require_alike("activation.add", x=x, y=y)
    return select(FAMILY, "add", x, y)(x, y)


def add_relu(x: Array, y: Array) -> Array:
    """max(x + y, 0), elementwise, for arrays of one shape and dtype."""
    require_alike("activation.add_relu", x=x, y=y)
    return select(FAMILY, "add_relu", x, y)(x, y)


def cost(kernel: str, shape: tuple[int, ...], itemsize: int = 4) -> tuple[int, int]:
    """(floating-point operations, bytes that must move) of one call on arrays of ``shape``."""
    size = 1
    for length in shape:
        size *= length
    return size * (2 if kernel == "add_relu" else 1), size * itemsize * (2 if kernel == "relu" else 3)
