"""Subsampling and padding with zeros by array slicing."""

from __future__ import annotations

from minires_kernels.arrays import Array, array_module

DEVICE = "any"


def subsample_and_pad(x: Array, channels: int, stride: int) -> Array:
    """See :func:`minires_kernels.shortcut.subsample_and_pad`."""
    pixels = x.transpose(0, 2, 3, 1)[:, ::stride, ::stride]  # (N, OH, OW, C)
    N, OH, OW, C = pixels.shape
    output = array_module(x).zeros((N, OH, OW, channels), x.dtype)
    output[..., :C] = pixels
    return output.transpose(0, 3, 1, 2)


def subsample_and_pad_backward(grad_output: Array, x_shape: tuple[int, int, int, int], stride: int) -> Array:
    """See :func:`minires_kernels.shortcut.subsample_and_pad_backward`."""
    N, C, H, W = x_shape
    grad_x = array_module(grad_output).zeros((N, H, W, C), grad_output.dtype)
    grad_x[:, ::stride, ::stride] = grad_output[:, :C].transpose(0, 2, 3, 1)
    return grad_x.transpose(0, 3, 1, 2)
