"""The shape of a Tensor, and the methods that change it: what :class:`minires.Tensor` inherits first."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from minires import algebra
from minires.arguments import require_axis, require_integer
from minires.function import Function
from minires.vocabulary import torch_keywords
from minires_kernels.arrays import Array

if TYPE_CHECKING:
    from minires.tensor import Tensor


class Shapes:
    """What arithmetic needs of a tensor: its ``data``, and two methods that make new ones. And its shape."""

    __slots__ = ()

    _data: Array

    if TYPE_CHECKING:

        @property
        def data(self) -> Array:
            """Its numbers."""

        @property
        def requires_grad(self) -> bool:
            """Whether backward computes its gradient."""

        @property
        def is_leaf(self) -> bool:
            """Whether no Function made it."""

        def _apply(self, function: Function, *inputs: Any) -> Tensor:
            """The result of ``function``, as a node of the graph."""

        def _constant(self, array: Array) -> Tensor:
            """A tensor of ``array`` that no gradient flows to."""

    @property
    def shape(self) -> tuple[int, ...]:
        """The lengths of its axes."""
        return self._data.shape  # type: ignore[no-any-return]

    @property
    def ndim(self) -> int:
        """The number of its axes."""
        return self._data.ndim  # type: ignore[no-any-return]

    @property
    def size(self) -> int:
        """The number of its elements."""
        return self._data.size  # type: ignore[no-any-return]

    @property
    def dtype(self) -> np.dtype[Any]:
        """The type of its elements."""
        return self._data.dtype  # type: ignore[no-any-return]

    def reshape(self, *shape: Any) -> Tensor:
        """The same numbers, in row order, in another shape: lengths, or a tuple or list of them; one may be -1.

        Raises ValueError when the counts differ, TypeError for lengths that aren't integers.

        >>> Tensor([1.0, 2.0, 3.0, 4.0]).reshape(2, -1)
        Tensor([[1., 2.], [3., 4.]], (2, 2) float32)
        """
        lengths = _integers("reshape", "each length", shape)
        known = math.prod(length for length in lengths if length != -1)
        if (
            lengths.count(-1) > 1
            or min(lengths, default=0) < -1
            or (-1 in lengths and (not known or self.size % known))
        ):
            raise ValueError(f"reshape: cannot turn shape {self.shape} into {lengths}")
        if -1 not in lengths and known != self.size:
            raise ValueError(f"reshape: shape {self.shape} has {self.size} elements, {lengths} has {known}")
        if len(lengths) > _MOST_AXES:
            raise ValueError(
                f"reshape: cannot turn shape {self.shape} into one of {len(lengths)} axes; NumPy has at most 64"
            )
        if math.prod(length for length in lengths if length > 0) > _LONGEST:
            raise ValueError(f"reshape: cannot turn shape {self.shape} into {lengths}, which is too large for an array")
        return self._apply(algebra.Reshape(lengths), self)

    @torch_keywords
    def flatten(self, start_axis: int = 0, end_axis: int = -1) -> Tensor:
        """The axes from ``start_axis`` to ``end_axis``, both included, merged into one; of a 0-d tensor shape (1,).

        Raises ValueError for axes that don't exist or are in the wrong order, TypeError for what isn't an integer.

        >>> Tensor(numpy.zeros((2, 3, 4))).flatten(1).shape
        (2, 12)
        """
        lengths = self.shape or (1,)  # a number becomes one axis of length 1
        start = require_axis("flatten", start_axis, len(lengths), f"shape {self.shape}", name="start_axis")
        end = require_axis("flatten", end_axis, len(lengths), f"shape {self.shape}", name="end_axis")
        if start > end:
            raise ValueError(f"flatten: start_axis {start_axis} lies behind end_axis {end_axis}; shape {self.shape}")
        merged = math.prod(lengths[start : end + 1])
        return self.reshape((*lengths[:start], merged, *lengths[end + 1 :]))

    def permute(self, *axes: Any) -> Tensor:
        """The axes in another order: integers, or a tuple or list of them, each axis once.

        Raises ValueError unless each axis is named once, TypeError for what isn't an integer.

        >>> Tensor(numpy.zeros((2, 3, 4))).permute(2, 0, 1).shape
        (4, 2, 3)
        """
        order = _integers("permute", "each axis", axes)
        if sorted(axis + self.ndim if axis < 0 else axis for axis in order) != list(range(self.ndim)):
            raise ValueError(f"permute: {order} doesn't name each axis of shape {self.shape} once")
        return self._apply(algebra.Permute(order), self)

    @torch_keywords
    def transpose(self, axis0: int = -2, axis1: int = -1) -> Tensor:
        """Two axes exchanged: by default the last two. Raises ValueError for axes that don't exist.

        >>> Tensor(numpy.zeros((2, 3, 4))).transpose().shape
        (2, 4, 3)
        """
        order = list(range(self.ndim))
        first = require_axis("transpose", axis0, self.ndim, f"shape {self.shape}", name="axis0")
        second = require_axis("transpose", axis1, self.ndim, f"shape {self.shape}", name="axis1")
        order[first], order[second] = order[second], order[first]
        return self.permute(order)

    @property
    def T(self) -> Tensor:
        """The axes in reverse order: of a matrix, rows as columns.

        >>> Tensor([[1.0, 2.0]]).T
        Tensor([[1.], [2.]], (2, 1) float32)
        """
        return self.permute(tuple(reversed(range(self.ndim))))


_MOST_AXES = 64
_LONGEST = np.iinfo(np.intp).max


def _integers(op: str, name: str, values: tuple[Any, ...]) -> tuple[int, ...]:
    """``values``, or the one tuple or list among them, as integers."""
    listed = values[0] if len(values) == 1 and isinstance(values[0], Sequence) else values
    return tuple(require_integer(op, name, value) for value in listed)
