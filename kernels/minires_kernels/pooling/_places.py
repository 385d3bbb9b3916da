"""What ``max_pool_backward`` refuses, whoever computes it: a place outside the image.

To look at all places beforehand would cost a tenth of the kernel's time, or make a GPU wait; so it is up to the
implementations when they look.
"""

from __future__ import annotations

from minires_kernels.arrays import Array
from minires_kernels.fit import require_integers


def require_places(argmax: Array, x_shape: tuple[int, int, int, int]) -> None:
    """Raise ValueError if some place isn't h * W + w of a pixel, nor -1: none."""
    require_integers("max_pool_backward", "argmax", argmax, -1, x_shape[2] * x_shape[3])
