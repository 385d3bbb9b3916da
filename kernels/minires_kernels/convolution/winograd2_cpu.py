"""Winograd's F(2x2, 3x3): 16 products where the direct sum does 36, for 3x3 windows of stride 1.

The algorithm: ``_winograd_algorithm``; its loops: ``_winograd_loops``, the same source as for ``winograd4_cpu``,
compiled for smaller patches.

*Registers.* A patch of 4 x 4 vectors of channels stays in registers through its transform.

*Bound.* Memory and transforms: each number transformed feeds fewer products than with F(4x4, 3x3), so that this is the
slower one almost everywhere. It is here for its error, for which ``convolution.first_choice`` takes it in forward
passes of few channels, and because it is the one to read first.

*Error.* Its transforms only add, subtract and halve: 2e-7 ... 5e-7 against float64, relative to the largest output, on
the 3x3 layers of the papers' nets, less than the direct sum, which adds up more terms in one go.
"""

from __future__ import annotations

from minires_kernels.arrays import Array
from minires_kernels.convolution import _winograd
from minires_kernels.convolution._winograd import covers
from minires_kernels.window import Window

DEVICE = "cpu"
PREFERENCE = 5

__all__ = ["covers", "forward", "grad_input", "grad_weight"]


def forward(x: Array, weight: Array, window: Window, groups: int = 1) -> Array:
    """See :func:`minires_kernels.convolution.forward`. Returns channels last."""
    return _winograd.forward(2, x, weight, window, groups)


def grad_input(
    grad_output: Array, weight: Array, x_shape: tuple[int, int, int, int], window: Window, groups: int = 1
) -> Array:
    """See :func:`minires_kernels.convolution.grad_input`. Returns channels last."""
    return _winograd.grad_input(2, grad_output, weight, x_shape, window, groups)


def grad_weight(grad_output: Array, x: Array, window: Window, groups: int = 1) -> Array:
    """See :func:`minires_kernels.convolution.grad_weight`. Returns a contiguous (O, C, 3, 3)."""
    return _winograd.grad_weight(2, grad_output, x, window, groups)
