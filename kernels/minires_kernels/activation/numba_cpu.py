"""ReLU and addition with Numba: one loop over flat memory, which loads, combines and stores a vector at a time.

The four kernels are one: take a number of x; gate it by, or add to it, its neighbour in y; cut it off at a floor (0 for
a ReLU, minus infinity for none). The choices are the same for the whole array, so they are decided outside the loop,
whose body is two loads, one or two operations and a store: registers hold one vector of x, one of y and the floor.

The bound is memory: an operation costs a hundredth of the time in which its operands arrive. Few numbers are left to a
single thread, which is done with them before others would have woken up.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from minires_kernels.arena import empty_like
from minires_kernels.arrays import Array
from minires_kernels.flat import SERIAL, SMALL, THREADED, dense, flat, flat_like, vector_of
from minires_kernels.jit import njit
from minires_kernels.simd import broadcast, for_each, gate, load, load_part, maximum, store, store_part

DEVICE = "cpu"
PREFERENCE = 100


def relu(x: Array) -> Array:
    """See :func:`minires_kernels.activation.relu`."""
    return _elementwise(x, x, gated=False, added=False, rectified=True)


def relu_backward(grad_output: Array, output: Array) -> Array:
    """See :func:`minires_kernels.activation.relu_backward`."""
    return _elementwise(grad_output, output, gated=True, added=False, rectified=False)


def add(x: Array, y: Array) -> Array:
    """See :func:`minires_kernels.activation.add`."""
    return _elementwise(x, y, gated=False, added=True, rectified=False)


def add_relu(x: Array, y: Array) -> Array:
    """See :func:`minires_kernels.activation.add_relu`."""
    return _elementwise(x, y, gated=False, added=True, rectified=True)


def _elementwise(x: Array, y: Array, *, gated: bool, added: bool, rectified: bool) -> Array:
    first = dense(x)
    result = empty_like(first)
    line = flat(first)
    combine(vector_of(x), line, line if y is x else flat_like(y, first), gated, added, rectified, flat(result))
    return result


@njit(**THREADED)
def combine(kind: Any, x: Array, y: Array, gated: bool, added: bool, rectified: bool, result: Array) -> None:
    """The result for all of x and y, in pieces that the threads share out."""
    for_each(piece, -(-x.size // SMALL), (kind, x, y, gated, added, rectified, result))


@njit(**SERIAL)
def piece(kind: Any, x: Array, y: Array, gated: bool, added: bool, rectified: bool, result: Array, p: int) -> None:
    """result = x, gated by y or with y added, then rectified: the p-th ``SMALL`` numbers."""
    start, stop = p * SMALL, min((p + 1) * SMALL, x.size)
    floor = broadcast(kind, 0.0 if rectified else -np.inf)
    whole = stop - (stop - start) % kind.lanes
    for i in range(start, whole, kind.lanes):
        value = load(kind, x, i)
        if gated:
            value = gate(value, load(kind, y, i))
        if added:
            value = value + load(kind, y, i)
        store(maximum(value, floor), result, i)
    if whole < stop:
        value, other = load_part(kind, x, whole, stop - whole), load_part(kind, y, whole, stop - whole)
        if gated:
            value = gate(value, other)
        if added:
            value = value + other
        store_part(maximum(value, floor), result, whole, stop - whole)
