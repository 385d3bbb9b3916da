"""Mistakes where the paths of a residual block part and meet: addition, products, fan-out, shortcuts."""

from __future__ import annotations

from typing import Any

import numpy as np

from minires.algebra import Add, Mul
from minires.checking.mutants.mutant import Gradients, Right, mutant, replaced
from minires.functional.shortcut import SubsampleAndPad
from minires.tensor import Tensor
from minires_kernels.arrays import Array


@mutant(Add, "detached")
def add_forgets_second(node: Any, g: Array, right: Right) -> Gradients:
    """The second operand (the shortcut) gets nothing."""
    return replaced(right(g), 1, np.zeros_like)


@mutant(Add, "factor")
def add_shares_the_gradient(node: Any, g: Array, right: Right) -> Gradients:
    """The gradient is halved, as if the two paths shared it."""
    return right(g / 2)


@mutant(Add, "broadcast")
def add_broadcast_not_summed(node: Any, g: Array, right: Right) -> Gradients:
    """A broadcast operand's gradient isn't summed."""
    return tuple(None if grad is None else g.copy() for grad in right(g))


@mutant(Add, "factor")
def add_broadcast_averaged(node: Any, g: Array, right: Right) -> Gradients:
    """A broadcast operand's gradient is a mean instead of a sum."""
    return tuple(None if grad is None else grad * (grad.size / g.size) for grad in right(g))


@mutant(Mul, "swapped")
def mul_operands_confused(node: Any, g: Array, right: Right) -> Gradients:
    """Each operand gets the other's gradient: x g instead of y g."""
    x, y = node.saved.x, node.saved.y
    if x.shape != y.shape:
        return right(g)
    return g * x, g * y


@mutant(Tensor, "overwritten")
def fan_out_overwritten(pending: Array, contribution: Array) -> Array:
    """Where a tensor was used twice, the second gradient overwrites the first."""
    return contribution


@mutant(Tensor, "skip doubled")
def fan_out_added_twice(pending: Array, contribution: Array) -> Array:
    """Where a tensor was used twice, the second gradient is added twice."""
    return pending + 2 * contribution


@mutant(SubsampleAndPad, "shifted")
def shortcut_pixels_shifted(node: Any, g: Array, right: Right) -> Gradients:
    """The pixels are put back one column off."""
    return replaced(right(g), 0, lambda grad: np.roll(grad, 1, 3))


@mutant(SubsampleAndPad, "permuted")
def shortcut_channels_from_behind(node: Any, g: Array, right: Right) -> Gradients:
    """The gradient is taken from the last channels, where the zeros are."""
    return right(np.roll(g, -(g.shape[1] - node._shape[1]), 1))


@mutant(SubsampleAndPad, "mask")
def shortcut_spreads_over_the_cell(node: Any, g: Array, right: Right) -> Gradients:
    """Each gradient goes to all pixels of its cell, not to the one taken."""

    def spread(grad: Array) -> Array:
        C, (H, W) = grad.shape[1], grad.shape[2:]
        return g[:, :C].repeat(node.stride, 2).repeat(node.stride, 3)[:, :, :H, :W]

    return replaced(right(g), 0, spread)
