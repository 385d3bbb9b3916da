"""Batch normalization with the array library's own operations, in the order of the equations."""

from __future__ import annotations

from minires_kernels.activation import reference as activation
from minires_kernels.arrays import Array, array_module, total

DEVICE = "any"


def batch_statistics(x: Array) -> tuple[Array, Array]:
    """See :func:`minires_kernels.normalization.batch_statistics`."""
    mean = _sums(x) / _count(x)
    variance = _sums((x - _per_channel(mean)) ** 2) / _count(x)
    return mean, variance


def normalize(
    x: Array,
    mean: Array,
    inverse_std: Array,
    weight: Array,
    bias: Array,
    addend: Array | None = None,
    relu: bool = False,
) -> Array:
    """See :func:`minires_kernels.normalization.normalize`."""
    y = _normalized(x, mean, inverse_std)
    y *= _per_channel(weight)
    y += _per_channel(bias)
    if addend is not None:
        y += addend
    return array_module(x).maximum(y, 0, out=y) if relu else y


def batch_norm_backward(
    grad_output: Array,
    x: Array,
    mean: Array,
    inverse_std: Array,
    weight: Array,
    output: Array | None = None,
    needs_grad_addend: bool = False,
    bias: Array | None = None,
) -> tuple[Array, Array, Array, Array | None]:
    """See :func:`minires_kernels.normalization.batch_norm_backward`."""
    g = grad_output if output is None else activation.relu_backward(grad_output, output)
    x_hat = _normalized(x, mean, inverse_std)
    grad_weight, grad_bias = _sums(g * x_hat), _sums(g)
    grad_x = array_module(x).empty_like(x)
    grad_x[...] = g - _per_channel(grad_bias / _count(x)) - x_hat * _per_channel(grad_weight / _count(x))
    grad_x *= _per_channel(weight * inverse_std)
    return grad_x, grad_weight, grad_bias, g if needs_grad_addend else None


def normalize_backward(
    grad_output: Array,
    x: Array,
    mean: Array,
    inverse_std: Array,
    weight: Array,
    output: Array | None = None,
    needs_grad_addend: bool = False,
    bias: Array | None = None,
) -> tuple[Array, Array, Array, Array | None]:
    """See :func:`minires_kernels.normalization.normalize_backward`."""
    g = grad_output if output is None else activation.relu_backward(grad_output, output)
    grad_x = array_module(x).empty_like(x)
    grad_x[...] = g * _per_channel(weight * inverse_std)
    return grad_x, _sums(g * _normalized(x, mean, inverse_std)), _sums(g), g if needs_grad_addend else None


def _per_channel(values: Array) -> Array:
    return values[:, None, None]  # (C,) -> (C, 1, 1), which broadcasts over (N, C, H, W)


def _normalized(x: Array, mean: Array, inverse_std: Array) -> Array:
    x_hat = array_module(x).subtract(x, _per_channel(mean))
    x_hat *= _per_channel(inverse_std)
    return x_hat


def _count(x: Array) -> int:
    return int(x.shape[0] * x.shape[2] * x.shape[3])


def _sums(x: Array) -> Array:
    return total(x, (0, 2, 3))  # (C,)
