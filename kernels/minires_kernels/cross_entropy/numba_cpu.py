"""Softmax cross-entropy with Numba: a row is read, exponentiated, summed and normalized while it is in the cache.

The bound is the exponential, some ten times the cost of everything else. A row is small (10 or 1,000 classes), so it is
met three times in the first-level cache: for its largest number, for the exponentials and their sum, and to be divided.
Rows are shared out among threads from some thousands of numbers on; below, a thread would be done before others woke.
"""

from __future__ import annotations

import math

import numpy as np

from minires_kernels.arrays import Array
from minires_kernels.flat import SERIAL, THREADED
from minires_kernels.jit import njit
from minires_kernels.simd import for_each

DEVICE = "cpu"
PREFERENCE = 100

SMALL = 1 << 12
"""Numbers that one thread exponentiates in the time that it takes to wake the others."""


def cross_entropy(logits: Array, target: Array, label_smoothing: float = 0.0) -> tuple[Array, Array]:
    """See :func:`minires_kernels.cross_entropy.cross_entropy`."""
    losses, probabilities = np.empty(len(logits), logits.dtype), np.empty(logits.shape, logits.dtype)
    rows(_plain(logits), _classes(target), float(label_smoothing), losses, probabilities)
    return losses, probabilities


def cross_entropy_backward(probabilities: Array, target: Array, label_smoothing: float, share: Array) -> Array:
    """See :func:`minires_kernels.cross_entropy.cross_entropy_backward`."""
    grad_logits = np.empty(probabilities.shape, probabilities.dtype)
    rows_backward(_plain(probabilities), _classes(target), float(label_smoothing), _plain(share), grad_logits)
    return grad_logits


def _plain(x: Array) -> Array:
    """``x`` contiguous, aligned and writable, the one type that is compiled; a copy if it isn't."""
    return np.require(x, requirements=("C", "A", "W"))


def _classes(target: Array) -> Array:
    return np.require(target, np.int64, ("C", "A", "W"))


@njit(**SERIAL)
def row(all_logits: Array, target: Array, smoothing: float, losses: Array, all_probabilities: Array, n: int) -> None:
    """Row n: its loss, and its probabilities."""
    logits, probabilities = all_logits[n], all_probabilities[n]
    largest = logits[0]
    for k in range(1, logits.size):
        largest = max(largest, logits[k])
    total = 0.0  # in double precision: single would lose digits of a million classes
    for k in range(logits.size):
        probabilities[k] = math.exp(logits[k] - largest)
        total += probabilities[k]
    divisor = probabilities.dtype.type(total)
    for k in range(logits.size):
        probabilities[k] /= divisor
    # The largest logit is taken away before anything is added: log(total) would vanish beside a large one.
    log_total = math.log(total)
    loss = 0.0
    if smoothing < 1:
        loss = (1 - smoothing) * (log_total - (logits[target[n]] - largest))
    if smoothing > 0:
        mean = 0.0
        for k in range(logits.size):
            mean += log_total - (logits[k] - largest)
        loss += smoothing * mean / logits.size
    losses[n] = loss


@njit(**THREADED)
def rows(logits: Array, target: Array, smoothing: float, losses: Array, probabilities: Array) -> None:
    """Every row: in one go if there are few numbers, else shared out among threads."""
    if logits.size <= SMALL:
        for n in range(losses.size):
            row(logits, target, smoothing, losses, probabilities, n)
    else:
        for_each(row, losses.size, (logits, target, smoothing, losses, probabilities))


@njit(**SERIAL)
def row_backward(
    probabilities: Array, target: Array, smoothing: float, share: Array, grad_logits: Array, n: int
) -> None:
    """grad_logits = (probabilities - q) share, of row n."""
    everywhere = smoothing / probabilities.shape[1]
    for k in range(probabilities.shape[1]):
        grad_logits[n, k] = (probabilities[n, k] - everywhere) * share[n]
    k = target[n]
    grad_logits[n, k] = (probabilities[n, k] - everywhere - (1 - smoothing)) * share[n]


@njit(**THREADED)
def rows_backward(probabilities: Array, target: Array, smoothing: float, share: Array, grad_logits: Array) -> None:
    """Every row, shared out as in ``rows``."""
    if probabilities.size <= SMALL:
        for n in range(share.size):
            row_backward(probabilities, target, smoothing, share, grad_logits, n)
    else:
        for_each(row_backward, share.size, (probabilities, target, smoothing, share, grad_logits))
