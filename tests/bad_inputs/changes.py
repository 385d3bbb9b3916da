"""What is done to one argument of a right call: another rank, shape, dtype, byte order, layout, value or type."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from minires import Tensor


def sliced(x):
    buffer = np.full([2 * length + 1 for length in x.shape], -7).astype(x.dtype)
    view = buffer[tuple(slice(1, None, 2) for _ in x.shape)]
    view[...] = x
    return view


def unaligned(x):
    buffer = np.zeros(x.nbytes + 1, np.uint8)
    view = buffer[1:].view(x.dtype).reshape(x.shape)
    view[...] = x
    return view


def read_only(x):
    x = x.copy()
    x.flags.writeable = False
    return x


def overlapping(x):
    """All rows are the first one, in the same memory."""
    return np.lib.stride_tricks.as_strided(x, x.shape, (0, *x.strides[1:])) if x.ndim else x


def resized(x, axis, by):
    return np.resize(x, [max(0, length + by * (i == axis % max(x.ndim, 1))) for i, length in enumerate(x.shape)])


def spoiled(x, value):
    x = x.copy()
    if x.size and x.dtype.kind == "f":
        x.reshape(-1)[x.size // 2] = value
    return x


class Subclass(np.ndarray):
    """An array of somebody's own kind."""


LAYOUTS: dict[str, Callable[[np.ndarray], Any]] = {
    "read-only": read_only,
    "overlapping": overlapping,
    "negative strides": lambda x: np.flip(np.flip(x).copy()),
    "sliced": sliced,
    "Fortran order": np.asfortranarray,
    "other byte order": lambda x: x.astype(x.dtype.newbyteorder()),
    "unaligned": unaligned,
    "a subclass": lambda x: x.view(Subclass),
}
CHANGES: dict[str, Callable[[np.ndarray], Any]] = {
    **LAYOUTS,
    "one axis more": lambda x: x[None],
    "one axis less": lambda x: (
        x.reshape(x.shape[1:] if x.shape[:1] == (1,) else (-1, *x.shape[2:]))
        if x.ndim > 1
        else np.array(x.sum(), x.dtype)
    ),
    "no axis": lambda x: np.array(x.reshape(-1)[0]) if x.size else np.zeros((), x.dtype),
    **{f"axis {axis} longer": lambda x, axis=axis: resized(x, axis, 1) for axis in range(4)},
    **{f"axis {axis} shorter": lambda x, axis=axis: resized(x, axis, -1) for axis in range(4)},
    **{f"axis {axis} empty": lambda x, axis=axis: resized(x, axis, -99) for axis in range(4)},
    "axes reversed": lambda x: x.transpose().copy(),
    "one element": lambda x: x.reshape(-1)[:1].copy(),
    **{
        f"as {name}": lambda x, name=name: (3 * x).astype(name)
        for name in (
            "float64",
            "float16",
            "longdouble",
            "complex64",
            "int32",
            "uint8",
            "bool",
            "object",
            "U8",
            "datetime64[s]",
        )
    },
    **{
        f"with {value}": lambda x, value=value: spoiled(x, value)
        for value in ("nan", "inf", "-inf", 1e30, -1e30, 1e-42, -0.0)
    },
    "all NaN": lambda x: np.full_like(x, np.nan if x.dtype.kind == "f" else -1),
    "out of range": lambda x: x + np.asarray(10**6, x.dtype) if x.dtype.kind in "iu" else x * np.float32(1e30),
    "negative": lambda x: -abs(x) - np.asarray(1, x.dtype) if x.dtype.kind in "if" else x,
    "a matrix": lambda x: np.matrix(x.reshape(x.shape[0] if x.ndim else 1, -1)),
    "masked": lambda x: np.ma.masked_array(x, mask=np.arange(x.size).reshape(x.shape) % 3 == 0),
    "a list": lambda x: x.tolist(),
    "a tensor of it": lambda x: Tensor(x),
    "nothing": lambda x: None,
    "a number": lambda x: 1.5,
    "a text": lambda x: "x",
    "a dict": lambda x: {"x": x},
    "an object": lambda x: object(),
    "a tuple of two": lambda x: (x, x),
}
SETTINGS: tuple[Any, ...] = (
    0,
    -1,
    1,
    2,
    3,
    100,
    2**62,
    2**70,
    -(2**70),
    0.5,
    1.0,
    2.0,
    1e300,
    float("nan"),
    float("inf"),
    True,
    None,
    "a",
    "same",
    (),
    (1,),
    (1, 2),
    (1, 2, 3),
    (0, 0),
    (2.0, 1),
    [1, 1],
    [0],
    (1, "a"),
    {},
    {"a": 1},
    b"x",
    1j,
    np.int64(2),
    np.float32(0.5),
    np.float64(0.5),
    np.bool_(True),
    np.array(2),
    np.array([1, 2]),
    np.array([1.5]),
    object(),
    slice(None),
    Ellipsis,
    int,
    Tensor(2.0),
)
