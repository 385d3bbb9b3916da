"""Gradients by finite differences, element by element: the witness of every backward pass in these tests.

Knows arrays and functions of arrays only; independent of the gradient checker that the library offers.
"""

from __future__ import annotations

import numpy as np

STEP = 1e-3
"""Keep every kink (a ReLU's zero, a tie of two maxima) farther than ``REACH`` from the point of evaluation."""
REACH = 2 * STEP


def numerical_gradients(function, arrays, upstream, step=STEP):
    """For each float64 array a: d sum(upstream * function(*arrays)) / da, by the five-point stencil

    f'(a) = (f(a - 2h) - 8 f(a - h) + 8 f(a + h) - f(a + 2h)) / 12h + O(h^4):

    with h = 1e-3 both its truncation error and its rounding error are about 1e-12 of f's derivatives.
    """
    arrays = [np.array(array, np.float64) for array in arrays]
    return [_gradient(function, arrays, position, upstream, step) for position in range(len(arrays))]


def _gradient(function, arrays, position, upstream, step):
    moved = arrays[position]
    gradient = np.zeros(moved.shape)
    for index in np.ndindex(*moved.shape):
        kept = moved[index]
        total = 0.0
        for steps, share in ((-2, 1), (-1, -8), (1, 8), (2, -1)):
            moved[index] = kept + steps * step
            total += share * float((upstream * function(*arrays)).sum())
        moved[index] = kept
        gradient[index] = total / (12 * step)
    return gradient


def away_from_zero(array, least=0.1):
    """``array`` with every number moved away from 0 by ``least``: no kink within a finite difference's reach."""
    return array + np.where(array < 0, -least, least)


def distinct(shape, rng, gap=0.05):
    """Normally spread numbers of which no two are nearer than ``gap``: no tie within a finite difference's reach."""
    size = int(np.prod(shape))
    return (rng.permutation(size) - size / 2).reshape(shape) * gap
