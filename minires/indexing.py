"""What may stand in ``x[...]``: made independent of the caller's lists and arrays, explained where it doesn't fit."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np

from minires.arguments import described, type_name

_ALLOWED = (
    "an index is an integer, a slice, `...`, None, or an array, a list or a Tensor of integers or booleans, or a tuple "
    "of these"
)


def plain_index(index: Any, xp: Any, tensor: type[Any]) -> Any:
    """``index`` with arrays of its own, of ``xp``'s, for lists, arrays and tensors: backward must see what forward saw.

    ``tensor``: the class whose ``data`` is meant where one of its instances is an index.
    """
    if isinstance(index, tuple):
        return tuple(plain_index(part, xp, tensor) for part in index)
    if isinstance(index, slice):
        return slice(*(plain_index(part, xp, tensor) for part in (index.start, index.stop, index.step)))
    if isinstance(index, list):
        return xp.array([plain_index(part, xp, tensor) for part in index]) if index else xp.zeros(0, int)
    array = index.data if isinstance(index, tensor) else index
    if hasattr(array, "__array_interface__") or hasattr(array, "__cuda_array_interface__"):
        return array.copy()
    return xp.asarray(array).copy() if hasattr(array, "__len__") else array  # other sequences: a range, an array.array


def index_error(index: Any, shape: tuple[int, ...], error: Exception) -> IndexError:
    """The IndexError for ``x[index]`` on an x of ``shape``, which NumPy refused with ``error``."""
    parts = index if isinstance(index, tuple) else (index,)
    faults = (_fault(part) for part in parts)
    reason = next((fault for fault in faults if fault), None) or _misfit(parts, shape) or str(error).strip()
    return IndexError(f"Tensor index: {reason}; shape {shape}")


def _fault(part: Any) -> str | None:
    """What is wrong with one part of an index, whatever it is applied to."""
    if isinstance(part, slice):
        for each in (part.start, part.stop, part.step):
            if each is not None and not hasattr(each, "__index__"):
                return f"{_ALLOWED}, got {described(each)} in a slice"
        return "the step of a slice must not be 0" if part.step == 0 else None
    if isinstance(part, list):
        try:
            part = np.array(part)
        except ValueError:
            return f"{_ALLOWED}, got a list of lists of different lengths"
    dtype = getattr(part, "dtype", None)
    if isinstance(dtype, np.dtype):
        return None if dtype.kind in "iub" else f"{_ALLOWED}, got {type_name(part)} of {dtype}"
    if isinstance(part, int) and abs(part) > sys.maxsize:
        return f"index {part} lies outside of every axis"
    return None if part is None or part is Ellipsis or isinstance(part, int) else f"{_ALLOWED}, got {described(part)}"


def _misfit(parts: tuple[Any, ...], shape: tuple[int, ...]) -> str | None:
    """What is wrong with parts that are right, each by itself, on an x of ``shape``."""
    if sum(part is Ellipsis for part in parts) > 1:
        return "only one `...` may stand in an index"
    arrays = [None if part is Ellipsis or isinstance(part, slice) else np.asarray(part) for part in parts]
    taken = [_axes_taken(part, array) for part, array in zip(parts, arrays, strict=True)]
    if sum(taken) > len(shape):
        return f"too many indices: they name {sum(taken)} axes, the tensor has {len(shape)} axes"
    axis = 0
    for position, (part, array) in enumerate(zip(parts, arrays, strict=True)):
        if part is Ellipsis:
            axis = len(shape) - sum(taken[position:])
        elif array is not None and taken[position]:
            fault = _outside(array, axis, shape[axis : axis + taken[position]])
            if fault:
                return fault
        axis += taken[position]
    chosen = [array.shape for array, axes in zip(arrays, taken, strict=True) if array is not None and axes]
    return f"the arrays in an index must broadcast to one shape, got {', '.join(map(str, chosen))}" if chosen else None


def _axes_taken(part: Any, array: Any) -> int:
    """How many axes one part of an index names."""
    if part is None or part is Ellipsis or isinstance(part, bool):
        return 0
    return array.ndim if array is not None and array.dtype.kind == "b" else 1


def _outside(array: Any, axis: int, lengths: tuple[int, ...]) -> str | None:
    """Which element of an integer or boolean array lies outside of the axes of these ``lengths``, from ``axis`` on."""
    if array.dtype.kind == "b":
        for along, (own, length) in enumerate(zip(array.shape, lengths, strict=True), start=axis):
            if own != length:
                return f"a boolean index has {own} elements along axis {along}, the tensor has {length}"
        return None
    wrong = array[(array < -lengths[0]) | (array >= lengths[0])]
    return f"index {wrong[0]} lies outside of axis {axis}, which has {lengths[0]} elements" if wrong.size else None
