"""The methods of a Tensor that make fewer numbers of many: along one axis, several, or all.

``axis`` is an integer, a tuple of them, or None for all; ``keepdims`` leaves the axes that are gone as axes of length
1. torch's ``dim`` and ``keepdim`` are understood too (:mod:`minires.vocabulary`).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from minires import algebra, extremes
from minires.arguments import Axis, reduced_axes, require_axes, require_axis, require_flag, require_integer
from minires.graph import as_array
from minires.shapes import Shapes
from minires.vocabulary import torch_keywords

if TYPE_CHECKING:
    from minires.tensor import Tensor


class Reductions(Shapes):
    """Sums, means, extremes and where they are."""

    __slots__ = ()

    if TYPE_CHECKING:

        def _floating(self) -> Reductions:
            """This tensor, or, when it holds integers, the same in float32."""

        def astype(self, dtype: Any) -> Tensor:
            """The same numbers in another type."""

    @torch_keywords
    def sum(self, axis: Axis = None, keepdims: bool = False) -> Tensor:
        """The sum over ``axis``: an integer, a tuple of them, or None for all. The sum of nothing is 0.

        Integers and booleans add up in int64. Raises ValueError for an axis that isn't there or comes twice, TypeError
        for what isn't an integer.

        >>> Tensor([[1.0, 2.0], [3.0, 4.0]]).sum(axis=0)
        Tensor([4., 6.], (2,) float32)
        """
        is_short = self.dtype.kind != "f" and self.dtype.itemsize < 8
        total = algebra.Sum(*self._over("sum", axis, keepdims))
        return self._apply(total, self.astype(np.int64) if is_short else self)

    @torch_keywords
    def mean(self, axis: Axis = None, keepdims: bool = False) -> Tensor:
        """The mean over ``axis``: an integer, a tuple of them, or None for all. The mean of nothing is NaN.

        Whole numbers are averaged as float32. Raises ValueError and TypeError as :meth:`sum` does.

        >>> Tensor([[1.0, 2.0], [3.0, 4.0]]).mean(axis=(0, 1))
        Tensor(2.5, () float32)
        """
        axes, kept = self._over("mean", axis, keepdims)
        if not self._count(axes):
            return self._floating().sum(axes, kept) * math.nan
        return self._apply(algebra.Mean(axes, kept), self._floating())

    @torch_keywords
    def var(self, axis: Axis = None, correction: int = 0, keepdims: bool = False) -> Tensor:
        """The variance over ``axis``: the sum of squared deviations over (count - ``correction``).

        ``correction`` = 0, as in NumPy, is the biased variance that batch norm normalises with; 1, torch's default, the
        unbiased one. Raises ValueError for too few numbers, and ValueError and TypeError as :meth:`sum` does.

        >>> Tensor([1.0, 2.0, 3.0]).var(correction=1)
        Tensor(1., () float32)
        """
        axes, kept = self._over("var", axis, keepdims)
        lost = require_integer("var", "correction", correction)
        if lost < 0:
            raise ValueError(f"var: correction must not be negative, got {lost}")
        if self._count(axes) <= lost:
            raise ValueError(f"var: needs more than {lost} numbers along axis {axis}, got shape {self.shape}")
        return self._apply(algebra.Var(axes, lost, kept), self._floating())

    @torch_keywords
    def max(self, axis: Axis = None, keepdims: bool = False) -> Tensor:
        """The maximum over ``axis``: an integer, a tuple of them, or None for all.

        The first of equal maxima, in row order, receives the gradient, as in max pooling; torch's ``amax`` would spread
        it over all of them. A NaN is the maximum. Where torch's ``max(dim)`` returns a pair, the second is our
        :meth:`argmax`. Raises ValueError for a maximum of nothing, and ValueError and TypeError as :meth:`sum` does.

        >>> Tensor([[1.0, 5.0], [3.0, 4.0]]).max(axis=1)
        Tensor([5., 4.], (2,) float32)
        """
        return self._apply(extremes.Max(*self._over("max", axis, keepdims, at_least_one=True)), self)

    @torch_keywords
    def min(self, axis: Axis = None, keepdims: bool = False) -> Tensor:
        """The minimum over ``axis``: as :meth:`max`, with the first of equal minima for the gradient.

        >>> Tensor([[1.0, 5.0], [3.0, 4.0]]).min(axis=1)
        Tensor([1., 3.], (2,) float32)
        """
        return self._apply(extremes.Min(*self._over("min", axis, keepdims, at_least_one=True)), self)

    @torch_keywords
    def argmax(self, axis: int | None = None, keepdims: bool = False) -> Tensor:
        """Where the first maximum along ``axis`` is, or, for None, where in row order: int64, without a gradient.

        Raises ValueError for a maximum of nothing and for an axis that isn't there, TypeError for several axes.

        >>> Tensor([[1.0, 5.0], [3.0, 2.0]]).argmax(axis=1)
        Tensor([1, 0], (2,) int64)
        """
        return self._position("argmax", axis, keepdims)

    @torch_keywords
    def argmin(self, axis: int | None = None, keepdims: bool = False) -> Tensor:
        """Where the first minimum along ``axis`` is, or, for None, where in row order: see :meth:`argmax`.

        >>> Tensor([[1.0, 5.0], [3.0, 2.0]]).argmin()
        Tensor(0, () int64)
        """
        return self._position("argmin", axis, keepdims)

    @torch_keywords
    def any(self, axis: Axis = None, keepdims: bool = False) -> Tensor:
        """Whether any element along ``axis`` is True (of numbers: isn't 0): booleans, without a gradient.

        Of nothing it is False. Raises ValueError and TypeError as :meth:`sum` does.

        >>> Tensor([[True, False], [False, False]]).any(axis=1)
        Tensor([ True, False], (2,) bool)
        """
        axes, kept = self._over("any", axis, keepdims)
        return self._constant(as_array(self.data.any(axes, keepdims=kept)))

    @torch_keywords
    def all(self, axis: Axis = None, keepdims: bool = False) -> Tensor:
        """Whether all elements along ``axis`` are True (of numbers: aren't 0): booleans, without a gradient.

        Of nothing it is True. Raises ValueError and TypeError as :meth:`sum` does.

        >>> Tensor([[True, True], [True, False]]).all(axis=1)
        Tensor([ True, False], (2,) bool)
        """
        axes, kept = self._over("all", axis, keepdims)
        return self._constant(as_array(self.data.all(axes, keepdims=kept)))

    def _position(self, op: str, axis: Any, keepdims: Any) -> Tensor:
        if axis is not None:
            axis = require_axis(op, axis, self.ndim, f"shape {self.shape}", form="an integer or None")
        chosen, kept = self._over(op, axis, keepdims, at_least_one=True)
        return self._constant(as_array(getattr(self.data, op)(chosen, keepdims=kept)))

    def _over(self, op: str, axis: Any, keepdims: Any, *, at_least_one: bool = False) -> tuple[Axis, bool]:
        """The two arguments that all reductions have, checked."""
        axes, kept = require_axes(op, axis, self.ndim, f"shape {self.shape}"), require_flag(op, "keepdims", keepdims)
        if at_least_one and not self._count(axes):
            raise ValueError(f"{op}: there must be at least one element, but axis {axis} has none; shape {self.shape}")
        return axes, kept

    def _count(self, axes: Axis) -> int:
        """How many numbers a reduction over ``axes`` makes one of."""
        return math.prod(self.shape[axis] for axis in reduced_axes(axes, self.ndim))
