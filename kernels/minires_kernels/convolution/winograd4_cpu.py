"""Winograd's F(4x4, 3x3): 36 products where the direct sum does 144, for 3x3 windows of stride 1.

The algorithm, its loops and what lies where in memory are in ``_winograd_loops``. ``convolution.first_choice`` takes
this file where it is the fastest.

*Registers.* The transforms hold a patch of 6 x 6 vectors of channels (four more than there are registers with AVX-512:
a few wait on the stack), and write it once. Each of the 36 matrix products runs on tiles of outputs x channels, as in
``numba_cpu``.

*Bound.* With 16 channels, memory and the transforms: 16 products follow each number transformed. From 64 channels on,
the multiply-adds of the products. With 512 channels the 36 / 9 times larger filters, which don't fit the cache.

*Error.* The transforms add and subtract numbers up to 8 times larger than the result and round each time. Against
float64, relative to the largest output, the 3x3 layers of the papers' nets come to 3e-6 ... 1.5e-5 (forward and
grad_input) and 2e-6 ... 4e-6 (grad_weight); the direct sum to 3e-7 ... 3e-6. That is no more than what a float32
network loses elsewhere, and too much for a gradient check, which is why float64 never comes here unasked.
"""

from __future__ import annotations

from minires_kernels.arrays import Array
from minires_kernels.convolution import _winograd
from minires_kernels.convolution._winograd import covers
from minires_kernels.window import Window

DEVICE = "cpu"
PREFERENCE = 5
TOLERANCE = {"float32": 3e-5, "float64": 1e-12}
"""Twice the largest error measured, for the reason above; float64 has digits to spare."""

__all__ = ["covers", "forward", "grad_input", "grad_weight"]


def forward(x: Array, weight: Array, window: Window, groups: int = 1) -> Array:
    """See :func:`minires_kernels.convolution.forward`. Returns channels last."""
    return _winograd.forward(4, x, weight, window, groups)


def grad_input(
    grad_output: Array, weight: Array, x_shape: tuple[int, int, int, int], window: Window, groups: int = 1
) -> Array:
    """See :func:`minires_kernels.convolution.grad_input`. Returns channels last."""
    return _winograd.grad_input(4, grad_output, weight, x_shape, window, groups)


def grad_weight(grad_output: Array, x: Array, window: Window, groups: int = 1) -> Array:
    """See :func:`minires_kernels.convolution.grad_weight`. Returns a contiguous (O, C, 3, 3)."""
    return _winograd.grad_weight(4, grad_output, x, window, groups)
