"""Pooling: the maximum or the average of each window, and their backwards.

Contract, for each implementation (positions and ``ceil_mode`` as :meth:`minires_kernels.Window.output_size` says):

- ``max_pool`` also returns ``argmax`` (int32, like y): the flat index h * W + w of the maximum in its image plane, the
  first one in row order on ties; padding never wins; a NaN wins. ``max_pool_backward`` adds each grad_output there.
  A window all of whose taps lie in the padding (a dilated one can) gives -inf and argmax -1, and passes no gradient.
- ``avg_pool`` divides by the number of taps of the window that lie in the padded image (``count_include_pad``) or in
  the image itself (0 if there are none); ``ceil_mode`` windows that stick out of the padded image don't count what
  sticks out. That is PyTorch's rule.
- NaN and infinities: max_pool gives the window's first NaN, else its first largest number, be it infinite, and backward
  gives its pixel alone the gradient; avg_pool and its backward carry one to the windows, or pixels, that see it.
- x (N, C, H, W) float32 or float64, kept; any strides; new arrays; inputs never written.

Cost: N C OH OW KH KW comparisons or additions; forward reads x and writes y, backward the reverse.
"""

from __future__ import annotations

from minires_kernels.arrays import Array
from minires_kernels.fit import IMAGES, axes, flag, image_shape, require, require_window
from minires_kernels.registry import select
from minires_kernels.window import Window

FAMILY = "pooling"
KERNELS = {
    "max_pool": ("y n c oh ow", "argmax n c oh ow"),
    "max_pool_backward": ("grad_x n c h w",),
    "avg_pool": ("y n c oh ow",),
    "avg_pool_backward": ("grad_x n c h w",),
}
"""Each kernel, with the names of its results and of their axes: what a report of a difference calls them."""


def max_pool(x: Array, window: Window, ceil_mode: bool = False) -> tuple[Array, Array]:
    """(y, argmax), both (N, C, OH, OW): the largest number of each window of ``x`` (N, C, H, W) and where it was.

    Raises ValueError when the window doesn't fit into the padded image, or the image has more pixels than int32 counts.
    """
    shape = axes("max_pool", "x", x, IMAGES)
    require("max_pool", x=(x, shape))
    require_window("max_pool", window)
    ceil_mode = flag("max_pool", "ceil_mode", ceil_mode)
    if shape[2] * shape[3] >= 1 << 31:
        raise ValueError(f"max_pool: an image of x {shape} has 2^31 pixels or more, but places in it are int32")
    return select(FAMILY, "max_pool", x, window, ceil_mode)(x, window, ceil_mode)  # type: ignore[no-any-return]


def max_pool_backward(grad_output: Array, argmax: Array, x_shape: tuple[int, int, int, int]) -> Array:
    """``grad_output`` (N, C, OH, OW) added to the pixels that ``argmax`` names, in an array of ``x_shape``.

    Raises ValueError when the shapes don't fit each other, or argmax (int32, as ``max_pool`` gives it) names a pixel
    that isn't there. The latter is up to the implementations: to look at all places first would cost a CPU a tenth of
    the kernel's time, and make a GPU wait.
    """
    N, C, _, _ = x_shape = image_shape("max_pool_backward", x_shape)
    shape = axes("max_pool_backward", "grad_output", grad_output, IMAGES)
    require("max_pool_backward", grad_output=(grad_output, (N, C, *shape[2:])))
    if axes("max_pool_backward", "argmax", argmax, IMAGES) != shape or argmax.dtype != "int32":
        raise ValueError(f"max_pool_backward: argmax must be int32 and like grad_output, {shape}, got {argmax.shape} "
                         f"{argmax.dtype}; pass what max_pool returned")  # fmt: skip
    return select(FAMILY, "max_pool_backward", grad_output, argmax, x_shape)(grad_output, argmax, x_shape)


def avg_pool(x: Array, window: Window, ceil_mode: bool = False, count_include_pad: bool = True) -> Array:
    """The mean of each window of ``x`` (N, C, H, W): (N, C, OH, OW). The window's dilation is 1.

    Raises ValueError for another dilation, and when the window doesn't fit into the padded image.
    """
    require("avg_pool", x=(x, axes("avg_pool", "x", x, IMAGES)))
    ceil_mode, count_include_pad = _checked_options("avg_pool", window, ceil_mode, count_include_pad)
    return select(FAMILY, "avg_pool", x, window, ceil_mode, count_include_pad)(x, window, ceil_mode, count_include_pad)


def avg_pool_backward(
    grad_output: Array,
    x_shape: tuple[int, int, int, int],
    window: Window,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
) -> Array:
    """The adjoint of ``avg_pool``: each ``grad_output`` (N, C, OH, OW) shared equally among the taps of its window.

    Raises ValueError for a grad_output that isn't of ``avg_pool``'s shape for an image of ``x_shape``.
    """
    N, C, H, W = x_shape = image_shape("avg_pool_backward", x_shape)
    ceil_mode, count_include_pad = _checked_options("avg_pool_backward", window, ceil_mode, count_include_pad)
    output = window.output_size(H, W, ceil_mode=ceil_mode, op="avg_pool_backward")
    require("avg_pool_backward", grad_output=(grad_output, (N, C, *output)))
    kernel = select(FAMILY, "avg_pool_backward", grad_output, x_shape, window, ceil_mode, count_include_pad)
    return kernel(grad_output, x_shape, window, ceil_mode, count_include_pad)


def _checked_options(op: str, window: Window, ceil_mode: bool, count_include_pad: bool) -> tuple[bool, bool]:
    require_window(op, window)
    if window.dilation != (1, 1):
        raise ValueError(f"{op}: the window's dilation must be 1, got {window.dilation}")
    return flag(op, "ceil_mode", ceil_mode), flag(op, "count_include_pad", count_include_pad)


def cost(
    kernel: str, x_shape: tuple[int, int, int, int], window: Window, ceil_mode: bool = False, itemsize: int = 4
) -> tuple[int, int]:
    """(operations, bytes that must move) of one call on images of ``x_shape``; argmax counts 4 bytes an entry."""
    N, C, H, W = x_shape
    (KH, KW), (OH, OW) = window.size, window.output_size(H, W, ceil_mode=ceil_mode)
    outputs = N * C * OH * OW
    index_bytes = 4 * outputs if kernel.startswith("max") else 0
    operations = outputs if kernel == "max_pool_backward" else outputs * KH * KW
    return operations, itemsize * (N * C * H * W + outputs) + index_bytes
