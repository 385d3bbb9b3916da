"""Shortcut: the parameter-free way past a block that changes dimensions (He et al. 2015, section 3.3, option A).

Contract, for each implementation:

- ``subsample_and_pad``: y[n, c, oh, ow] = x[n, c, oh stride, ow stride] for c < C, and 0 for C <= c < channels;
  x (N, C, H, W) -> (N, channels, ceil(H / stride), ceil(W / stride)).
- ``subsample_and_pad_backward``, its adjoint: grad_x[n, c, h, w] = grad_output[n, c, h / stride, w / stride] where
  stride divides both h and w, else 0; the channels that x doesn't have are dropped.
- NaN and infinities are moved as they are; the zeros are written, not made by multiplying.
- float32 or float64, kept; any strides accepted; a new array returned, channels-last in memory, the layout in which the
  convolutions around a shortcut work; inputs never written. channels >= C and stride >= 1 are checked here.

Cost: no arithmetic; every number of the result is written, and every one that is kept is read. Bound by memory.
"""

from __future__ import annotations

from minires_kernels.arrays import Array
from minires_kernels.fit import IMAGES, axes, image_shape, integer, require
from minires_kernels.registry import select

FAMILY = "shortcut"
KERNELS = {
    "subsample_and_pad": ("y n c oh ow",),
    "subsample_and_pad_backward": ("grad_x n c h w",),
}
"""Each kernel, with the names of its results and of their axes: what a report of a difference calls them."""


def subsample_and_pad(x: Array, channels: int, stride: int) -> Array:
    """Every ``stride``-th pixel of ``x`` (N, C, H, W), and zeros up to ``channels`` channels.

    Raises ValueError for fewer channels than x has and for strides below 1.
    """
    shape = axes("subsample_and_pad", "x", x, IMAGES)
    require("subsample_and_pad", x=(x, shape))
    channels = integer("subsample_and_pad", "channels", channels, shape[1])
    stride = integer("subsample_and_pad", "stride", stride, 1)
    return select(FAMILY, "subsample_and_pad", x, channels, stride)(x, channels, stride)


def subsample_and_pad_backward(grad_output: Array, x_shape: tuple[int, int, int, int], stride: int) -> Array:
    """The gradient with respect to x, of ``x_shape`` (N, C, H, W): the pixels put back, zeros between them.

    Raises ValueError for a grad_output that isn't (N, channels, ceil(H / stride), ceil(W / stride)).
    """
    op = "subsample_and_pad_backward"
    x_shape, channels = image_shape(op, x_shape), axes(op, "grad_output", grad_output, IMAGES)[1]
    (N, C, H, W), stride = x_shape, integer(op, "stride", stride, 1)
    if channels < C:
        raise ValueError(f"{op}: grad_output must have the channels of x {x_shape} or more, got {grad_output.shape}")
    require(op, grad_output=(grad_output, (N, channels, -(-H // stride), -(-W // stride))))
    kernel = select(FAMILY, "subsample_and_pad_backward", grad_output, x_shape, stride)
    return kernel(grad_output, x_shape, stride)


def cost(
    kernel: str, x_shape: tuple[int, int, int, int], channels: int, stride: int, itemsize: int = 4
) -> tuple[int, int]:
    """(floating-point operations, bytes that must move) of one call."""
    N, C, H, W = x_shape
    pixels = -(-H // stride) * -(-W // stride)
    written = N * H * W * C if kernel == "subsample_and_pad_backward" else N * pixels * channels
    return 0, itemsize * (N * pixels * C + written)
