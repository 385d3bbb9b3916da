"""Mistakes in the backward passes of the linear layer, softmax and the loss."""

from __future__ import annotations

from typing import Any

import numpy as np

from minires.checking.mutants.mutant import Gradients, Right, mutant, replaced
from minires.functional.activation import LogSoftmax, Softmax
from minires.functional.linear import Linear
from minires.functional.loss import CrossEntropy
from minires_kernels.arrays import Array


@mutant(Linear, "transposed")
def linear_weight_transposed(node: Any, g: Array, right: Right) -> Gradients:
    """``grad_x`` multiplies by the weight's transpose."""
    weight = node.saved.weight
    return replaced(right(g), 0, lambda grad: g @ weight.T if weight.shape[0] == weight.shape[1] else grad)


@mutant(Linear, "transposed")
def linear_grad_weight_transposed(node: Any, g: Array, right: Right) -> Gradients:
    """``grad_weight`` is (in, out) instead of (out, in)."""
    return replaced(right(g), 1, lambda grad: grad.T if grad.shape[0] == grad.shape[1] else grad)


@mutant(Linear, "factor")
def linear_grad_weight_averaged(node: Any, g: Array, right: Right) -> Gradients:
    """``grad_weight`` is divided by the batch size, which the loss did already."""
    return replaced(right(g), 1, lambda grad: grad / len(g))


@mutant(Linear, "partial")
def linear_grad_bias_last_row(node: Any, g: Array, right: Right) -> Gradients:
    """``grad_bias`` is the last row instead of the sum over the batch."""
    return replaced(right(g), 2, lambda grad: g[-1].copy())


@mutant(Linear, "broadcast")
def linear_grad_bias_not_summed(node: Any, g: Array, right: Right) -> Gradients:
    """``grad_bias`` isn't summed over the batch."""
    return replaced(right(g), 2, lambda grad: g.copy())


@mutant(Linear, "permuted")
def linear_batch_reversed(node: Any, g: Array, right: Right) -> Gradients:
    """The batch comes out in reverse order."""
    return replaced(right(g), 0, lambda grad: grad[::-1])


@mutant(Softmax, "sum term")
def softmax_diagonal_only(node: Any, g: Array, right: Right) -> Gradients:
    """Only the diagonal of the Jacobian: p (1 - p)."""
    output = node.saved.output
    return (g * output * (1 - output),)


@mutant(LogSoftmax, "sum term")
def log_softmax_spread_evenly(node: Any, g: Array, right: Right) -> Gradients:
    """The sum is spread evenly, not by probability."""
    return (g - g.mean(node.axis, keepdims=True),)


@mutant(CrossEntropy, "factor")
def cross_entropy_not_averaged(node: Any, g: Array, right: Right) -> Gradients:
    """The mean's 1/N is missing."""
    return replaced(right(g), 0, lambda grad: grad * len(grad))


@mutant(CrossEntropy, "factor")
def cross_entropy_averaged_over_classes(node: Any, g: Array, right: Right) -> Gradients:
    """Divided by the number of classes as well."""
    return replaced(right(g), 0, lambda grad: grad / grad.shape[1])


@mutant(CrossEntropy, "target")
def cross_entropy_target_forgotten(node: Any, g: Array, right: Right) -> Gradients:
    """The target is not subtracted: the probabilities alone."""
    probabilities = node.saved.probabilities
    return (probabilities * (g / len(probabilities)),)


@mutant(CrossEntropy, "target")
def cross_entropy_target_off_by_one(node: Any, g: Array, right: Right) -> Gradients:
    """Classes counted from 1: the target is off by one."""
    rows, count = np.arange(len(node._target)), len(node._target)
    share = g / count * (1 - node.label_smoothing)

    def move(grad: Array) -> Array:
        moved = grad.copy()
        moved[rows, node._target] += share
        moved[rows, (node._target + 1) % grad.shape[1]] -= share
        return moved

    return replaced(right(g), 0, move)


@mutant(CrossEntropy, "sign")
def cross_entropy_sign(node: Any, g: Array, right: Right) -> Gradients:
    """The sign of the log-likelihood is lost."""
    return replaced(right(g), 0, lambda grad: -grad)
