"""Convolution: the cross-correlation that the field calls convolution, and the two maps of its backward pass.

Contract, for each implementation (output channel o lies in group g = o // (O / G); its weights see the input channels
``g * C / G + c``):

- ``forward``:      y[n, o, oh, ow] = sum over c, i, j of
  weight[o, c, i, j] x[n, g C/G + c, oh SH - PH + i DH, ow SW - PW + j DW], where x is 0 in the padding.
- ``grad_input``:   the adjoint of ``forward`` in x; ``grad_weight``: its adjoint in weight:
  ``sum(forward(x, w) * g) == sum(x * grad_input(g, w)) == sum(w * grad_weight(g, x))``.
- x (N, C, H, W), weight (O, C/G, KH, KW), grad_output (N, O, OH, OW); float32 or float64, kept; any strides accepted;
  new arrays returned, of logical shape NCHW / OIHW and physical layout of the implementation's choice; inputs never
  written; N = 0 gives an empty output and a zero grad_weight. Shapes have been checked by the caller.

Cost of each of the three: 2 N O L K floating-point operations (K = C/G KH KW, L = OH OW), and at least
N C H W + O K + N O L numbers moved. Fast algorithms (Winograd) do fewer operations; benchmarks count these.
"""

from __future__ import annotations

from typing import Any

from minires_kernels.arrays import Array
from minires_kernels.registry import select
from minires_kernels.window import Window

FAMILY = "convolution"
KERNELS = ("forward", "grad_input", "grad_weight")


def forward(x: Array, weight: Array, window: Window, groups: int = 1) -> Array:
    """``weight`` (O, C/G, KH, KW) slid over ``x`` (N, C, H, W): (N, O, OH, OW)."""
    OH, OW = window.output_size(x.shape[2], x.shape[3], op="convolution")
    first = first_choice(x.dtype, x.shape[1], weight.shape[0], x.shape[0] * OH * OW, window, groups, forward=True)
    return select(FAMILY, "forward", x, weight, window, groups, first=first)(x, weight, window, groups)


def grad_input(
    grad_output: Array, weight: Array, x_shape: tuple[int, int, int, int], window: Window, groups: int = 1
) -> Array:
    """The gradient with respect to x, of ``x_shape`` (N, C, H, W), for ``grad_output`` (N, O, OH, OW)."""
    N, O, OH, OW = grad_output.shape
    first = first_choice(grad_output.dtype, x_shape[1], O, N * OH * OW, window, groups)
    kernel = select(FAMILY, "grad_input", grad_output, weight, x_shape, window, groups, first=first)
    return kernel(grad_output, weight, x_shape, window, groups)


def grad_weight(grad_output: Array, x: Array, window: Window, groups: int = 1) -> Array:
    """The gradient with respect to the weight, (O, C/G, KH, KW), for ``grad_output`` (N, O, OH, OW)."""
    N, O, OH, OW = grad_output.shape
    first = first_choice(x.dtype, x.shape[1], O, N * OH * OW, window, groups)
    return select(FAMILY, "grad_weight", grad_output, x, window, groups, first=first)(grad_output, x, window, groups)


def first_choice(
    dtype: Any, C: int, O: int, pixels: int, window: Window, groups: int, *, forward: bool = False
) -> str | None:
    """The algorithm to try first on a CPU, or None: the usual order of preference. ``pixels`` is N OH OW.

    A 3x3 convolution of stride 1 goes to Winograd's F(4x4, 3x3), which does 36 products where the direct sum does 144,
    unless there are too few pixels or channels to pay for the transforms. Time of the direct sum over time of
    F(4x4, 3x3), two threads, AVX2 (forward, grad_input, grad_weight):

    ========  =====  ================  =================
    channels  H = W  few pixels        many
    ========  =====  ================  =================
    16        32     *256: 0.9 1.0 0.9   131072: 1.6 1.5 1.7
    64        8       128: 1.4 1.4 1.2     8192: 2.6 2.7 3.3
    256       14      196: 1.7 1.8 1.9      392: 1.6 1.8 2.2
    512       7        98: 1.7 1.8 1.8      392: 1.9 2.0 2.9
    ========  =====  ================  =================

    (* one image of 16 x 16.) float64 is for checking gradients, so it stays with the plain sum. Fewer than 16 channels
    leave the transforms without enough products to pay for them.

    ``forward`` with fewer than 32 channels goes to F(2x2, 3x3), which rounds a third as much. What a forward pass
    rounds decides which ReLUs pass a gradient, and layers of few channels and many pixels have most of these. On
    ResNet-20 and ResNet-56 this halves the error of the whole gradient, to that of PyTorch, and a step takes 2 %
    longer (F(2x2) in all forward passes: 5 % longer, and no better on ResNet-56).
    """
    winograd = window == Window((3, 3), padding=window.padding) and dtype == "float32" and groups == 1
    if not winograd or min(C, O) < 16 or pixels < max(96, 8192 // min(C, O)):
        return None
    return "winograd2_cpu" if forward and min(C, O) < 32 else "winograd4_cpu"


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
