"""Winograd's F(2x2, 3x3): 16 products where the direct sum does 36; 25 where the stride is 2.

For 3x3 windows of stride 1, or of stride 2 with padding 1. The algorithms: ``_winograd_algorithm``; their transforms
and loops: ``_winograd_transforms`` and ``_winograd_loops``, the same source as for ``winograd4_cpu``, compiled for
other patches.

*Registers.* A patch of 4 x 4 vectors of channels stays in registers through its transform; of the 5 x 5 of stride 2,
some wait on the stack where there are only 16 registers.

*Bound.* Memory and transforms: each number transformed feeds fewer products than with F(4x4, 3x3), so that for stride 1
this is the slower one almost everywhere. It is here for its error, for which ``convolution.first_choice`` takes it in
forward passes of few channels; for images whose sides aren't near a multiple of 4; and because it is the one to read
first. For stride 2 there is no larger one here. It saves 11 products of 36, and its filters are 25 / 9 times as large:
with 512 channels and images of 7 x 7 the direct sum is faster.

*Error.* Its transforms only add, subtract and halve: 2e-7 ... 5e-7 against float64, relative to the largest output, on
the 3x3 layers of the papers' nets, less than the direct sum, which adds up more terms in one go. No pixel enters an
output that doesn't see it, so a tile's outputs don't share their rounding, as those of F(4x4, 3x3) do.
"""

from __future__ import annotations

from typing import Any

from minires_kernels.arrays import Array
from minires_kernels.convolution import _winograd
from minires_kernels.window import Window

DEVICE = "cpu"
PREFERENCE = 5


def covers(kernel: str, *arguments: Any) -> bool:
    """3x3 windows of stride 1, dilation 1, padding 0 to 2, without groups; of stride 2 with padding 1."""
    return _winograd.covers(2, *arguments[-2:])


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
