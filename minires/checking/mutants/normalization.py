"""Mistakes in the backward pass of batch norm, alone and fused with addition and ReLU."""

from __future__ import annotations

from typing import Any

import numpy as np

from minires.checking.mutants.mutant import Gradients, Right, mutant, replaced
from minires.functional.batch_norm import BatchNorm, BatchNormReLU, Normalize
from minires_kernels import normalization
from minires_kernels.arrays import Array


def _batch_norm_parts(node: Any, g: Array) -> tuple[Array, Array, Array, Array]:
    """x_hat, weight * inverse_std, mean(g) and mean(g x_hat), each ready to broadcast over (N, C, H, W)."""
    saved = node.saved
    x_hat = (saved.x - saved.mean[:, None, None]) * saved.inverse_std[:, None, None]
    scale = (saved.weight * saved.inverse_std)[:, None, None]
    return x_hat, scale, g.mean((0, 2, 3), keepdims=True)[0], (g * x_hat).mean((0, 2, 3), keepdims=True)[0]


@mutant(BatchNorm, "mean term")
def batch_norm_without_mean_term(node: Any, g: Array, right: Right) -> Gradients:
    """``grad_x`` lacks the term of the mean."""
    x_hat, scale, _, slope = _batch_norm_parts(node, g)
    return replaced(right(g), 0, lambda grad: scale * (g - x_hat * slope))


@mutant(BatchNorm, "variance term")
def batch_norm_without_variance_term(node: Any, g: Array, right: Right) -> Gradients:
    """``grad_x`` lacks the term of the variance."""
    _, scale, level, _ = _batch_norm_parts(node, g)
    return replaced(right(g), 0, lambda grad: scale * (g - level))


@mutant(BatchNorm, "constant statistics")
def batch_norm_statistics_constant(node: Any, g: Array, right: Right) -> Gradients:
    """``grad_x`` treats the batch's statistics as constants."""
    return replaced(right(g), 0, lambda grad: _batch_norm_parts(node, g)[1] * g)


@mutant(BatchNorm, "factor")
def batch_norm_divides_by_variance(node: Any, g: Array, right: Right) -> Gradients:
    """``grad_x`` is multiplied by 1 / variance instead of 1 / std."""
    return replaced(right(g), 0, lambda grad: grad * node.saved.inverse_std[:, None, None])


@mutant(BatchNorm, "factor")
def batch_norm_weight_forgotten(node: Any, g: Array, right: Right) -> Gradients:
    """``grad_x`` lacks the factor weight."""
    return replaced(right(g), 0, lambda grad: grad / node.saved.weight[:, None, None])


@mutant(BatchNorm, "constant statistics")
def batch_norm_unbiased_count(node: Any, g: Array, right: Right) -> Gradients:
    """The means divide by m - 1: the unbiased count."""
    x_hat, scale, level, slope = _batch_norm_parts(node, g)
    count = g.size // g.shape[1]
    return replaced(right(g), 0, lambda grad: scale * (g - (level + x_hat * slope) * count / (count - 1)))


@mutant(BatchNorm, "stale")
def batch_norm_grad_weight_of_raw_x(node: Any, g: Array, right: Right) -> Gradients:
    """``grad_weight`` uses x instead of the normalized x."""
    return replaced(right(g), 1, lambda grad: (g * node.saved.x).sum((0, 2, 3)))


@mutant(BatchNorm, "factor")
def batch_norm_grad_bias_averaged(node: Any, g: Array, right: Right) -> Gradients:
    """``grad_bias`` is a mean instead of a sum."""
    return replaced(right(g), 2, lambda grad: g.mean((0, 2, 3)))


@mutant(BatchNorm, "swapped")
def batch_norm_gradients_swapped(node: Any, g: Array, right: Right) -> Gradients:
    """The gradients of weight and bias are exchanged."""
    grad_x, grad_weight, grad_bias = right(g)
    return grad_x, grad_bias, grad_weight


@mutant(BatchNorm, "stale")
def batch_norm_stale_statistics(node: Any, g: Array, right: Right) -> Gradients:
    """Backward uses stale statistics, not those of the batch."""
    saved = node.saved
    mean, inverse_std = np.zeros_like(saved.mean), np.ones_like(saved.inverse_std)
    return normalization.batch_norm_backward(g, saved.x, mean, inverse_std, saved.weight)[:3]


@mutant(Normalize, "constant statistics")
def batch_norm_training_formula_in_evaluation(node: Any, g: Array, right: Right) -> Gradients:
    """Evaluation uses the training formula, with its statistics' terms."""
    saved = node.saved
    return normalization.batch_norm_backward(g, saved.x, saved.mean, saved.inverse_std, saved.weight)[:3]


@mutant(BatchNormReLU, "mask")
def batch_norm_relu_mask_forgotten(node: Any, g: Array, right: Right) -> Gradients:
    """The fused kernel forgets the mask of its ReLU."""
    saved = node.saved
    statistics = saved.mean, saved.inverse_std, saved.weight
    return tuple(node.norm.kernel(g, saved.x, *statistics, None, node.needs_input_grad[3]))


@mutant(BatchNormReLU, "mask")
def batch_norm_relu_addend_not_gated(node: Any, g: Array, right: Right) -> Gradients:
    """The addend's gradient is not gated by the ReLU."""
    return replaced(right(g), 3, lambda grad: g.copy())


@mutant(BatchNormReLU, "detached")
def batch_norm_relu_addend_forgotten(node: Any, g: Array, right: Right) -> Gradients:
    """The addend (the shortcut) gets no gradient."""
    return replaced(right(g), 3, np.zeros_like)
