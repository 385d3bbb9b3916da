"""Arrays that fit each other: what each family's contract checks before any of its implementations runs.

A compiled kernel gets addresses and lengths, and believes them. Where an array is shorter than its neighbour, it reads
or writes past the end: numbers out of nowhere, or a dead process. So each contract says here, in a line or two, which
shape every array must have, and nothing else needs to check it again.

The checks take a microsecond or two a call, of which a training step makes a thousand: each passes over what is right
as quickly as Python can, and only what isn't right is looked at closely.
"""

from __future__ import annotations

import operator
from collections.abc import Sequence
from itertools import combinations
from typing import TypeAlias

import numpy as np
from numpy import ndarray

from minires_kernels.arrays import Array, array_module
from minires_kernels.window import Window

Shape: TypeAlias = tuple[int, ...]

FLOATS = frozenset({np.dtype(np.float32), np.dtype(np.float64)})
"""What kernels compute with, in the byte order of this machine."""

REAL = int, float, np.integer, np.floating

IMAGES = "N, C, H, W"
WEIGHTS = "O, C/groups, KH, KW"


def axes(op: str, name: str, x: Array, names: str) -> Shape:
    """The shape of ``x``, which must have as many axes as ``names`` has: "N, C, H, W".

    Raises TypeError for what isn't an array, ValueError for another number of axes.
    """
    shape = x.shape if type(x) is ndarray else _judged_array(op, name, x).shape
    if len(shape) != names.count(",") + 1:
        raise ValueError(f"{op}: {name} must be ({names}), got shape {shape}")
    return shape  # type: ignore[no-any-return]


def image_shape(op: str, shape: Sequence[int]) -> tuple[int, int, int, int]:
    """``shape`` as (N, C, H, W), integers that aren't negative. Raises ValueError for anything else."""
    try:
        N, C, H, W = map(operator.index, shape)
    except (TypeError, ValueError):
        N = C = H = W = -1
    if min(N, C, H, W) < 0:
        raise ValueError(f"{op}: x_shape must be (N, C, H, W), four integers from 0 on, got {shape}")
    return N, C, H, W


def integer(op: str, name: str, value: object, least: int) -> int:
    """``value`` as an int. Raises TypeError for what isn't an integer, ValueError below ``least`` or beyond 64 bits."""
    if type(value) is not int and not isinstance(value, np.integer):
        raise TypeError(f"{op}: {name} must be an integer, got {value!r}")
    if not least <= value < 1 << 62:
        raise ValueError(f"{op}: {name} must be at least {least}, and less than 2^62, got {value}")
    return int(value)


def number(op: str, name: str, value: object) -> float:
    """``value`` as a float: compiled loops take no other. Raises TypeError for what isn't a real number."""
    if type(value) is not float and (isinstance(value, bool) or not isinstance(value, REAL)):
        raise TypeError(f"{op}: {name} must be a number, got {value!r}")
    return float(value)


def flag(op: str, name: str, value: object) -> bool:
    """``value`` as a bool. Raises TypeError for what is neither True nor False."""
    if value is not True and value is not False and not isinstance(value, np.bool_):
        raise TypeError(f"{op}: {name} must be True or False, got {value!r}")
    return bool(value)


def require_window(op: str, window: object) -> None:
    """Raise TypeError unless ``window`` is a Window."""
    if not isinstance(window, Window):
        raise TypeError(f"{op}: window must be a Window, got {window!r}; use Window.of(kernel_size, ...)")


def require(op: str, **arrays: tuple[Array, Shape]) -> None:
    """Raise unless each array has the shape beside it, and all have one dtype, float32 or float64, and one library.

    ValueError for another shape, TypeError for the rest; the message lists all arrays.

    >>> require("add", x=(x, x.shape), y=(y, x.shape))
    """
    dtype = None
    for x, shape in arrays.values():
        if type(x) is not ndarray or x.shape != shape:
            break
        if dtype is None or (x.dtype is not dtype and x.dtype != dtype):  # equal ones need not be the same object
            if dtype is not None or x.dtype not in FLOATS:
                break
            dtype = x.dtype
    else:
        return
    _judge(op, arrays)


def require_alike(op: str, **arrays: Array) -> None:
    """As :func:`require`, where all arrays have the shape of the first."""
    shape = dtype = None
    for x in arrays.values():
        if type(x) is not ndarray:
            break
        if dtype is None and x.dtype in FLOATS:
            shape, dtype = x.shape, x.dtype
        elif x.shape != shape or (x.dtype is not dtype and x.dtype != dtype):
            break
    else:
        return
    first = next(iter(arrays))
    shape = _judged_array(op, first, arrays[first]).shape
    _judge(op, {name: (x, shape) for name, x in arrays.items()})


def _judge(op: str, arrays: dict[str, tuple[Array, Shape]]) -> None:
    """``require`` at leisure: NumPy's files in memory, its scalars and CuPy's arrays are right too."""
    libraries = {array_module(_judged_array(op, name, x)) for name, (x, _) in arrays.items()}
    listed = ", ".join(f"{name} {x.shape} {x.dtype}" for name, (x, _) in arrays.items())
    if len(libraries) > 1:
        raise TypeError(f"{op}: some arrays are NumPy's and some CuPy's; move them with .to('cpu') or .to('cuda')")
    dtypes = {x.dtype for x, _ in arrays.values()}
    if len(dtypes) > 1 or not dtypes <= FLOATS:
        raise TypeError(
            f"{op}: all arrays must be float32, or all float64, in this machine's byte order, got {listed}; "
            "convert them with .astype(numpy.float32)"
        )
    for name, (x, shape) in arrays.items():
        if x.shape != tuple(shape):
            raise ValueError(f"{op}: {name} must have shape {tuple(shape)}, got {x.shape}; {listed}")


def _judged_array(op: str, name: str, x: Array) -> Array:
    """``x``, if kernels take it: no list, and no subclass of NumPy's arrays that means something else."""
    try:
        array_module(x)
    except TypeError:
        raise TypeError(
            f"{op}: {name} must be a NumPy or CuPy array, got {type(x).__name__}; wrap it in numpy.asarray(...)"
        ) from None
    if isinstance(x, (np.matrix, np.ma.MaskedArray)):
        raise TypeError(f"{op}: {name} must be a plain array, got {type(x).__name__}; use numpy.asarray({name})")
    return x


def require_integers(op: str, name: str, x: Array, least: int, beyond: int) -> None:
    """Raise TypeError unless ``x`` holds integers, ValueError unless ``least`` <= each of them < ``beyond``."""
    if x.dtype.kind not in "iu":
        raise TypeError(f"{op}: {name} must hold integers, got {x.dtype}; use .astype(numpy.int32)")
    if x.size and not (least <= x.min() and x.max() < beyond):
        wrong = x[(x < least) | (x >= beyond)]
        raise ValueError(f"{op}: {name} must hold integers from {least} to {beyond - 1}, got {int(wrong[0])}")


def require_writable(op: str, **arrays: Array) -> None:
    """Raise ValueError unless each array may be written, and no two of its elements lie at one place."""
    for name, x in arrays.items():
        reason = unwritable(x)
        if reason:
            raise ValueError(f"{op}: {name} {x.shape} can't be written, it {reason}; give a copy: {name}.copy()")


def unwritable(x: Array) -> str | None:
    """Why ``x`` can't be written, as what "it ..." goes on with; None if it can."""
    flags = x.flags
    if not getattr(flags, "writeable", True):  # CuPy's arrays always are
        return "is read-only"
    if not (flags.c_contiguous or flags.f_contiguous) and _may_repeat(x):
        return f"has elements that share their places (strides {x.strides}), as a broadcast array has"
    return None


def _may_repeat(x: Array) -> bool:
    """Whether, from the innermost axis outwards, a step is shorter than what the axes within it reach."""
    reach = x.dtype.itemsize
    for stride, length in sorted((abs(stride), length) for stride, length in zip(x.strides, x.shape, strict=True)):
        if length > 1:
            if stride < reach:
                return True
            reach += stride * (length - 1)
    return False


def require_apart(op: str, **arrays: Array) -> None:
    """Raise ValueError if two of ``arrays`` share memory: one would change while another is read or written."""
    first = next(iter(arrays.values()))
    library = np if type(first) is ndarray else array_module(first)
    may_share = library.may_share_memory
    for (name, x), (other, y) in combinations(arrays.items(), 2):
        if x.base is None and y.base is None and x is not y:
            continue  # each has memory of its own
        if may_share(x, y) and library.shares_memory(x, y):
            raise ValueError(f"{op}: {name} {x.shape} and {other} {y.shape} share memory; give a copy: {other}.copy()")
