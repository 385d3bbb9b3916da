"""Softmax cross-entropy with the array library's own operations, in the order of the equations."""

from __future__ import annotations

from minires_kernels.arrays import Array, array_module, total

DEVICE = "any"


def cross_entropy(logits: Array, target: Array, label_smoothing: float = 0.0) -> tuple[Array, Array]:
    """See :func:`minires_kernels.cross_entropy.cross_entropy`."""
    xp, N = array_module(logits), len(logits)
    shifted = logits - logits.max(1, keepdims=True)
    log_probabilities = shifted - xp.log(total(xp.exp(shifted), 1, keepdims=True))  # (N, K)
    losses = -log_probabilities[xp.arange(N), target]  # (N,)
    if label_smoothing:  # else, and if it is 1, a class whose logarithm is -inf would make 0 times infinity
        smoothing, everywhere = logits.dtype.type(label_smoothing), -total(log_probabilities, 1) / logits.shape[1]
        losses = everywhere if smoothing == 1 else (1 - smoothing) * losses + smoothing * everywhere
    return losses, xp.ascontiguousarray(xp.exp(log_probabilities))


def cross_entropy_backward(probabilities: Array, target: Array, label_smoothing: float, share: Array) -> Array:
    """See :func:`minires_kernels.cross_entropy.cross_entropy_backward`."""
    xp, (N, K), dtype = array_module(probabilities), probabilities.shape, probabilities.dtype.type
    grad_logits = xp.ascontiguousarray(probabilities - dtype(label_smoothing / K))
    grad_logits[xp.arange(N), target] -= dtype(1 - label_smoothing)
    grad_logits *= share[:, None]
    return grad_logits
