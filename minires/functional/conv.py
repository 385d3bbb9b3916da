"""Convolution in two dimensions.

Sources: output size, Dumoulin and Visin 2016; unrolling into a matrix product, Chellapilla, Puri and Simard 2006.
"""

from __future__ import annotations

from collections.abc import Sequence

from minires.arguments import require_integer
from minires.function import Function
from minires.functional.checks import batch_of_images, require_image_fits, require_tensor, shapes, without_batch
from minires.functional.rearrange import pad
from minires.tensor import Tensor, apply
from minires_kernels import Window, convolution
from minires_kernels.arrays import Array, total
from minires_kernels.window import Pair


class Conv2d(Function):
    """y = weight * x + bias, where * slides the weight over x without flipping it (cross-correlation).

    Laid out as matrices, per image and group: Y = M X, with M (O, K) the weight, X (K, L) the columns of windows
    (im2col), K = C/G KH KW, L = OH OW. So the backward pass is dX = M^T dY, put back onto the image by col2im, the
    adjoint of im2col; dM = dY X^T, summed over images; and dbias = dY summed over images and positions.
    """

    def __init__(self, window: Window, groups: int) -> None:
        self.window, self.groups = window, groups

    def forward(self, x: Array, weight: Array, bias: Array | None) -> Array:
        self.save_for_backward(x=x, weight=weight)
        y = convolution.forward(x, weight, self.window, self.groups)  # (N, O, OH, OW)
        return y if bias is None else y + bias[:, None, None]

    def backward(self, grad_output: Array) -> tuple[Array | None, ...]:
        x, weight = self.saved.x, self.saved.weight
        needs_x, needs_weight, needs_bias = self.needs_input_grad
        grad_x = grad_weight = grad_bias = None
        if needs_x:
            grad_x = convolution.grad_input(grad_output, weight, x.shape, self.window, self.groups)
        if needs_weight:
            grad_weight = convolution.grad_weight(grad_output, x, self.window, self.groups)
        if needs_bias:
            grad_bias = total(grad_output, (0, 2, 3))
        return grad_x, grad_weight, grad_bias


def conv2d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: int | Sequence[int] = 1,
    padding: int | Sequence[int] | str = 0,
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
) -> Tensor:
    """Slide ``weight`` over ``x``: (N, C, H, W), (O, C/groups, KH, KW) -> (N, O, OH, OW).

    It is the cross-correlation that the field calls convolution: the kernel isn't flipped. OH = floor((H + 2 padding -
    dilation (KH - 1) - 1) / stride) + 1, OW likewise. ``bias`` (O,) is added to each output channel. stride, padding
    and dilation are integers or (vertical, horizontal) pairs; output channel o sees the C/groups input channels of
    group o // (O/groups). One image (C, H, W) gives one (O, OH, OW).

    ``padding="valid"`` is none; ``padding="same"`` is what makes the output as large as x, for stride 1: dilation
    (KH - 1) rows in all, of which an odd one goes to the bottom, and columns likewise.

    >>> image, kernel = Tensor([[[1.0, 2.0, 4.0]]]), Tensor([[[[-1.0, 1.0]]]])
    >>> conv2d(image, kernel, padding="same").data.tolist()
    [[[1.0, 2.0, -4.0]]]

    An infinite or NaN pixel reaches the outputs that see it, and no others. float32 convolutions with 3x3 kernels may
    be computed by Winograd's algorithm, whose outputs lie in tiles of 4 x 4 that share the rounding of the largest
    pixel beneath them: beside one 10^5 times as large as the others these lose all but two digits, and zeros become
    tiny. ``with minires.using("numba_cpu"):`` takes the direct sum, where each output has a rounding of its own.

    Raises TypeError for arguments that aren't tensors or mix dtypes; ValueError when channels, groups and bias don't
    fit each other or the window doesn't fit into the padded image.
    """
    x, is_single = batch_of_images("conv2d", x)
    require_tensor("conv2d", "weight", weight, ndim=4)
    C, (O, group_channels, *kernel_size) = x.shape[1], weight.shape
    groups = require_integer("conv2d", "groups", groups)
    if groups < 1 or C % groups or O % groups:
        raise ValueError(
            f"conv2d: groups must be a positive divisor of the input and output channels, got groups = {groups} with "
            f"C = {C} and O = {O}; {shapes(x=x, weight=weight)}"
        )
    if group_channels != C // groups:
        raise ValueError(
            f"conv2d: weight has {group_channels} input channels per group, but x has C = {C} with groups = {groups}; "
            f"{shapes(x=x, weight=weight)}; weight must be (O, {C // groups}, KH, KW)"
        )
    if bias is not None:
        require_tensor("conv2d", "bias", bias)
        if bias.shape != (O,):
            raise ValueError(
                f"conv2d: bias must have shape ({O},), one number per output channel; "
                f"{shapes(x=x, weight=weight, bias=bias)}"
            )
    if isinstance(padding, str):
        x, padding = _padded(x, padding, Window.of(kernel_size, stride=stride, dilation=dilation, op="conv2d"))
    window = Window.of(kernel_size, stride=stride, padding=padding, dilation=dilation, op="conv2d")
    require_image_fits("conv2d", x, window, channels=O)
    return without_batch(apply(Conv2d(window, groups), x, weight, bias), is_single)


def _padded(x: Tensor, padding: str, window: Window) -> tuple[Tensor, Pair]:
    """(x, the padding on each side) for a padding that is named; an odd row or column is put below or right of x."""
    if padding == "valid":
        return x, (0, 0)
    if padding != "same":
        raise ValueError(f"conv2d: padding must be an integer, a pair of integers, 'same' or 'valid', got {padding!r}")
    if window.stride != (1, 1):
        raise ValueError(f"conv2d: padding='same' is for stride 1, got stride {window.stride}; give padding as numbers")
    vertical, horizontal = (span - 1 for span in window.span)
    if vertical % 2 or horizontal % 2:
        x = pad(x, [(0, 0), (0, 0), (0, vertical % 2), (0, horizontal % 2)])
    return x, (vertical // 2, horizontal // 2)
