"""What a caller passed, checked: numbers, integers, flags and axes. What doesn't fit is refused in the op's words."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from minires_kernels.window import is_integer, shown

Axis = int | tuple[int, ...] | None


def type_name(value: object) -> str:
    """The type of ``value``, with the library that it is from if that isn't a matter of course: ``torch.Tensor``."""
    kind = type(value)
    library = kind.__module__.partition(".")[0]
    return kind.__name__ if library in ("builtins", "numpy", "minires") else f"{library}.{kind.__name__}"


def described(value: Any) -> str:
    """What was passed, for the end of a message: a tensor by its kind, with the cure; anything else as written."""
    if not hasattr(value, "requires_grad"):
        return shown(value)
    cure = "; use .item()" if math.prod(value.shape) == 1 else ""
    return f"a {type_name(value)} of shape {tuple(value.shape)}{cure}"


def require_number(op: str, name: str, value: object, *, least: float | None = None, most: float = math.inf) -> float:
    """``value`` as a float. Raise TypeError unless it is a number.

    With ``least``, raise ValueError unless it is finite and ``least`` <= it <= ``most``.
    """
    if isinstance(value, bool) or not isinstance(value, (int, float, np.integer, np.floating)):
        raise TypeError(f"{op}: {name} must be a number, got {described(value)}")
    try:
        number = float(value)
    except OverflowError as error:
        raise ValueError(f"{op}: {name} is a whole number beyond all floats, got {shown(value)}") from error
    if least is not None and (not least <= number <= most or math.isinf(number)):
        limits = f"a finite number of at least {least}" if most == math.inf else f"a number from {least} to {most}"
        raise ValueError(f"{op}: {name} must be {limits}, got {shown(value)}")
    return number


def require_integer(op: str, name: str, value: Any, *, form: str = "an integer") -> int:
    """``value`` as an int. Raise TypeError unless it is a whole number, ValueError for one beyond 64 bits."""
    if not is_integer(value):
        raise TypeError(f"{op}: {name} must be {form}, got {described(value)}")
    number = int(value)
    if not -(1 << 63) <= number < 1 << 63:
        raise ValueError(f"{op}: {name} must be an integer of 64 bits, got {shown(value)}")
    return number


def require_flag(op: str, name: str, value: object) -> bool:
    """``value``. Raise TypeError unless it is True or False: a 2 or a "no" was meant for something else."""
    if not isinstance(value, (bool, np.bool_)):
        raise TypeError(f"{op}: {name} must be True or False, got {described(value)}")
    return bool(value)


def require_generator(op: str, rng: object) -> np.random.Generator:
    """``rng``. Raise TypeError unless it is a Generator of NumPy's: a seed, or numpy.random itself, isn't one."""
    if not isinstance(rng, np.random.Generator):
        raise TypeError(
            f"{op}: rng must be a numpy.random.Generator, got {type(rng).__name__}; numpy.random.default_rng(seed) "
            "makes one"
        )
    return rng


def require_axis(op: str, axis: object, ndim: int, shape: str, *, name: str = "axis", form: str = "an integer") -> int:
    """``axis``, counted from the front. Raise TypeError or ValueError unless it is one of the ``ndim`` axes."""
    number = require_integer(op, name, axis, form=form)
    if not -ndim <= number < ndim:
        raise ValueError(f"{op}: {name} {number} doesn't exist in {shape}")
    return number % ndim


def require_axes(op: str, axis: Any, ndim: int, shape: str) -> Axis:
    """``axis`` as reductions take it: one of ``ndim``, a tuple (or list) of different ones, or None for all."""
    form = "an integer, a tuple of integers or None"
    if axis is None:
        return None
    if not isinstance(axis, (tuple, list)):
        return require_axis(op, axis, ndim, shape, form=form)
    chosen = tuple(require_axis(op, each, ndim, shape, form=form) for each in axis)
    for each in chosen:
        if chosen.count(each) > 1:
            raise ValueError(f"{op}: axis {axis} names axis {each} twice; {shape}")
    return chosen


def reduced_axes(axis: Axis, ndim: int) -> tuple[int, ...]:
    """The axes that a reduction over ``axis`` takes away, in order, from 0 on."""
    if axis is None:
        return tuple(range(ndim))
    return tuple(sorted(each % ndim for each in (axis if isinstance(axis, tuple) else (axis,))))
