"""Pooling: the maximum or the mean of windows, and the mean of a grid of regions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, overload

from minires.arguments import require_flag
from minires.function import Function
from minires.functional.checks import batch_of_images, require_addressable, require_image_fits, shapes, without_batch
from minires.tensor import Tensor, apply
from minires_kernels import Window, pooling
from minires_kernels.arrays import Array, array_module, total
from minires_kernels.window import Pair, as_pair


class MaxPool2d(Function):
    """The maximum of each window; the pixel that won (the first of equals) gets the gradient."""

    def __init__(self, window: Window, ceil_mode: bool, return_indices: bool = False) -> None:
        self.window, self.ceil_mode = window, ceil_mode
        self._returns_indices = return_indices

    def forward(self, x: Array) -> Array:
        self._shape = x.shape
        output, argmax = pooling.max_pool(x, self.window, self.ceil_mode)  # (N, C, OH, OW), twice
        self.save_for_backward(argmax=argmax)
        self._indices = argmax if self._returns_indices else None
        return output

    def take_indices(self) -> Array:
        """Where each maximum is, h W + w, in int64; to be asked for once, if it was made with ``return_indices``."""
        indices, self._indices = self._indices, None
        assert indices is not None
        return indices.astype("int64")

    def backward(self, grad_output: Array) -> tuple[Array | None, ...]:
        return (pooling.max_pool_backward(grad_output, self.saved.argmax, self._shape),)

    def signature(self) -> Array:
        return self.saved.argmax


class AvgPool2d(Function):
    """The mean of each window, a linear map; its adjoint shares each gradient equally among the window's taps."""

    def __init__(self, window: Window, ceil_mode: bool, count_include_pad: bool) -> None:
        self.window, self.ceil_mode, self.count_include_pad = window, ceil_mode, count_include_pad

    def forward(self, x: Array) -> Array:
        self._shape = x.shape
        return pooling.avg_pool(x, self.window, self.ceil_mode, self.count_include_pad)

    def backward(self, grad_output: Array) -> tuple[Array | None, ...]:
        options = self.window, self.ceil_mode, self.count_include_pad
        return (pooling.avg_pool_backward(grad_output, self._shape, *options),)


class AdaptiveAvgPool2d(Function):
    """The means of a grid of OH x OW regions that cover the image; row oh spans floor(oh H/OH) to ceil((oh+1) H/OH)."""

    def __init__(self, output_size: Pair) -> None:
        self.output_size = output_size

    def _regions(self, H: int, W: int) -> list[tuple[int, int, slice, slice]]:
        OH, OW = self.output_size
        return [
            (oh, ow, slice(oh * H // OH, -(-(oh + 1) * H // OH)), slice(ow * W // OW, -(-(ow + 1) * W // OW)))
            for oh in range(OH)
            for ow in range(OW)
        ]

    def forward(self, x: Array) -> Array:
        self._like = x.shape, x.dtype, x.transpose(0, 2, 3, 1).flags.c_contiguous
        N, C, H, W = x.shape
        output = array_module(x).empty((N, C, *self.output_size), x.dtype)
        for oh, ow, rows, columns in self._regions(H, W):
            region = x[:, :, rows, columns]
            output[:, :, oh, ow] = total(region, (2, 3)) / (region.shape[2] * region.shape[3])
        return output

    def backward(self, grad_output: Array) -> tuple[Array | None, ...]:
        (N, C, H, W), dtype, is_channels_last = self._like
        xp = array_module(grad_output)
        if self.output_size == (1, 1):  # the head of every residual net: one region, which needs no sum
            share = (grad_output / (H * W)).transpose(0, 2, 3, 1)  # (N, 1, 1, C)
            return (xp.broadcast_to(share, (N, H, W, C)).copy().transpose(0, 3, 1, 2),)
        grad_x = (  # in x's own layout, so that the layer below needn't convert it
            xp.zeros((N, H, W, C), dtype).transpose(0, 3, 1, 2) if is_channels_last else xp.zeros((N, C, H, W), dtype)
        )
        for oh, ow, rows, columns in self._regions(H, W):
            region = grad_x[:, :, rows, columns]
            region += (grad_output[:, :, oh, ow] / (region.shape[2] * region.shape[3]))[:, :, None, None]
        return (grad_x,)


Size = int | Sequence[int]


@overload
def max_pool2d(
    x: Tensor,
    kernel_size: Size,
    stride: Size | None = None,
    padding: Size = 0,
    dilation: Size = 1,
    ceil_mode: bool = False,
    return_indices: Literal[False] = False,
) -> Tensor: ...


@overload
def max_pool2d(
    x: Tensor,
    kernel_size: Size,
    stride: Size | None = None,
    padding: Size = 0,
    dilation: Size = 1,
    ceil_mode: bool = False,
    *,
    return_indices: Literal[True],
) -> tuple[Tensor, Tensor]: ...


def max_pool2d(
    x: Tensor,
    kernel_size: Size,
    stride: Size | None = None,
    padding: Size = 0,
    dilation: Size = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Tensor | tuple[Tensor, Tensor]:
    """The largest number of each window: (N, C, H, W) -> (N, C, OH, OW); stride defaults to kernel_size.

    Padding never wins. Sizes are those of :func:`minires.functional.conv2d`, rounded up with ``ceil_mode``; one image
    (C, H, W) gives one (C, OH, OW). With ``return_indices`` the result is a pair, as in PyTorch: the maxima, and where
    in its image each is, h W + w, as int64. Raises TypeError for a non-tensor, ValueError for a window that doesn't fit
    or padding over half the kernel size.

    >>> x = Tensor([[[1.0, 5.0], [3.0, 2.0]]])
    >>> y, where = max_pool2d(x, 2, return_indices=True)
    >>> y.item(), where.item()
    (5.0, 1)
    """
    x, is_single = batch_of_images("max_pool2d", x)
    require_flag("max_pool2d", "return_indices", return_indices)
    window = _window("max_pool2d", x, kernel_size, stride, padding, dilation, ceil_mode)
    function = MaxPool2d(window, ceil_mode, bool(return_indices))
    y = without_batch(apply(function, x), is_single)
    return (y, without_batch(Tensor(function.take_indices()), is_single)) if return_indices else y


def avg_pool2d(
    x: Tensor,
    kernel_size: int | Sequence[int],
    stride: int | Sequence[int] | None = None,
    padding: int | Sequence[int] = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
) -> Tensor:
    """The mean of each window: (N, C, H, W) -> (N, C, OH, OW); stride defaults to kernel_size.

    Padded zeros count in the mean unless ``count_include_pad`` is False. Sizes and errors as :func:`max_pool2d`.
    """
    x, is_single = batch_of_images("avg_pool2d", x)
    require_flag("avg_pool2d", "count_include_pad", count_include_pad)
    window = _window("avg_pool2d", x, kernel_size, stride, padding, 1, ceil_mode)
    return without_batch(apply(AvgPool2d(window, ceil_mode, count_include_pad), x), is_single)


def adaptive_avg_pool2d(x: Tensor, output_size: int | Sequence[int | None]) -> Tensor:
    """The means of a grid of regions: (N, C, H, W) -> (N, C, OH, OW) with (OH, OW) = ``output_size``.

    ``output_size`` 1 is global average pooling, the head of every residual net; None in a pair keeps that size. One
    image (C, H, W) gives one (C, OH, OW). Raises TypeError for a non-tensor, ValueError for an empty image or an
    output size below 1.
    """
    x, is_single = batch_of_images("adaptive_avg_pool2d", x)
    if 0 in x.shape[2:]:
        raise ValueError(f"adaptive_avg_pool2d: the image must not be empty; {shapes(x=x)}")
    if isinstance(output_size, Sequence) and len(output_size) == 2:
        output_size = [x.shape[2 + i] if length is None else length for i, length in enumerate(output_size)]
    size = as_pair(output_size, "output_size", least=1, op="adaptive_avg_pool2d")  # type: ignore[arg-type]
    require_addressable("adaptive_avg_pool2d", (*x.shape[:2], *size), x.dtype, x=x)
    return without_batch(apply(AdaptiveAvgPool2d(size), x), is_single)


def _window(
    op: str,
    x: Tensor,
    kernel_size: int | Sequence[int],
    stride: int | Sequence[int] | None,
    padding: int | Sequence[int],
    dilation: int | Sequence[int],
    ceil_mode: bool,
) -> Window:
    require_flag(op, "ceil_mode", ceil_mode)
    stride = kernel_size if stride is None else stride
    window = Window.of(kernel_size, stride=stride, padding=padding, dilation=dilation, op=op)
    if any(2 * padded > size for padded, size in zip(window.padding, window.size, strict=True)):
        raise ValueError(
            f"{op}: padding must be at most half the kernel size, or a window could lie in the padding alone; "
            f"got padding {window.padding}, kernel_size {window.size}; {shapes(x=x)}"
        )
    require_image_fits(op, x, window, channels=x.shape[1], ceil_mode=ceil_mode)
    return window
