"""SGD with Numba: parameter, gradient and velocity in one pass, each loaded once, the two that change stored once.

Both forms of the rule are one, with lr multiplied in before the velocity (Caffe) or after it (PyTorch): with
before after = lr, one of the factors 1,

    v := momentum v + before g;    parameter -= after v    [nesterov: parameter -= after (before g + momentum v)]

Registers hold one vector each of parameter, g and v, and four factors. The bound is memory, or, for the many parameters
of a few numbers, the call.
"""

from __future__ import annotations

from typing import Any

from minires_kernels.arrays import Array
from minires_kernels.flat import SERIAL, SMALL, THREADED, flat_like, vector_of
from minires_kernels.jit import njit
from minires_kernels.simd import broadcast, fma, for_each, load, load_part, store, store_part

DEVICE = "cpu"
PREFERENCE = 100


def sgd(
    parameter: Array,
    grad: Array,
    velocity: Array | None,
    lr: float,
    momentum: float = 0.0,
    weight_decay: float = 0.0,
    nesterov: bool = False,
    caffe: bool = False,
) -> None:
    """See :func:`minires_kernels.update.sgd`."""
    values = parameter.ravel(order="K")
    if values.flags.owndata or (velocity is not None and velocity.strides != parameter.strides):
        _sgd_in_copies(parameter, grad, velocity, lr, momentum, weight_decay, nesterov, caffe)
        return
    speeds = values if velocity is None else velocity.ravel(order="K")
    before, after = (lr, 1.0) if caffe else (1.0, lr)
    factors = float(momentum), float(weight_decay), float(before), float(after)
    step(vector_of(parameter), values, flat_like(grad, parameter), speeds, *factors, velocity is not None, nesterov)


def _sgd_in_copies(parameter: Array, grad: Array, velocity: Array | None, *options: Any) -> None:
    """For memory with gaps, or of two orders: the same on contiguous copies, copied back."""
    values = parameter.copy(order="C")
    speeds = None if velocity is None else velocity.copy(order="C")
    sgd(values, grad, speeds, *options)
    parameter[...] = values
    if velocity is not None:
        velocity[...] = speeds


@njit(**THREADED)
def step(
    kind: Any,
    parameter: Array,
    grad: Array,
    velocity: Array,
    momentum: float,
    weight_decay: float,
    before: float,
    after: float,
    moving: bool,
    nesterov: bool,
) -> None:
    """One step of all of ``parameter``, in pieces that the threads share out."""
    arguments = kind, parameter, grad, velocity, momentum, weight_decay, before, after, moving, nesterov
    for_each(piece, -(-parameter.size // SMALL), arguments)


@njit(**SERIAL)
def piece(
    kind: Any,
    parameter: Array,
    grad: Array,
    velocity: Array,
    momentum: float,
    weight_decay: float,
    before: float,
    after: float,
    moving: bool,
    nesterov: bool,
    p: int,
) -> None:
    """One step of the p-th ``SMALL`` numbers; ``velocity`` counts only when ``moving``."""
    start, stop = p * SMALL, min((p + 1) * SMALL, parameter.size)
    decay, friction = broadcast(kind, weight_decay), broadcast(kind, momentum)
    early, late = broadcast(kind, before), broadcast(kind, -after)
    whole = stop - (stop - start) % kind.lanes
    for i in range(start, whole, kind.lanes):
        value = load(kind, parameter, i)
        change = load(kind, grad, i)
        if weight_decay != 0:  # 0 times an infinite parameter would be NaN
            change = fma(decay, value, change)
        change = change * early
        if moving:
            speed = fma(friction, load(kind, velocity, i), change)
            store(speed, velocity, i)
            change = fma(friction, speed, change) if nesterov else speed
        store(fma(late, change, value), parameter, i)
    if whole < stop:
        count = stop - whole
        value = load_part(kind, parameter, whole, count)
        change = load_part(kind, grad, whole, count)
        if weight_decay != 0:
            change = fma(decay, value, change)
        change = change * early
        if moving:
            speed = fma(friction, load_part(kind, velocity, whole, count), change)
            store_part(speed, velocity, whole, count)
            change = fma(friction, speed, change) if nesterov else speed
        store_part(fma(late, change, value), parameter, whole, count)
