"""The parameter-free shortcut of residual nets where dimensions change."""

from __future__ import annotations

from minires.arguments import require_integer
from minires.function import Function
from minires.functional.checks import require_addressable, require_tensor, shapes
from minires.tensor import Tensor, apply
from minires_kernels import shortcut
from minires_kernels.arrays import Array


class SubsampleAndPad(Function):
    """Every stride-th pixel, and zeros for the channels that x doesn't have. Its adjoint puts the pixels back."""

    def __init__(self, channels: int, stride: int) -> None:
        self.channels, self.stride = channels, stride

    def forward(self, x: Array) -> Array:
        self._shape = x.shape
        return shortcut.subsample_and_pad(x, self.channels, self.stride)

    def backward(self, grad_output: Array) -> tuple[Array | None, ...]:
        return (shortcut.subsample_and_pad_backward(grad_output, self._shape, self.stride),)


def subsample_and_pad(x: Tensor, channels: int, stride: int = 1) -> Tensor:
    """He et al. 2015, section 3.3, option A: (N, C, H, W) -> (N, channels, ceil(H/stride), ceil(W/stride)).

    Takes the pixels ``x[:, :, ::stride, ::stride]`` and appends channels - C channels of zeros, behind x's own (the
    paper says "extra zero entries" and not where). Raises ValueError when ``channels`` is below C or stride below 1.
    """
    require_tensor("subsample_and_pad", "x", x, ndim=4)
    channels = require_integer("subsample_and_pad", "channels", channels)
    stride = require_integer("subsample_and_pad", "stride", stride)
    if channels < x.shape[1] or stride < 1:
        raise ValueError(
            f"subsample_and_pad: channels must be at least C = {x.shape[1]} and stride at least 1, "
            f"got channels = {channels}, stride = {stride}; {shapes(x=x)}"
        )
    require_addressable("subsample_and_pad", (x.shape[0], channels, *x.shape[2:]), x.dtype, x=x)
    return apply(SubsampleAndPad(channels, stride), x)
