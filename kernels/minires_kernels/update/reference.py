"""SGD with the array library's own operations, a line for each line of the rule."""

from __future__ import annotations

from minires_kernels.arrays import Array

DEVICE = "any"


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
    g = grad + weight_decay * parameter if weight_decay else grad
    if velocity is None:
        parameter -= lr * g
        return
    velocity *= momentum
    velocity += lr * g if caffe else g
    if caffe:
        parameter -= lr * g + momentum * velocity if nesterov else velocity
    else:
        parameter -= lr * (g + momentum * velocity if nesterov else velocity)
