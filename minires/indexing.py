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
    reason = next((fault for fault in faults if fault), None) or _fault_of_all(parts, len(shape)) or str(error).strip()
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


def _fault_of_all(parts: tuple[Any, ...], ndim: int) -> str | None:
    """What is wrong with parts that are right, each by itself."""
    if sum(part is Ellipsis for part in parts) > 1:
        return "only one `...` may stand in an index"
    taken = 0
    for part in parts:
        is_mask = hasattr(part, "dtype") and part.dtype.kind == "b"
        taken += part.ndim if is_mask else part is not None and part is not Ellipsis and not isinstance(part, bool)
    return f"too many indices: they name {taken} axes, the tensor has {ndim} axes" if taken > ndim else None
