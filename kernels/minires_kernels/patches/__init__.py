"""Patches: ``im2col`` lays every window of an image out as a column; ``col2im`` is its adjoint.

Contract, for each implementation:

- Column ``oh * OW + ow`` of image n holds, in row ``(c * KH + i) * KW + j``,
  ``x[n, c, oh * SH - PH + i * DH, ow * SW - PW + j * DW]``, or 0 where that lies in the padding (Chellapilla, Puri and
  Simard 2006; the layout is that of ``torch.nn.functional.unfold``).
- ``col2im`` adds each entry of ``columns`` back to the pixel that im2col read it from: the transposed linear map, so
  ``sum(im2col(x) * columns) == sum(x * col2im(columns))`` for all x and columns.
- NaN and infinities are moved as they are, and added as they are: an entry reaches its own pixel alone.
- float32 or float64, kept; any strides accepted; a new C-contiguous array returned; inputs never written.

Cost: im2col reads N C H W numbers and writes N K L of them (K = C KH KW, L = OH OW), with no arithmetic at all;
col2im reads N K L, writes N C H W, and adds N K L times.
"""

from __future__ import annotations

from minires_kernels.arrays import Array
from minires_kernels.fit import IMAGES, axes, image_shape, require, require_window
from minires_kernels.registry import select
from minires_kernels.window import Window

FAMILY = "patches"
KERNELS = {
    "im2col": ("columns n k l",),
    "col2im": ("image n c h w",),
}
"""Each kernel, with the names of its results and of their axes: what a report of a difference calls them."""


def im2col(x: Array, window: Window) -> Array:
    """Every window of ``x`` (N, C, H, W) as a column: (N, C * KH * KW, OH * OW).

    Raises ValueError when the padded image is smaller than the window.
    """
    require_window("im2col", window)
    require("im2col", x=(x, axes("im2col", "x", x, IMAGES)))
    return select(FAMILY, "im2col", x, window)(x, window)


def col2im(columns: Array, shape: tuple[int, int, int, int], window: Window) -> Array:
    """The adjoint of im2col: ``columns`` (N, C * KH * KW, OH * OW) summed back into an image (N, C, H, W).

    Raises ValueError when the columns aren't those of an image of ``shape``.
    """
    require_window("col2im", window)
    N, C, H, W = shape = image_shape("col2im", shape)
    (KH, KW), (OH, OW) = window.size, window.output_size(H, W, op="col2im")
    require("col2im", columns=(columns, (N, C * KH * KW, OH * OW)))
    return select(FAMILY, "col2im", columns, shape, window)(columns, shape, window)


def cost(kernel: str, x_shape: tuple[int, int, int, int], window: Window, itemsize: int = 4) -> tuple[int, int]:
    """(floating-point operations, bytes that must move) of one call on images of ``x_shape``."""
    N, C, H, W = x_shape
    (KH, KW), (OH, OW) = window.size, window.output_size(H, W)
    column_entries = N * C * KH * KW * OH * OW
    additions = column_entries if kernel == "col2im" else 0
    return additions, itemsize * (N * C * H * W + column_entries)
