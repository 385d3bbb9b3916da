"""The operators and methods of a Tensor: what one computes with it, as one line for each of algebra's Functions.

:class:`minires.Tensor` inherits all of it. A method checks its arguments, in the caller's words, and
applies a Function.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from minires import algebra, extremes
from minires.arguments import described
from minires.indexing import index_error, plain_index
from minires.reductions import Reductions
from minires.vocabulary import torch_keywords, unknown_attribute
from minires_kernels.arrays import array_module

if TYPE_CHECKING:
    from minires.tensor import Tensor


def _assigning(sign: str, operate: Callable[[Any, Any], Tensor]) -> Callable[[Any, Any], Tensor]:
    """``x += y`` as x = x + y, a new tensor: refused for a leaf that learns, which would silently stay as it is."""

    def assign(self: Operators, other: Any) -> Tensor:
        if self.requires_grad and self.is_leaf:
            raise RuntimeError(
                f"w {sign} ...: w is a leaf that requires a gradient; this would give its name to a new tensor, and "
                f"leave it as it was; change its data, w.data {sign} ..., or give the result a name of its own"
            )
        return operate(self, other)

    return assign


class Operators(Reductions):
    """Arithmetic and the other methods of one element at a time; indexing; a change of type."""

    __slots__ = ()

    # ---------------------------------------------------------------- operators

    def __add__(self, other: Any) -> Tensor:
        return self._apply(algebra.Add(), *self._operands(other))

    def __radd__(self, other: Any) -> Tensor:
        return self._apply(algebra.Add(), *reversed(self._operands(other)))

    def __sub__(self, other: Any) -> Tensor:
        return self._apply(algebra.Sub(), *self._operands(other))

    def __rsub__(self, other: Any) -> Tensor:
        return self._apply(algebra.Sub(), *reversed(self._operands(other)))

    def __mul__(self, other: Any) -> Tensor:
        return self._apply(algebra.Mul(), *self._operands(other))

    def __rmul__(self, other: Any) -> Tensor:
        return self._apply(algebra.Mul(), *reversed(self._operands(other)))

    def __truediv__(self, other: Any) -> Tensor:
        return self._apply(algebra.Div(), *self._floating()._operands(other))

    def __rtruediv__(self, other: Any) -> Tensor:
        return self._apply(algebra.Div(), *reversed(self._floating()._operands(other)))

    def __pow__(self, other: Any) -> Tensor:
        return self._apply(algebra.Pow(), *self._operands(other))

    def __rpow__(self, other: Any) -> Tensor:
        return self._apply(algebra.Pow(), *reversed(self._operands(other)))

    def __matmul__(self, other: Any) -> Tensor:
        return self._apply(algebra.MatMul(), *self._operands(other))

    def __rmatmul__(self, other: Any) -> Tensor:
        return self._apply(algebra.MatMul(), *reversed(self._operands(other)))

    def __neg__(self) -> Tensor:
        return self._apply(algebra.Neg(), self)

    def __abs__(self) -> Tensor:
        return self._apply(algebra.Abs(), self)

    __iadd__ = _assigning("+=", __add__)
    __isub__ = _assigning("-=", __sub__)
    __imul__ = _assigning("*=", __mul__)
    __itruediv__ = _assigning("/=", __truediv__)
    __ipow__ = _assigning("**=", __pow__)
    __imatmul__ = _assigning("@=", __matmul__)

    def __getitem__(self, index: Any) -> Tensor:
        """``self[index]`` with NumPy's indexing; the result is a copy. A Tensor of integers or booleans will do too.

        Raises IndexError for what doesn't fit the shape, and for what is no index.
        """
        try:
            return self._apply(algebra.Index(plain_index(index, array_module(self.data), Operators)), self)
        except (IndexError, TypeError, ValueError) as error:
            raise index_error(index, self.shape, error) from error

    def __setitem__(self, index: Any, value: Any) -> None:
        raise TypeError(
            "x[...] = ...: a tensor's elements aren't assigned, since a graph may need them; choose with "
            "minires.functional.where, or, if no graph does, change the array: x.data[...] = ..."
        )

    def __delitem__(self, index: Any) -> None:
        raise TypeError("del x[...]: a tensor has no elements to lose; take what stays with a slice: y = x[1:]")

    def __getattr__(self, name: str) -> Any:
        raise unknown_attribute(self, name)

    def _operands(self, other: Any) -> tuple[Operators, Operators]:
        """This tensor and ``other`` in one dtype: numbers and integers take the other's, so they never promote it."""
        xp = array_module(self.data)
        if isinstance(other, (bool, int, float, np.generic)):
            is_whole = isinstance(other, (bool, int, np.integer, np.bool_))
            other = xp.asarray(other, dtype=self.dtype if self.dtype.kind == "f" or is_whole else np.float32)
        if isinstance(other, (np.ndarray, xp.ndarray)):
            other = self._constant(other)
        if not isinstance(other, Operators):
            raise TypeError(f"Tensor arithmetic: expected a Tensor, an array or a number, got {type(other).__name__}")
        if self.dtype.kind == "f" and other.dtype.kind != "f":
            return self, other.astype(self.dtype)
        if other.dtype.kind == "f" and self.dtype.kind != "f":
            return self.astype(other.dtype), other
        return self, other

    def _floating(self) -> Operators:
        """This tensor, or, when it holds integers, which NumPy would turn into float64, the same in float32."""
        return self if self.dtype.kind == "f" else self.astype(np.float32)

    # ---------------------------------------------------------------- methods

    def abs(self) -> Tensor:
        """\\|x\\|, elementwise."""
        return self._apply(algebra.Abs(), self)

    def exp(self) -> Tensor:
        """e^x, elementwise."""
        return self._apply(algebra.Exp(), self._floating())

    def log(self) -> Tensor:
        """The natural logarithm, elementwise."""
        return self._apply(algebra.Log(), self._floating())

    def sqrt(self) -> Tensor:
        """The square root, elementwise."""
        return self._apply(algebra.Sqrt(), self._floating())

    @torch_keywords
    def clip(self, lower: float | None = None, upper: float | None = None) -> Tensor:
        """min(max(x, lower), upper), elementwise, for two numbers; None leaves that side open.

        The gradient passes where lower <= x <= upper. Whole numbers between bounds that aren't become float32. Raises
        ValueError if lower > upper, TypeError for bounds that aren't numbers: for a bound for each element, use
        :meth:`maximum` and :meth:`minimum`.

        >>> minires.Tensor([-1.0, 0.5, 7.0]).clip(0, 1)
        Tensor([0. , 0.5, 1. ], (3,) float32)
        """
        low, high = _bound("lower", lower, -math.inf), _bound("upper", upper, math.inf)
        if low > high:
            raise ValueError(f"clip: lower must not exceed upper, got lower={lower}, upper={upper}")
        bounds = None if lower is None else low, None if upper is None else high
        if any(isinstance(bound, float) for bound in bounds):
            return self._apply(algebra.Clip(*bounds), self._floating())
        return self._apply(algebra.Clip(*_reached(self.dtype, *bounds)), self)

    def maximum(self, other: Any) -> Tensor:
        """The larger of the two, elementwise: ``other`` is a tensor, an array or a number; shapes broadcast.

        The gradient goes to the larger; of equals each gets half of it. A NaN on either side gives NaN. Raises
        TypeError for what is none of these, ValueError for shapes that don't broadcast.

        >>> minires.Tensor([1.0, 5.0]).maximum(3)
        Tensor([3., 5.], (2,) float32)
        """
        return self._apply(extremes.Maximum(), *self._operands(other))

    def minimum(self, other: Any) -> Tensor:
        """The smaller of the two, elementwise: see :meth:`maximum`.

        >>> minires.Tensor([1.0, 5.0]).minimum(minires.Tensor([4.0, 2.0]))
        Tensor([1., 2.], (2,) float32)
        """
        return self._apply(extremes.Minimum(), *self._operands(other))

    def astype(self, dtype: Any) -> Tensor:
        """The same numbers in another type; the gradient flows back in this one's."""
        if np.dtype(dtype) == self.dtype:
            return cast("Tensor", self)
        if self.requires_grad and np.dtype(dtype).kind != "f":
            raise TypeError(
                f"astype: a tensor that requires a gradient can't become {np.dtype(dtype)}; detach it first"
            )
        return self._apply(algebra.Cast(np.dtype(dtype)), self)


def _bound(name: str, value: Any, absent: float) -> float:
    """A bound of clip as Python's number: NumPy's would widen a float32 array."""
    if value is None:
        return absent
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, (int, float, np.integer, np.floating)):
        raise TypeError(
            f"clip: {name} must be a number or None, got {described(value)}; for a bound for each element use "
            "x.maximum(lower) and x.minimum(upper)"
        )
    return int(value) if isinstance(value, (int, np.integer)) else float(value)


def _reached(dtype: np.dtype[Any], lower: float | None, upper: float | None) -> tuple[float | None, float | None]:
    """Whole bounds, without those that lie beyond all numbers of an integer ``dtype``."""
    if dtype.kind not in "iu":
        return lower, upper
    least, most = np.iinfo(dtype).min, np.iinfo(dtype).max
    if (lower is not None and lower > most) or (upper is not None and upper < least):
        raise ValueError(f"clip: no {dtype} lies between lower={lower} and upper={upper}; use .astype(...) first")
    return None if lower is None or lower < least else lower, None if upper is None or upper > most else upper
