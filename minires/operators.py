"""The operators and methods of a Tensor: what one computes with it, as one line for each of algebra's Functions.

:class:`minires.Tensor` inherits all of it. A method checks its arguments, in the caller's words, and
applies a Function.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from minires import algebra
from minires.algebra import Axis
from minires.dtypes import admit, as_number, checked_dtype, common_dtype
from minires.function import Function
from minires_kernels.arrays import Array, array_module

if TYPE_CHECKING:
    from minires.tensor import Tensor


class Operators:
    """What arithmetic needs of a tensor: its ``data``, and two methods that make new ones."""

    __slots__ = ()

    _data: Array

    if TYPE_CHECKING:

        def _apply(self, function: Function, *inputs: Any) -> Tensor:
            """The result of ``function``, as a node of the graph."""

        def _constant(self, array: Array) -> Tensor:
            """A tensor of ``array`` that no gradient flows to."""

        @property
        def data(self) -> Array:
            """Its numbers."""

        @property
        def requires_grad(self) -> bool:
            """Whether backward computes its gradient."""

    # ---------------------------------------------------------------- what it is

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

    # ---------------------------------------------------------------- operators

    def __add__(self, other: Any) -> Tensor:
        return self._apply(algebra.Add(), *self._operands("+", other))

    def __radd__(self, other: Any) -> Tensor:
        return self._apply(algebra.Add(), *reversed(self._operands("+", other)))

    def __sub__(self, other: Any) -> Tensor:
        return self._apply(algebra.Sub(), *self._arithmetic("-", other))

    def __rsub__(self, other: Any) -> Tensor:
        return self._apply(algebra.Sub(), *reversed(self._arithmetic("-", other)))

    def __mul__(self, other: Any) -> Tensor:
        return self._apply(algebra.Mul(), *self._operands("*", other))

    def __rmul__(self, other: Any) -> Tensor:
        return self._apply(algebra.Mul(), *reversed(self._operands("*", other)))

    def __truediv__(self, other: Any) -> Tensor:
        x, y = self._fractions(other)
        return self._apply(algebra.Div(), x, y)

    def __rtruediv__(self, other: Any) -> Tensor:
        x, y = self._fractions(other)
        return self._apply(algebra.Div(), y, x)

    def __pow__(self, other: Any) -> Tensor:
        x, y = self._arithmetic("**", other)
        return self._apply(algebra.Pow(), x, y._exponent())

    def __rpow__(self, other: Any) -> Tensor:
        x, y = self._arithmetic("**", other)
        return self._apply(algebra.Pow(), y, x._exponent())

    def __matmul__(self, other: Any) -> Tensor:
        return self._apply(algebra.MatMul(), *self._arithmetic("@", other))

    def __rmatmul__(self, other: Any) -> Tensor:
        return self._apply(algebra.MatMul(), *reversed(self._arithmetic("@", other)))

    def __neg__(self) -> Tensor:
        return self._apply(algebra.Neg(), self._not_boolean("-"))

    def __abs__(self) -> Tensor:
        return self._apply(algebra.Abs(), self._not_boolean("abs"))

    def __getitem__(self, index: Any) -> Tensor:
        """``self[index]`` with NumPy's indexing; the result is a copy. A Tensor of integers serves as an index too."""
        return self._apply(algebra.Index(_plain_index(index)), self)

    # Comparisons: elementwise on the numbers, without a gradient. What isn't a number is never equal, as in Python.

    def __eq__(self, other: object) -> Tensor:  # type: ignore[override]
        return self._compare(operator.eq, other)

    def __ne__(self, other: object) -> Tensor:  # type: ignore[override]
        return self._compare(operator.ne, other)

    def __lt__(self, other: object) -> Tensor:
        return self._compare(operator.lt, other)

    def __le__(self, other: object) -> Tensor:
        return self._compare(operator.le, other)

    def __gt__(self, other: object) -> Tensor:
        return self._compare(operator.gt, other)

    def __ge__(self, other: object) -> Tensor:
        return self._compare(operator.ge, other)

    __hash__ = object.__hash__  # a tensor is a key by identity, whatever it holds

    def _compare(self, comparison: Callable[[Any, Any], Any], other: object) -> Tensor:
        """``comparison`` of the numbers of both, as booleans; NotImplemented for what has no numbers."""
        if isinstance(other, Operators):
            array = other.data
        elif isinstance(other, (bool, int, np.integer, np.bool_)):
            array = int(other)  # Python's own numbers take the tensor's type, and may lie outside of its range
        elif isinstance(other, (float, np.floating)):
            array = float(other)
        elif isinstance(other, array_module(self.data).ndarray):
            array = admit(other, "comparison")
        elif hasattr(other, "__array__"):  # another library's numbers
            array = admit(np.asarray(other), "comparison")
        else:
            return NotImplemented  # type: ignore[no-any-return]
        try:
            return self._constant(comparison(self.data, array))
        except (ValueError, OverflowError) as error:  # shapes that don't fit; an integer that no float reaches
            raise ValueError(f"comparison: {error}; shapes {self.shape} and {np.shape(array)}") from error

    def _operands(self, op: str, other: Any) -> tuple[Operators, Operators]:
        """This tensor and ``other`` in one dtype: numbers and integers take the other's, so they never promote it."""
        if not isinstance(other, Operators):
            xp = array_module(self.data)
            if isinstance(other, (bool, int, float, np.generic)):
                other = self._constant(xp.asarray(as_number(other, self.dtype, op)))
            elif isinstance(other, (np.ndarray, xp.ndarray)):
                # a copy, where backward must see what forward saw: the array stays the caller's
                other = self._constant(other.copy() if self.requires_grad else other)
            else:
                kind = type(other)
                origin = "" if kind.__module__ == "builtins" else f"{kind.__module__}."
                raise TypeError(f"{op}: expected a Tensor, an array or a number, got {origin}{kind.__name__}")
        mine, others = self.dtype, other.dtype
        if mine is others:
            return self, other
        common = common_dtype(mine, others, op)
        if common.kind == "f" and mine.kind != "f":
            return self.astype(common), other
        if common.kind == "f" and others.kind != "f":
            return self, other.astype(common)
        return self, other

    def _arithmetic(self, op: str, other: Any) -> tuple[Operators, Operators]:
        """As :meth:`_operands`, for what booleans alone can't do: a difference, a power, a product of matrices."""
        x, y = self._operands(op, other)
        if x.dtype.kind == "b":
            y._not_boolean(op)
        return x, y

    def _fractions(self, other: Any) -> tuple[Operators, Operators]:
        """As :meth:`_operands`, for a quotient: of whole numbers it is float32."""
        x = self._floating() if isinstance(other, (bool, int, float, np.generic)) else self
        x, y = x._operands("/", other)
        return x._floating(), y._floating()

    def _not_boolean(self, op: str) -> Operators:
        if self.dtype.kind == "b":
            raise TypeError(f"{op}: not defined for booleans; convert them first: .astype(numpy.int64)")
        return self

    def _exponent(self) -> Operators:
        if self.dtype.kind == "i" and bool((self.data < 0).any()):
            raise ValueError(
                "**: integers have no negative powers among integers; convert them first: .astype(numpy.float32)"
            )
        return self

    def _floating(self) -> Operators:
        """This tensor, or, when it holds integers, which NumPy would turn into float64, the same in float32."""
        return self if self.dtype.kind == "f" else self.astype(np.float32)

    # ---------------------------------------------------------------- methods

    def abs(self) -> Tensor:
        """\\|x\\|, elementwise."""
        return abs(self)

    def exp(self) -> Tensor:
        """e^x, elementwise."""
        return self._apply(algebra.Exp(), self._floating())

    def log(self) -> Tensor:
        """The natural logarithm, elementwise."""
        return self._apply(algebra.Log(), self._floating())

    def sqrt(self) -> Tensor:
        """The square root, elementwise."""
        return self._apply(algebra.Sqrt(), self._floating())

    def clip(self, lower: float | None = None, upper: float | None = None) -> Tensor:
        """min(max(x, lower), upper), elementwise; None leaves that side open. Raises ValueError if lower > upper.

        The bounds are numbers and never widen x: integers stay integers between integers, and become float32 between
        others. Raises TypeError for a bound that isn't a number, ValueError for one outside of the range of integers.
        """
        dtype = self.dtype
        for bound in (lower, upper):
            if bound is not None:
                dtype = common_dtype(dtype, as_number(bound, self.dtype, "clip").dtype, "clip")
        if lower is not None and upper is not None and lower > upper:
            raise ValueError(f"clip: lower must not exceed upper, got lower={lower}, upper={upper}")
        # NumPy's float64 scalars would widen float32 arrays, Python's numbers don't
        bounds = (each.item() if isinstance(each, np.generic) else each for each in (lower, upper))
        return self._apply(algebra.Clip(*bounds), self.astype(dtype))

    def sum(self, axis: Axis = None, keepdims: bool = False) -> Tensor:
        """The sum over ``axis``: an int, a tuple of them, or None for all. Integers and booleans add up in int64."""
        is_short = self.dtype.kind != "f" and self.dtype.itemsize < 8
        return self._apply(algebra.Sum(self._axis("sum", axis), keepdims), self.astype(np.int64) if is_short else self)

    def mean(self, axis: Axis = None, keepdims: bool = False) -> Tensor:
        """The mean over ``axis``: an int, a tuple of them, or None for all. That of integers is float32."""
        return self._apply(algebra.Mean(self._axis("mean", axis), keepdims), self._floating())

    def var(self, axis: Axis = None, correction: int = 0, keepdims: bool = False) -> Tensor:
        """The variance over ``axis``: the sum of squared deviations over (count - ``correction``).

        correction=0 is the biased variance that batch norm normalises with, 1 the unbiased one.
        """
        axes = self._axis("var", axis)
        count = self.size // max(1, np.empty(self.shape, bool).sum(axes).size) if self.size else 0
        if count <= correction:
            raise ValueError(f"var: needs more than {correction} numbers along axis {axis}, got shape {self.shape}")
        return self._apply(algebra.Var(axes, correction, keepdims), self._floating())

    def max(self, axis: int | None = None, keepdims: bool = False) -> Tensor:
        """The maximum over one axis, or over all; the first of equal maxima receives the gradient."""
        if isinstance(axis, tuple):
            raise TypeError(f"max: axis must be one integer, or None for all axes, got {axis}")
        return self._apply(algebra.Max(self._axis("max", axis), keepdims), self)  # type: ignore[arg-type]

    def reshape(self, *shape: Any) -> Tensor:
        """The same numbers in another shape; one length may be -1. Raises ValueError when the counts differ."""
        lengths = tuple(shape[0]) if len(shape) == 1 and isinstance(shape[0], Sequence) else tuple(shape)
        known = 1
        for length in lengths:
            known *= length if length != -1 else 1
        if (
            lengths.count(-1) > 1
            or min(lengths, default=0) < -1
            or (-1 in lengths and (not known or self.size % known))
        ):
            raise ValueError(f"reshape: cannot turn shape {self.shape} into {lengths}")
        if -1 not in lengths and known != self.size:
            raise ValueError(f"reshape: shape {self.shape} has {self.size} elements, {lengths} has {known}")
        return self._apply(algebra.Reshape(lengths), self)

    def flatten(self, start_axis: int = 0, end_axis: int = -1) -> Tensor:
        """The axes from ``start_axis`` to ``end_axis`` (inclusive) merged into one."""
        axes = max(self.ndim, 1)  # a number becomes one axis of length 1
        if not (-axes <= start_axis < axes and -axes <= end_axis < axes):
            raise ValueError(f"flatten: axes {start_axis} and {end_axis} don't both exist in shape {self.shape}")
        start, end = start_axis % axes, end_axis % axes
        if start > end:
            raise ValueError(f"flatten: start_axis {start_axis} lies behind end_axis {end_axis}; shape {self.shape}")
        merged = 1
        for length in self.shape[start : end + 1]:
            merged *= length
        return self.reshape((*self.shape[:start], merged, *self.shape[end + 1 :]))

    def permute(self, *axes: Any) -> Tensor:
        """The axes in another order. Raises ValueError unless each axis is named once."""
        order = tuple(axes[0]) if len(axes) == 1 and isinstance(axes[0], Sequence) else tuple(axes)
        if sorted(axis + self.ndim if axis < 0 else axis for axis in order) != list(range(self.ndim)):
            raise ValueError(f"permute: {order} doesn't name each axis of shape {self.shape} once")
        return self._apply(algebra.Permute(order), self)

    def transpose(self, axis0: int = -2, axis1: int = -1) -> Tensor:
        """Two axes exchanged: by default the last two."""
        order = list(range(self.ndim))
        if not (-self.ndim <= axis0 < self.ndim and -self.ndim <= axis1 < self.ndim):
            raise ValueError(f"transpose: axes {axis0} and {axis1} don't both exist in shape {self.shape}")
        order[axis0], order[axis1] = order[axis1], order[axis0]
        return self.permute(order)

    @property
    def T(self) -> Tensor:
        """The axes in reverse order."""
        return self.permute(tuple(reversed(range(self.ndim))))

    def astype(self, dtype: Any) -> Tensor:
        """The same numbers in another type; the gradient flows back in this one's."""
        dtype = checked_dtype(dtype, "astype")
        if dtype == self.dtype:
            return cast("Tensor", self)
        if self.requires_grad and dtype.kind != "f":
            raise TypeError(f"astype: a tensor that requires a gradient can't become {dtype}; detach it first")
        return self._apply(algebra.Cast(dtype), self)

    def _axis(self, op: str, axis: Axis) -> Axis:
        for each in () if axis is None else axis if isinstance(axis, tuple) else (axis,):
            if not -self.ndim <= each < self.ndim:
                raise ValueError(f"{op}: axis {each} doesn't exist in shape {self.shape}")
        return axis


def _plain_index(index: Any) -> Any:
    """``index`` as NumPy takes it, nothing of which can change any more: backward must see what forward saw."""
    if isinstance(index, tuple):
        return tuple(map(_plain_index, index))
    if isinstance(index, list):
        return [_plain_index(part) for part in index]
    if isinstance(index, slice):
        return slice(*map(_plain_index, (index.start, index.stop, index.step)))
    array = index.data if isinstance(index, Operators) else index
    if hasattr(array, "__array_interface__") or hasattr(array, "__cuda_array_interface__"):
        return array.copy()
    return np.array(array) if hasattr(array, "__len__") else array  # other sequences: a range, an array.array
