"""What a caller passed, checked: integers, flags and axes. What doesn't fit is refused in the words of the op."""

from __future__ import annotations

import operator
from typing import Any

import numpy as np

Axis = int | tuple[int, ...] | None


def type_name(value: object) -> str:
    """The type of ``value``, with the library that it is from if that isn't a matter of course: ``torch.Tensor``."""
    kind = type(value)
    library = kind.__module__.partition(".")[0]
    return kind.__name__ if library in ("builtins", "numpy", "minires") else f"{library}.{kind.__name__}"


def described(value: object) -> str:
    """``None``, ``float 1.0``, ``str 'yes'``, ``ndarray``: what was passed, for the end of a message."""
    if value is None:
        return "None"
    return f"{type_name(value)} {value!r:.60}" if isinstance(value, (bool, int, float, str)) else type_name(value)


def integer(op: str, name: str, value: Any, *, form: str = "an integer") -> int:
    """``value`` as Python's int. Raises TypeError for anything else: booleans and floats of whole numbers too."""
    if not isinstance(value, (bool, np.bool_)):
        try:
            return operator.index(value)
        except TypeError:
            pass
    raise TypeError(f"{op}: {name} must be {form}, got {described(value)}")


def flag(op: str, name: str, value: Any) -> bool:
    """``value``, a boolean. Raises TypeError for anything else: what is meant by ``"no"`` can't be known."""
    if isinstance(value, (bool, np.bool_)):
        return bool(value)
    raise TypeError(f"{op}: {name} must be True or False, got {described(value)}")


def one_axis(op: str, axis: Any, shape: tuple[int, ...], *, name: str = "axis", form: str = "an integer") -> int:
    """``axis``, an axis of ``shape``, negative ones counted from the end. Raises TypeError or ValueError."""
    number = integer(op, name, axis, form=form)
    if not -len(shape) <= number < len(shape):
        raise ValueError(f"{op}: {name} {number} doesn't exist in shape {shape}")
    return number


def any_axes(op: str, axis: Any, shape: tuple[int, ...]) -> Axis:
    """``axis`` as reductions take it: an axis of ``shape``, a tuple (or list) of different ones, or None for all."""
    form = "an integer, a tuple of integers or None"
    if axis is None:
        return None
    if not isinstance(axis, (tuple, list)):
        return one_axis(op, axis, shape, form=form)
    chosen = tuple(one_axis(op, each, shape, form=form) for each in axis)
    named = [each % len(shape) for each in chosen]
    for each in named:
        if named.count(each) > 1:
            raise ValueError(f"{op}: axis {chosen} names axis {each} twice; shape {shape}")
    return chosen


def reduced_axes(axis: Axis, ndim: int) -> tuple[int, ...]:
    """The axes that a reduction over ``axis`` takes away, in order, from 0 on."""
    if axis is None:
        return tuple(range(ndim))
    return tuple(sorted(each % ndim for each in (axis if isinstance(axis, tuple) else (axis,))))
