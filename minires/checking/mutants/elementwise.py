"""Mistakes in the backward passes of ReLU and pooling."""

from __future__ import annotations

from typing import Any

import numpy as np

from minires.checking.mutants.mutant import Gradients, Right, mutant, replaced
from minires.functional.activation import ReLU
from minires.functional.pooling import AdaptiveAvgPool2d, AvgPool2d, MaxPool2d
from minires_kernels import pooling
from minires_kernels.arrays import Array


@mutant(ReLU, "mask")
def relu_without_mask(node: Any, g: Array, right: Right) -> Gradients:
    """The gradient passes everywhere: no mask."""
    return (g.copy(),)


@mutant(ReLU, "mask")
def relu_mask_inverted(node: Any, g: Array, right: Right) -> Gradients:
    """The mask is inverted."""
    return (g * (node.saved.output <= 0),)


@mutant(ReLU, "mask")
def relu_leaks(node: Any, g: Array, right: Right) -> Gradients:
    """A leak of 0.01 where the input is negative."""
    return (np.where(node.saved.output > 0, g, g * 0.01),)


@mutant(ReLU, "mask")
def relu_drops_negative_gradients(node: Any, g: Array, right: Right) -> Gradients:
    """The mask is taken from the gradient as well: negative gradients are dropped."""
    return (g * (node.saved.output > 0) * (g > 0),)


@mutant(ReLU, "upstream")
def relu_multiplied_by_output(node: Any, g: Array, right: Right) -> Gradients:
    """The gradient is multiplied by the output instead of its sign."""
    return (g * node.saved.output,)


@mutant(ReLU, "in place")
def relu_in_place(node: Any, g: Array, right: Right) -> Gradients:
    """Backward writes into the upstream gradient, which other nodes share."""
    g *= node.saved.output > 0
    return (g,)


@mutant(ReLU, "permuted")
def relu_batch_reversed(node: Any, g: Array, right: Right) -> Gradients:
    """The batch comes out in reverse order."""
    return (right(g[::-1].copy())[0],)


@mutant(MaxPool2d, "argmax")
def max_pool_off_by_one(node: Any, g: Array, right: Right) -> Gradients:
    """The gradient goes to the next pixel: an off-by-one in the index."""
    return replaced(right(g), 0, lambda grad: np.roll(grad.reshape(*grad.shape[:2], -1), 1, 2).reshape(grad.shape))


@mutant(MaxPool2d, "overwritten")
def max_pool_overwrites(node: Any, g: Array, right: Right) -> Gradients:
    """A pixel that wins several windows gets the last one's gradient only."""

    def assign(grad: Array) -> Array:
        N, C, H, W = grad.shape
        flat = np.zeros((N * C, H * W), grad.dtype)
        argmax = node.saved.argmax.reshape(N * C, -1)
        for plane in range(N * C):
            flat[plane, argmax[plane]] = g.reshape(N * C, -1)[plane]
        return flat.reshape(grad.shape)

    return replaced(right(g), 0, assign)


@mutant(MaxPool2d, "argmax")
def max_pool_averages(node: Any, g: Array, right: Right) -> Gradients:
    """The gradient is shared among the window, as in average pooling."""
    return (pooling.avg_pool_backward(g, node._shape, node.window, node.ceil_mode),)


@mutant(MaxPool2d, "permuted")
def max_pool_batch_rolled(node: Any, g: Array, right: Right) -> Gradients:
    """The planes of the batch are confused."""
    return replaced(right(g), 0, lambda grad: np.roll(grad, 1, 0))


@mutant(AvgPool2d, "factor")
def avg_pool_not_divided(node: Any, g: Array, right: Right) -> Gradients:
    """The gradient is not divided by the size of the window."""
    return replaced(right(g), 0, lambda grad: grad * float(np.prod(node.window.size)))


@mutant(AvgPool2d, "border")
def avg_pool_border_count(node: Any, g: Array, right: Right) -> Gradients:
    """The taps that lie in the padding are counted wrongly."""
    return (pooling.avg_pool_backward(g, node._shape, node.window, node.ceil_mode, not node.count_include_pad),)


@mutant(AdaptiveAvgPool2d, "factor")
def global_average_not_divided(node: Any, g: Array, right: Right) -> Gradients:
    """The gradient is not divided by the number of pixels."""
    rows, columns = node._like[0][2:]
    return replaced(right(g), 0, lambda grad: grad * float(rows * columns))
