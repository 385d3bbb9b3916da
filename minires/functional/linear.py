"""The fully connected layer."""

from __future__ import annotations

import math

from minires.function import Function
from minires.functional.checks import require_tensor, shapes
from minires.tensor import Tensor, apply
from minires_kernels import Window, convolution
from minires_kernels.arrays import Array, total

FEW_PRODUCTS = 1 << 18
"""Products of numbers up to which the array library's matrix product is taken. A BLAS computes more of them on threads
of its own, and these stay awake for some 20 ms afterwards, looking for work, on the cores that our kernels need."""

PIXEL = Window((1, 1))


class Linear(Function):
    """Y = X M^T + bias, with M the weight: dX = dY M, dM = dY^T X, dbias = dY summed over the batch.

    Many products are computed as a 1x1 convolution of images of one pixel, which is the same three matrix products.
    """

    def forward(self, x: Array, weight: Array, bias: Array | None) -> Array:
        self.save_for_backward(x=x, weight=weight)
        if x.shape[0] * weight.size <= FEW_PRODUCTS:
            y = x @ weight.T  # (N, in) @ (in, out) -> (N, out)
        else:
            y = convolution.forward(_pixels(x), _pixels(weight), PIXEL)[:, :, 0, 0]
        return y if bias is None else y + bias

    def backward(self, grad_output: Array) -> tuple[Array | None, ...]:
        x, weight = self.saved.x, self.saved.weight
        needs_x, needs_weight, needs_bias = self.needs_input_grad
        grad_x = grad_weight = None
        few = x.shape[0] * weight.size <= FEW_PRODUCTS
        if needs_x and few:
            grad_x = grad_output @ weight  # (N, out) @ (out, in) -> (N, in)
        elif needs_x:
            grad_x = convolution.grad_input(_pixels(grad_output), _pixels(weight), (*x.shape, 1, 1), PIXEL)[:, :, 0, 0]
        if needs_weight and few:
            grad_weight = grad_output.T @ x  # (out, N) @ (N, in) -> (out, in)
        elif needs_weight:
            grad_weight = convolution.grad_weight(_pixels(grad_output), _pixels(x), PIXEL)[:, :, 0, 0]
        return grad_x, grad_weight, total(grad_output, 0) if needs_bias else None


def _pixels(x: Array) -> Array:
    return x[:, :, None, None]  # (N, features) -> (N, features, 1, 1)


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x weight^T + bias: (..., in_features), (out_features, in_features), (out_features,) -> (..., out_features).

    Any leading axes, or none, count as the batch. Raises TypeError for non-tensors or mixed dtypes, ValueError when the
    shapes don't fit.

    >>> linear(Tensor([[[1.0, 2.0]]]), Tensor([[3.0, 4.0]])).data.tolist()
    [[[11.0]]]
    """
    require_tensor("linear", "x", x)
    require_tensor("linear", "weight", weight, ndim=2)
    if not x.ndim or x.shape[-1] != weight.shape[1]:
        raise ValueError(
            f"linear: x has {x.shape[-1] if x.ndim else 'no'} features, but weight takes {weight.shape[1]}; "
            f"{shapes(x=x, weight=weight)}; weight must be (out_features, in_features)"
        )
    if bias is not None:
        require_tensor("linear", "bias", bias)
        if bias.shape != weight.shape[:1]:
            raise ValueError(
                f"linear: bias must have shape {weight.shape[:1]}; {shapes(x=x, weight=weight, bias=bias)}"
            )
    if x.ndim == 2:
        return apply(Linear(), x, weight, bias)
    leading = x.shape[:-1]
    rows = x.reshape(math.prod(leading), x.shape[-1])
    return apply(Linear(), rows, weight, bias).reshape(*leading, weight.shape[0])
