"""Winograd's F(4x4, 3x3): 36 products where the direct sum does 144, for 3x3 windows of stride 1.

The algorithm is in ``_winograd_algorithm``; its transforms are in ``_winograd_transforms``, the loops around them in
``_winograd_loops``. ``convolution.first_choice`` takes this file where it is the fastest, but for the forward passes of
few channels.

*Registers.* The transforms take a patch of 6 x 6 vectors of channels through two passes, columns and rows. That is
more than there are registers (32 with AVX-512, 16 with AVX2): what has to wait does so on the stack, in the first-level
cache. Each of the 36 matrix products runs on tiles of outputs x channels, as in ``numba_cpu``.

*Bound.* With 16 channels, the transforms: 16 products follow each number transformed. Measured on one core with AVX2,
on data in the caches: 68 ns for a patch of 8 channels from x to V, 55 ns from M to y, while the products run at four
fifths of the rate of multiply-adds that touch no memory. From 64 channels on, the multiply-adds of the products, at
about nine tenths of that rate. With 512 channels, making the 36 / 9 times larger filters.

*Error.* Intermediate numbers exceed the result by a small factor and are rounded each time. Against float64, relative
to the largest output, the 3x3 layers of the papers' nets come to 6e-7 ... 1.2e-6 (forward, grad_input, grad_weight);
the direct sum to 2e-7 ... 2.7e-6. Two measures keep it there: the points of ``_winograd_algorithm.FILTERINGS``, and
sums over channels in pieces of 16, or of 32 in grad_input, whose rounding decides no ReLU. float64 never comes here
unasked: a gradient check has no use for speed.

*Range.* The 16 outputs of a tile are made of the same 36 products, so they share the rounding of the largest number
that any of them sees. Beside one pixel of 10^5 among pixels around 1, the outputs of its tile that don't see it are
wrong by 5e-3 (10^4: 6e-4; 10^3: 6e-5), where the direct sum has 5e-6; those that do see it, by 1.6e-2 in either. Where
all that an output sees is 0, it may become 1e-7 times what its tile's others are. Infinities and NaN don't spread that
way: whatever isn't finite in the result makes ``_winograd`` compute all of it again by the direct sum, and seeing that
costs nothing that could be measured (old and new alternated: 0.91 to 1.06 of the time). To find a wide range beforehand
x had to be read once more: 9 % of a forward pass of 16 channels, 4 % of one of 64, for what activations and gradients
between batch norms don't have. So that isn't done. Data of such a range wants ``using("numba_cpu")``.
"""

from __future__ import annotations

from typing import Any

from minires_kernels.arrays import Array
from minires_kernels.convolution import _winograd
from minires_kernels.window import Window

DEVICE = "cpu"
PREFERENCE = 5
TOLERANCE = {"float32": 4e-6, "float64": 1e-12}
"""A few channels average the rounding of the transforms less than the layers above; float64 has digits to spare."""


def covers(kernel: str, *arguments: Any) -> bool:
    """3x3 windows of stride 1, dilation 1, padding 0 to 2, without groups."""
    return _winograd.covers(4, *arguments[-2:])


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
