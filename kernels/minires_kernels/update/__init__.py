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

from minires_kernels.arrays import Array
from minires_kernels.registry import select

FAMILY = "update"
KERNELS = ("sgd",)


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
    """
    kernel = select(FAMILY, "sgd", parameter, grad, velocity, lr, momentum, weight_decay, nesterov, caffe)
    kernel(parameter, grad, velocity, lr, momentum, weight_decay, nesterov, caffe)


def cost(size: int, momentum: bool = True, itemsize: int = 4) -> tuple[int, int]:
    """(floating-point operations, bytes that must move) for a parameter of ``size`` elements."""
    return (6 if momentum else 4) * size, (5 if momentum else 3) * itemsize * size
