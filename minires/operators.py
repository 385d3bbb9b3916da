"""The operators and methods of a Tensor: what one computes with it, as one line for each of algebra's Functions.

:class:`minires.Tensor` inherits all of it. A method checks its arguments, in the caller's words, and
applies a Function.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from minires import algebra, extremes
from minires.arguments import described, type_name
from minires.dtypes import admit, as_number, checked_dtype, common_dtype, to_array
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


_SIGNS = {
    operator.eq: "==", operator.ne: "!=", operator.lt: "<", operator.le: "<=", operator.gt: ">", operator.ge: ">="
}  # fmt: skip


class Operators(Reductions):
    """Arithmetic and the other methods of one element at a time; indexing; a change of type."""

    __slots__ = ()

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

    __iadd__ = _assigning("+=", __add__)
    __isub__ = _assigning("-=", __sub__)
    __imul__ = _assigning("*=", __mul__)
    __itruediv__ = _assigning("/=", __truediv__)
    __ipow__ = _assigning("**=", __pow__)
    __imatmul__ = _assigning("@=", __matmul__)

    def __getitem__(self, index: Any) -> Tensor:
        """``self[index]`` with NumPy's indexing; the result is a copy. A Tensor of integers or booleans will do too.

        Raises IndexError for what doesn't fit the shape, and for what is no index.

        >>> Tensor([[1.0, 2.0], [3.0, 4.0]])[:, 1]
        Tensor([2., 4.], (2,) float32)
        """
        try:
            return self._apply(algebra.Index(plain_index(index, array_module(self.data), Operators)), self)
        except (IndexError, TypeError, ValueError) as error:
            raise index_error(index, self.shape, error) from error

    def __len__(self) -> int:
        if not self.ndim:
            raise TypeError("len: a 0-d tensor has no length; its number is x.item()")
        return self.shape[0]

    def __iter__(self) -> Iterator[Tensor]:
        if not self.ndim:
            raise TypeError("iteration: a 0-d tensor has no rows; its number is x.item()")
        return (self[i] for i in range(len(self)))

    def __setitem__(self, index: Any, value: Any) -> None:
        raise TypeError(
            "x[...] = ...: a tensor's elements aren't assigned, since a graph may need them; choose with "
            "minires.functional.where, or, if no graph does, change the array: x.data[...] = ..."
        )

    def __delitem__(self, index: Any) -> None:
        raise TypeError("del x[...]: a tensor has no elements to lose; take what stays with a slice: y = x[1:]")

    def __getattr__(self, name: str) -> Any:
        raise unknown_attribute(self, name)

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
        sign = _SIGNS[comparison]
        if isinstance(other, Operators):
            array = other.data
        elif isinstance(other, (bool, int, np.integer, np.bool_)):
            array = int(other)  # Python's own numbers take the tensor's type, and may lie outside of its range
        elif isinstance(other, (float, np.floating)):
            array = float(other)
        elif isinstance(other, array_module(self.data).ndarray):
            array = admit(other, sign)
        elif isinstance(other, (list, tuple)):
            array = admit(to_array(other, sign), sign)
        elif hasattr(other, "__array__"):  # another library's numbers
            array = admit(np.asarray(other), sign)
        else:
            return NotImplemented  # type: ignore[no-any-return]
        try:
            return self._constant(comparison(self.data, array))
        except (ValueError, OverflowError) as error:  # shapes that don't fit; an integer that no float reaches
            reason = algebra.broadcast_problem(self.shape, np.shape(array)) or error
            raise ValueError(f"{sign}: {reason}") from error

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
                raise TypeError(f"{op}: expected a Tensor, an array or a number, got {type_name(other)}")
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
        """Each element without its sign; the slope at 0 is 0. Raises TypeError for booleans.

        >>> Tensor([-1.5, 2.0]).abs()
        Tensor([1.5, 2. ], (2,) float32)
        """
        return abs(self)

    def exp(self) -> Tensor:
        """e to the power of each element; whole numbers become float32, as in all that isn't whole.

        >>> Tensor([0.0, 1.0]).exp()
        Tensor([1. , 2.7183], (2,) float32)
        """
        return self._apply(algebra.Exp(), self._floating())

    def log(self) -> Tensor:
        """The natural logarithm of each element: -inf at 0, NaN below, and NumPy's warning with them.

        >>> Tensor([1.0, 10.0]).log()
        Tensor([0. , 2.3026], (2,) float32)
        """
        return self._apply(algebra.Log(), self._floating())

    def sqrt(self) -> Tensor:
        """The square root of each element: NaN below 0, with NumPy's warning; its slope at 0 is infinite.

        >>> Tensor([4.0, 2.0]).sqrt()
        Tensor([2. , 1.4142], (2,) float32)
        """
        return self._apply(algebra.Sqrt(), self._floating())

    @torch_keywords
    def clip(self, lower: float | None = None, upper: float | None = None) -> Tensor:
        """min(max(x, lower), upper), elementwise, for two numbers; None leaves that side open.

        The bounds never widen x: integers stay integers between integers, and become float32 between others. The
        gradient passes where lower <= x <= upper. Raises ValueError if lower > upper, and for a bound outside of the
        range of integers; TypeError for one that isn't a number.

        >>> Tensor([-1.0, 0.5, 7.0]).clip(0, 1)
        Tensor([0. , 0.5, 1. ], (3,) float32)
        """
        dtype, bounds = self.dtype, [_bound("lower", lower), _bound("upper", upper)]
        for bound in bounds:
            if bound is not None:
                dtype = common_dtype(dtype, as_number(bound, self.dtype, "clip").dtype, "clip")
        if None not in bounds and bounds[0] > bounds[1]:  # type: ignore[operator]
            raise ValueError(f"clip: lower must not exceed upper, got lower={lower}, upper={upper}")
        return self._apply(algebra.Clip(*bounds), self.astype(dtype)._not_boolean("clip"))

    def maximum(self, other: Any) -> Tensor:
        """The larger of the two, elementwise: ``other`` is a tensor, an array or a number; shapes broadcast.

        The gradient goes to the larger; of equals each gets half of it. A NaN on either side gives NaN. Raises
        TypeError for what is none of these, ValueError for shapes that don't broadcast.

        >>> Tensor([1.0, 5.0]).maximum(3)
        Tensor([3., 5.], (2,) float32)
        """
        return self._apply(extremes.Maximum(), *self._operands("maximum", other))

    def minimum(self, other: Any) -> Tensor:
        """The smaller of the two, elementwise: see :meth:`maximum`.

        >>> Tensor([1.0, 5.0]).minimum(Tensor([4.0, 2.0]))
        Tensor([1., 2.], (2,) float32)
        """
        return self._apply(extremes.Minimum(), *self._operands("minimum", other))

    def astype(self, dtype: Any) -> Tensor:
        """The same numbers in another type; the gradient flows back in this one's. Itself, if it has the type already.

        Raises TypeError for a type that no tensor has, and for integers or booleans where a gradient is required.

        >>> Tensor([1.0, 2.5]).astype(numpy.int64)
        Tensor([1, 2], (2,) int64)
        """
        dtype = checked_dtype(dtype, "astype")
        if dtype == self.dtype:
            return cast("Tensor", self)
        if self.requires_grad and dtype.kind != "f":
            raise TypeError(f"astype: a tensor that requires a gradient can't become {dtype}; detach it first")
        return self._apply(algebra.Cast(dtype), self)


def _bound(name: str, value: Any) -> float | None:
    """A bound of clip as Python's number: NumPy's float64 would widen a float32 array."""
    if value is None:
        return None
    if isinstance(value, (int, np.integer)):
        return int(value)
    if isinstance(value, (float, np.floating)):
        return float(value)
    raise TypeError(
        f"clip: {name} must be a number or None, got {described(value)}; for a bound for each element use "
        "x.maximum(lower) and x.minimum(upper)"
    )
