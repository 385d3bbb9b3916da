"""Convolution: the cross-correlation that the field calls convolution, and the two maps of its backward pass.

Contract, for each implementation (output channel o lies in group g = o // (O / G); its weights see the input channels
``g * C / G + c``):

- ``forward``:      y[n, o, oh, ow] = sum over c, i, j of
  weight[o, c, i, j] x[n, g C/G + c, oh SH - PH + i DH, ow SW - PW + j DW], where x is 0 in the padding.
- ``grad_input``:   the adjoint of ``forward`` in x; ``grad_weight``: its adjoint in weight:
  ``sum(forward(x, w) * g) == sum(x * grad_input(g, w)) == sum(w * grad_weight(g, x))``.
- NaN and infinities: one in x or grad_output reaches the results whose sum meets it, and no other; in grad_weight, and
  for one in weight, a sum may meet it in the padding too, where it is multiplied by 0, which makes NaN. Algorithms that
  mix numbers (Winograd) see to it by computing again without mixing.
- x (N, C, H, W), weight (O, C/G, KH, KW), grad_output (N, O, OH, OW); float32 or float64, kept; any strides accepted;
  new arrays returned, of logical shape NCHW / OIHW and physical layout of the implementation's choice; inputs never
  written; N = 0 gives an empty output and a zero grad_weight; a sum over no channels is 0. Shapes are checked here.

Cost of each of the three: 2 N O L K floating-point operations (K = C/G KH KW, L = OH OW), and at least
N C H W + O K + N O L numbers moved. Fast algorithms (Winograd) do fewer operations; benchmarks count these.
"""

from __future__ import annotations

from math import ceil
from typing import Any, NamedTuple

from minires_kernels.arrays import Array
from minires_kernels.fit import IMAGES, WEIGHTS, Shape, axes, image_shape, integer, require, require_window
from minires_kernels.registry import select
from minires_kernels.window import Window

FAMILY = "convolution"
KERNELS = {
    "forward": ("y n o oh ow",),
    "grad_input": ("grad_x n c h w",),
    "grad_weight": ("grad_weight o c kh kw",),
}
"""Each kernel, with the names of its results and of their axes: what a report of a difference calls them."""


def forward(x: Array, weight: Array, window: Window, groups: int = 1) -> Array:
    """``weight`` (O, C/G, KH, KW) slid over ``x`` (N, C, H, W): (N, O, OH, OW).

    Raises ValueError for shapes, groups or a window that don't fit, TypeError for mixed dtypes.
    """
    N, C, H, W = shape = axes("convolution.forward", "x", x, IMAGES)
    weight_shape, groups = _weight_shape("convolution.forward", weight, C, window, groups)
    require("convolution.forward", x=(x, shape), weight=(weight, weight_shape))
    OH, OW = window.output_size(H, W, op="convolution.forward")
    first = first_choice("forward", x.dtype, (C, weight_shape[0]), (N, OH, OW), window, groups)
    return select(FAMILY, "forward", x, weight, window, groups, first=first.name)(x, weight, window, groups)


def grad_input(
    grad_output: Array, weight: Array, x_shape: tuple[int, int, int, int], window: Window, groups: int = 1
) -> Array:
    """The gradient with respect to x, of ``x_shape`` (N, C, H, W), for ``grad_output`` (N, O, OH, OW).

    Raises as :func:`forward` does, and ValueError when ``grad_output`` isn't of the shape that forward gives.
    """
    N, C, H, W = x_shape = image_shape("convolution.grad_input", x_shape)
    weight_shape, groups = _weight_shape("convolution.grad_input", weight, C, window, groups)
    OH, OW = window.output_size(H, W, op="convolution.grad_input")
    output = N, weight_shape[0], OH, OW
    require("convolution.grad_input", grad_output=(grad_output, output), weight=(weight, weight_shape))
    first = first_choice("grad_input", grad_output.dtype, (C, weight_shape[0]), (N, OH, OW), window, groups)
    kernel = select(FAMILY, "grad_input", grad_output, weight, x_shape, window, groups, first=first.name)
    return kernel(grad_output, weight, x_shape, window, groups)


def grad_weight(grad_output: Array, x: Array, window: Window, groups: int = 1) -> Array:
    """The gradient with respect to the weight, (O, C/G, KH, KW), for ``grad_output`` (N, O, OH, OW).

    Raises as :func:`grad_input` does.
    """
    N, C, H, W = shape = axes("convolution.grad_weight", "x", x, IMAGES)
    O = axes("convolution.grad_weight", "grad_output", grad_output, IMAGES)[1]
    groups = _checked_groups("convolution.grad_weight", C, O, window, groups)
    OH, OW = window.output_size(H, W, op="convolution.grad_weight")
    require("convolution.grad_weight", grad_output=(grad_output, (N, O, OH, OW)), x=(x, shape))
    first = first_choice("grad_weight", x.dtype, (C, O), (N, OH, OW), window, groups)
    return select(FAMILY, "grad_weight", grad_output, x, window, groups, first=first.name)(
        grad_output, x, window, groups
    )


def _weight_shape(op: str, weight: Array, C: int, window: Window, groups: int) -> tuple[Shape, int]:
    """The shape that a weight of as many channels out must have, and the groups."""
    O = axes(op, "weight", weight, WEIGHTS)[0]
    groups = _checked_groups(op, C, O, window, groups)
    return (O, C // groups, *window.size), groups


def _checked_groups(op: str, C: int, O: int, window: Window, groups: int) -> int:
    require_window(op, window)
    groups = integer(op, "groups", groups, 1)
    if C % groups or O % groups:
        raise ValueError(f"{op}: groups must be a positive divisor of the channels in and out, got groups = {groups} "
                         f"with C = {C} and O = {O}")  # fmt: skip
    return groups


class Choice(NamedTuple):
    """Which algorithm is tried first, None for the usual order of preference, and why, though another may be faster."""

    name: str | None
    why: str


OTHER_WORK = Choice(None, "Winograd's algorithms are for 3x3 windows, strides 1 and 2, float32 and one group")
TOO_LITTLE_WORK = Choice(None, "too few channels or pixels to pay for Winograd's transforms")
TILES_STICK_OUT = Choice(None, "tiles that stick out of the image would cost the products that Winograd saves")
TWOS_OF_STRIDE_2 = Choice("winograd2_cpu", "25 products instead of 36")
EXACT = Choice(
    "winograd2_cpu",
    "rounds a third as much as F(4x4): in forward passes of few channels that halves the error of a whole net's "
    "gradient, for a step that takes 2 % longer",
)
TWOS = Choice("winograd2_cpu", "tiles of 4x4 stick out, so it is about as fast as F(4x4), and rounds a third as much")
FOURS = Choice("winograd4_cpu", "36 products instead of 144")


def first_choice(
    kernel: str, dtype: Any, channels: tuple[int, int], output: tuple[int, int, int], window: Window, groups: int
) -> Choice:
    """The algorithm to try first on a CPU, and why.

    ``channels``: in and out; ``output``: N, OH and OW. Winograd's algorithms do fewer products than the direct sum, for
    3x3 windows, unless there are too few pixels or channels to pay for the transforms: 36 where that does 144 for
    4 x 4 outputs, F(4x4); 16 where that does 36 for 2 x 2, F(2x2); and 25 of 36 for 2 x 2 outputs of stride 2. Time of
    the direct sum over time of F(4x4), or of F(2x2) with stride 2, two threads, AVX2 (forward, grad_input,
    grad_weight):

    ==========  =====  ====================  ====================
    channels    H = W  few pixels            many
    ==========  =====  ====================  ====================
    16          32     *256: 0.9  1.0  0.9   131072: 1.6 1.5 1.7
    64          8      128: 1.4  1.4  1.2    8192: 2.6 2.7 3.3
    256         14     196: 1.7  1.8  1.9    392: 1.6 1.8 2.2
    512         7      98: 1.7  1.8  1.8     392: 1.9 2.0 2.9
    16, 32 /2   32     2048: 1.0  1.0  1.2   32768: 0.9 1.0 1.2
    32, 64 /2   16     512: 1.1  1.1  1.2    8192: 1.1 1.1 1.2
    64, 128 /2  56     784: 1.2  1.1  1.2    6272: 1.1 1.2 1.3
    128, 256 /2 28     196: 1.1  1.1  1.2    6272: 1.4 1.3 1.3
    256, 512 /2 14     392: 0.9  0.9  1.3    3136: 0.7 0.9 1.0
    ==========  =====  ====================  ====================

    (* one image of 16 x 16.) float64 is for checking gradients, so it stays with the plain sum. Fewer than 16 channels
    leave the transforms without enough products to pay for them.

    - *Tiles that stick out* cost products for nothing. In the last line, with outputs of 7 x 7, that is almost half of
      them, and only grad_weight, with more channels out than pixels, is still faster. With outputs of 14 x 14 it is so
      for tiles of 4 x 4 and stride 1: there F(2x2) is about as fast as F(4x4) in forward and grad_input (0.9 to 1.2, by
      the batch) and rounds a third as much.
    - ``forward`` of stride 1 *with fewer than 32 channels* goes to F(2x2). What a forward pass rounds decides which
      ReLUs pass a gradient, and layers of few channels and many pixels have most of these. On ResNet-20 and ResNet-56
      this halves the error of the whole gradient, to that of PyTorch, and a step takes 2 % longer (F(2x2) in all
      forward passes: 5 % longer, and no better on ResNet-56).
    """
    (N, OH, OW), fewest, stride = output, min(channels), window.stride
    pixels = N * OH * OW
    if window.size != (3, 3) or window.dilation != (1, 1) or dtype != "float32" or groups != 1:
        return OTHER_WORK
    if fewest < 16 or pixels < max(96, 8192 // fewest):
        return TOO_LITTLE_WORK
    twos, fours = (ceil(OH / m) * ceil(OW / m) for m in (2, 4))
    if stride == (2, 2) and (fewest >= 32 or kernel == "grad_weight"):
        most = 0.95 if kernel == "grad_weight" and pixels < max(channels) else 0.8
        return TWOS_OF_STRIDE_2 if 25 * twos <= most * 9 * OH * OW else TILES_STICK_OUT
    if stride == (1, 1):
        if kernel == "forward" and fewest < 32:
            return EXACT
        return TWOS if 16 * twos <= 1.4 * 36 * fours and kernel != "grad_weight" else FOURS
    return OTHER_WORK


def cost(
    x_shape: tuple[int, int, int, int],
    weight_shape: tuple[int, int, int, int],
    window: Window,
    itemsize: int = 4,
) -> tuple[int, int]:
    """(floating-point operations of the direct sum, bytes that must move) of one call of any of the three kernels."""
    N, C, H, W = x_shape
    O, group_channels, KH, KW = weight_shape
    OH, OW = window.output_size(H, W)
    moved = N * C * H * W + O * group_channels * KH * KW + N * O * OH * OW
    return 2 * N * O * OH * OW * group_channels * KH * KW, itemsize * moved
