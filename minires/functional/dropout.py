"""Dropout."""

from __future__ import annotations

import numpy as np

from minires.arguments import require_flag, require_generator, require_number
from minires.function import Function
from minires.functional.checks import refuse_inplace, require_tensor
from minires.tensor import Tensor, apply
from minires_kernels.arrays import Array, array_module


class Dropout(Function):
    """x / (1 - p) where a random mask keeps it, else 0, so that the expectation stays x; dx = g / (1 - p), or 0.

    What is dropped is 0 even if it was infinite or NaN.
    """

    def __init__(self, p: float, rng: np.random.Generator) -> None:
        self.p, self._rng = p, rng

    def forward(self, x: Array) -> Array:
        kept = array_module(x).asarray(self._rng.random(x.shape, np.float32) >= self.p)
        self.save_for_backward(kept=kept)
        return self._scaled(x, kept)

    def backward(self, grad_output: Array) -> tuple[Array | None, ...]:
        return (self._scaled(grad_output, self.saved.kept),)

    def _scaled(self, x: Array, kept: Array) -> Array:
        scale = x.dtype.type(1 / (1 - self.p)) if self.p < 1 else x.dtype.type(0)  # if p = 1, nothing is kept
        return array_module(x).where(kept, x * scale, 0)


def dropout(
    x: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False, *, rng: np.random.Generator
) -> Tensor:
    """In training: each element zeroed with probability ``p``, the others multiplied by 1 / (1 - p). Else ``x`` itself.

    ``rng`` draws the mask. (Srivastava et al. 2014, in the form that leaves evaluation alone.) Raises ValueError unless
    0 <= p <= 1 and for ``inplace``, as in :func:`relu`, TypeError when ``rng`` is no ``numpy.random.Generator``.
    """
    require_tensor("dropout", "x", x)
    p = require_number("dropout", "p", p, least=0, most=1)
    require_flag("dropout", "training", training)
    refuse_inplace("dropout", inplace)
    require_generator("dropout", rng)
    return apply(Dropout(p, rng), x) if training and p > 0 else x
