"""Small right functions of every layer that a mistake can sit in: what mutants are tried on.

Odd shapes on purpose, but with channels equal and kernels square where a mistake (a transposed weight) needs that to
go unnoticed by the shapes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from minires import functional
from minires.checking.mutants import Mutant
from minires.tensor import Tensor
from minires_kernels.arrays import Array


@dataclass(frozen=True)
class Case:
    """A function of tensors and the arrays to call it with."""

    name: str
    fn: Callable[..., Tensor]
    arrays: tuple[Array, ...]


def _normal(*shape: int) -> Array:
    return np.random.default_rng((41, *shape)).standard_normal(shape)


def _positive(*shape: int) -> Array:
    return np.abs(_normal(*shape)) + 0.5


_TARGET = np.array([2, 0, 3, 3, 1])
_MEAN, _VARIANCE = _normal(3), _positive(3)

CASES: dict[str, tuple[Case, ...]] = {
    "Conv2d": (
        Case(
            "conv2d, 3x3",
            lambda x, weight, bias: functional.conv2d(x, weight, bias, padding=1),
            (_normal(3, 3, 4, 4), _normal(3, 3, 3, 3), _normal(3)),
        ),
        Case(
            "conv2d, stride 2",
            lambda x, weight, bias: functional.conv2d(x, weight, bias, stride=2, padding=1),
            (_normal(2, 2, 5, 4), _normal(3, 2, 3, 3), _normal(3)),
        ),
    ),
    "BatchNorm": (
        Case(
            "batch_norm",
            lambda x, weight, bias: functional.batch_norm(x, None, None, weight, bias, training=True),
            (3 * _normal(3, 3, 2, 3) + 2, _positive(3) + 0.7, _normal(3)),
        ),
    ),
    "Normalize": (
        Case(
            "batch_norm in evaluation",
            lambda x, weight, bias: functional.batch_norm(x, _MEAN, _VARIANCE, weight, bias),
            (_normal(3, 3, 2, 3), _positive(3), _normal(3)),
        ),
    ),
    "BatchNormReLU": (
        Case(
            "batch_norm_relu with a shortcut",
            lambda x, weight, bias, addend: functional.batch_norm_relu(
                x, None, None, weight, bias, addend, training=True
            ),
            (_normal(3, 3, 2, 3), _positive(3), _normal(3), _normal(3, 3, 2, 3)[::-1]),
        ),
    ),
    "ReLU": (
        Case("relu", functional.relu, (_normal(4, 5),)),
        Case("x + relu(x)", lambda x: x + functional.relu(x * 2), (_normal(4, 5),)),
    ),
    "MaxPool2d": (
        Case("max_pool2d", lambda x: functional.max_pool2d(x, 3, stride=2, padding=1), (_normal(2, 2, 5, 6),)),
    ),
    "AvgPool2d": (
        Case("avg_pool2d", lambda x: functional.avg_pool2d(x, 3, stride=2, padding=1), (_normal(2, 2, 5, 6),)),
    ),
    "AdaptiveAvgPool2d": (
        Case("global average", lambda x: functional.adaptive_avg_pool2d(x, 1), (_normal(2, 3, 4, 5),)),
    ),
    "Linear": (Case("linear", functional.linear, (_normal(5, 4), _normal(4, 4), _normal(4))),),
    "Softmax": (Case("softmax", lambda x: functional.softmax(x, 1), (_normal(3, 5),)),),
    "LogSoftmax": (Case("log_softmax", lambda x: functional.log_softmax(x, 1), (_normal(3, 5),)),),
    "CrossEntropy": (
        Case("cross_entropy", lambda logits: functional.cross_entropy(logits, _TARGET), (_normal(5, 4),)),
    ),
    "Add": (
        Case("x + y", lambda x, y: x + y, (_normal(3, 4), _normal(3, 4)[::-1])),
        Case("x + y, broadcast", lambda x, y: x + y, (_normal(3, 4), _normal(4))),
    ),
    "Mul": (Case("x * y", lambda x, y: x * y, (_normal(3, 4), _positive(3, 4))),),
    "Tensor": (
        Case("x + tanh(x)", lambda x: x + functional.tanh(x), (_normal(3, 4),)),
        Case("x * x.exp()", lambda x: x * x.exp(), (_normal(3, 4),)),
    ),
    "SubsampleAndPad": (
        Case("subsample_and_pad", lambda x: functional.subsample_and_pad(x, 5, 2), (_normal(2, 3, 5, 6),)),
    ),
}
"""Function class -> cases that apply it; the first one shows its mistakes best."""


def cases_for(mutant: Mutant) -> tuple[Case, ...]:
    """The cases in which ``mutant`` can show."""
    return CASES[mutant.target.__name__]
