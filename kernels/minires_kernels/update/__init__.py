"""Update: one step of stochastic gradient descent with momentum and weight decay.

This is the one family whose kernel writes its arguments: parameter and velocity are the optimizer's own.

Contract, for each implementation, with g = grad + weight_decay * parameter (L2 penalty, coupled, as both ResNet papers
have it):

- ``torch`` form: v := momentum v + g;      parameter -= lr v               [nesterov: parameter -= lr (g + momentum v)]
- ``caffe`` form: v := momentum v + lr g;   parameter -= v                  [nesterov: parameter -= lr g + momentum v]

(v on the right of := is the old velocity, elsewhere the new one.) The two walk the same path while lr is constant and
part when it changes: Caffe's velocity still holds the old lr. Without momentum there is no velocity: None.

NaN and infinities: one in grad, parameter or velocity reaches the parameter and velocity at its own place alone; terms
whose factor (momentum, weight_decay) is 0 are left out, not multiplied.

Cost: 5 numbers moved an element (three reads, two writes); 3 without momentum. Bound by memory.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from minires_kernels.arrays import Array
from minires_kernels.fit import flag, number, require_alike, require_apart, require_writable
from minires_kernels.registry import select

FAMILY = "update"
KERNELS = {
    "sgd": ("parameter", "velocity"),
}
"""Each kernel, with the names of its results and of their axes: what a report of a difference calls them."""


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
    """One step, in place on ``parameter`` and ``velocity`` (like ``parameter``; None exactly when momentum is 0).

    ``grad`` is like ``parameter`` in shape and dtype and isn't written. The hyper-parameters are Python numbers.
    Raises what :func:`prepared` raises.
    """
    prepared(parameter, grad, velocity, lr, momentum, weight_decay, nesterov, caffe)()


def prepared(
    parameter: Array,
    grad: Array,
    velocity: Array | None,
    lr: float,
    momentum: float = 0.0,
    weight_decay: float = 0.0,
    nesterov: bool = False,
    caffe: bool = False,
) -> Callable[[], None]:
    """:func:`sgd` of these arguments, checked and not yet done: who moves many parameters prepares all of them first.

    Raises TypeError or ValueError unless all arrays are of one shape and dtype, and what is written isn't read-only,
    has each element at a place of its own, and shares no memory with the others. It changes nothing.
    """
    lr, momentum = number("update.sgd", "lr", lr), number("update.sgd", "momentum", momentum)
    weight_decay = number("update.sgd", "weight_decay", weight_decay)
    nesterov, caffe = flag("update.sgd", "nesterov", nesterov), flag("update.sgd", "caffe", caffe)
    if (velocity is None) != (momentum == 0):
        given = None if velocity is None else velocity.shape
        raise ValueError(f"update.sgd: there is a velocity exactly when momentum isn't 0; got {momentum = }, {given}")
    if velocity is None:
        require_alike("update.sgd", parameter=parameter, grad=grad)
        require_writable("update.sgd", parameter=parameter)
        require_apart("update.sgd", parameter=parameter, grad=grad)
    else:
        require_alike("update.sgd", parameter=parameter, grad=grad, velocity=velocity)
        require_writable("update.sgd", parameter=parameter, velocity=velocity)
        require_apart("update.sgd", parameter=parameter, grad=grad, velocity=velocity)
    arguments = parameter, grad, velocity, lr, momentum, weight_decay, nesterov, caffe
    return partial(select(FAMILY, "sgd", *arguments), *arguments)


def cost(size: int, momentum: bool = True, itemsize: int = 4) -> tuple[int, int]:
    """(floating-point operations, bytes that must move) for a parameter of ``size`` elements."""
    return (6 if momentum else 4) * size, (5 if momentum else 3) * itemsize * size
