"""Which numbers a Tensor can hold, and in which type two operands meet: decided here and nowhere else.

Every array that comes into the engine, be it a tensor's data, an upstream gradient or what a Function returns, goes
through :func:`admit`. So all others may rely on plain NumPy (or CuPy) arrays of native byte order, aligned in memory,
of one of the types in :data:`SUPPORTED`.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from minires_kernels.arrays import Array, array_module

SUPPORTED = frozenset(
    map(np.dtype, ("f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "?")),
)
"""float32 and float64, which gradients flow in; integers and booleans, which are counted with."""


def admit(value: Array, name: str) -> Array:
    """The array ``value`` as the engine takes it: itself, if it is one of the usual kind.

    What can be converted without loss is: another byte order, unaligned memory, numpy.matrix and other subclasses of
    ndarray, NumPy's scalars. Raises TypeError, which begins with ``name``, for other types of numbers than
    :data:`SUPPORTED`, for what isn't an array at all, and for masked arrays that hide elements.
    """
    if type(value) is np.ndarray and value.dtype in SUPPORTED and value.flags.aligned:
        return value
    if isinstance(value, np.ma.MaskedArray) and np.ma.is_masked(value):
        hidden = int(np.ma.getmaskarray(value).sum())
        raise TypeError(
            f"{name}: the masked array hides {hidden} of its {value.size} elements, for which a tensor has no place; "
            "fill them first: array.filled(0)"
        )
    array = np.asarray(value) if isinstance(value, (np.ndarray, np.generic)) else value
    array_module(array)  # a TypeError here says what to do with other libraries' arrays
    native = _native(array.dtype)
    if native not in SUPPORTED:
        raise TypeError(_refusal(native, name))
    # CuPy's arrays are always native and aligned
    is_usual = not isinstance(array, np.ndarray) or (array.dtype in SUPPORTED and array.flags.aligned)
    return array if is_usual else array.astype(native)


def _native(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """``dtype`` in this machine's byte order: NumPy's own object, which is recognised at once."""
    native = dtype.newbyteorder("=")
    return np.dtype(native.type) if native in SUPPORTED else native


def admit_like(data: Array, value: Any, name: str) -> Array:
    """The array ``value`` by way of :func:`admit`; TypeError or ValueError unless it has data's dtype and shape."""
    if not hasattr(value, "dtype"):
        raise TypeError(f"{name} must be an array of {data.dtype}, got {type(value).__name__}")
    array = admit(value, name)
    if array.dtype != data.dtype:
        raise TypeError(f"{name} must be an array of {data.dtype}, got {array.dtype}")
    if array.shape != data.shape:
        raise ValueError(f"{name} has shape {array.shape}, but the tensor {data.shape}")
    return array


def to_array(data: Any, name: str) -> Array:
    """``data`` as an array, if it isn't one: Python's numbers, which carry no width of their own, become float32.

    Raises ValueError, which begins with ``name``, for lists that aren't rectangular.
    """
    if isinstance(data, np.ndarray) or hasattr(data, "__cuda_array_interface__"):
        return data
    try:
        array = np.asarray(data)
    except ValueError as error:
        raise ValueError(f"{name}: the {type(data).__name__} doesn't make one array: {error}") from error
    return array.astype(np.float32) if array.dtype == np.float64 and not hasattr(data, "dtype") else array


def checked_dtype(dtype: Any, name: str) -> np.dtype[Any]:
    """``dtype`` as a NumPy type of native byte order. Raises TypeError, which begins with ``name``, if unsupported."""
    try:
        if dtype is None or isinstance(dtype, (np.generic, np.ndarray)):
            raise TypeError("NumPy would take None for float64, and a number for its own type")
        native = _native(np.dtype(dtype))
    except (TypeError, ValueError) as error:  # a ValueError for something that has another library's dtype
        raise TypeError(f"{name}: expected a NumPy dtype such as numpy.float32, got {dtype!r}") from error
    if native not in SUPPORTED:
        raise TypeError(_refusal(native, name))
    return native


def as_number(value: Any, dtype: np.dtype[Any], name: str) -> np.ndarray[Any, Any]:
    """The number ``value``, as a 0-d array, for an operation with numbers of ``dtype``, which it doesn't widen.

    With floating-point numbers it takes their type. Otherwise it stays in its own class: a boolean fits everything, an
    integer makes booleans int64, a floating-point number makes all of them float32. Raises TypeError, which begins with
    ``name``, for what isn't a number, ValueError for an integer that ``dtype`` has no room for.
    """
    is_whole = isinstance(value, (int, np.integer, np.bool_))
    if not is_whole and not isinstance(value, (float, np.floating)):
        raise TypeError(f"{name}: expected a real number, got {type(value).__name__}")
    if dtype.kind != "f" and not is_whole:
        dtype = np.dtype(np.float32)
    elif dtype.kind == "b" and not isinstance(value, (bool, np.bool_)):
        dtype = np.dtype(np.int64)
    try:
        if is_whole:  # NumPy checks the range of Python's integers alone
            value = bool(value) if dtype.kind == "b" else int(value)
        return np.asarray(value, dtype)
    except OverflowError as error:
        raise ValueError(
            f"{name}: {value} is outside of the range of {dtype}; convert the tensor first: .astype(...)"
        ) from error


def common_dtype(x: np.dtype[Any], y: np.dtype[Any], name: str) -> np.dtype[Any]:
    """The type in which arrays of ``x`` and of ``y`` meet: the floating-point one, else NumPy's for whole numbers.

    Two floating-point types don't meet (``x`` is returned, and ``apply`` refuses both). Raises TypeError, which begins
    with ``name``, for uint64 and a signed type, which no type of integers holds both.
    """
    if x.kind == "f" or y.kind == "f":
        return x if x.kind == "f" else y
    common = np.promote_types(x, y)
    if common.kind == "f":
        raise TypeError(f"{name}: no type of integers holds both {x} and {y}; convert one first: .astype(numpy.int64)")
    return common


def _refusal(dtype: np.dtype[Any], name: str) -> str:
    if dtype.kind == "f":
        nearest = "float32" if dtype.itemsize < 4 else "float64"
        return f"{name}: {dtype} isn't supported, only float32 and float64; convert with .astype(numpy.{nearest})"
    return f"{name}: expected numbers (float32, float64, integers or booleans), got {dtype}"
