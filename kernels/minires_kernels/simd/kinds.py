"""Kinds of vectors and tiles: compile-time constants whose Numba type is their value; the width of this processor."""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import llvmlite.binding as llvm
import numba
import numpy as np
from llvmlite import ir
from numba import types
from numba.core.imputils import lower_constant
from numba.core.typing.templates import AttributeTemplate, infer_getattr
from numba.extending import NativeValue, lower_getattr_generic, models, register_model, unbox

from minires_kernels.environment import warn_once

_IS_ARM = platform.machine().lower() in ("arm64", "aarch64")


def _register_bytes() -> int:
    """Bytes in a vector register of the processor that Numba compiles for (which NUMBA_CPU_FEATURES may restrict)."""
    restricted = numba.config.CPU_FEATURES
    if restricted is None:
        features = {name for name, present in llvm.get_host_cpu_features().items() if present}
    else:
        features = {item[1:] for item in restricted.split(",") if item.startswith("+")}
    for feature, count in (("avx512f", 64), ("avx", 32), ("sse2", 16), ("neon", 16)):
        if feature in features:
            return count
    return 16 if _IS_ARM or platform.machine().lower() in ("x86_64", "amd64") else 1


REGISTER_BYTES = _register_bytes()
"""Bytes in one vector register. Tests set it to run the kernels at every width; 1 means one lane."""

if REGISTER_BYTES < 32 and not _IS_ARM:
    warn_once(
        f"kernels use vectors of {8 * REGISTER_BYTES} bits, a fraction of what most processors have",
        "without AVX they run at a half or a quarter of the speed; "
        "unset NUMBA_CPU_NAME and NUMBA_CPU_FEATURES if they hide it, otherwise only another processor helps",
    )


def _cache_bytes() -> int:
    """Bytes in a core's second-level cache, as the system tells; half a megabyte where it doesn't."""
    try:
        told = os.sysconf("SC_LEVEL2_CACHE_SIZE")
    except (AttributeError, ValueError, OSError):  # not a POSIX system; a name it doesn't know; no answer
        told = 0
    return told if told > 0 else 1 << 19


CACHE_BYTES = _cache_bytes()
"""Bytes in the cache that a block of work is to fit into."""


def registers() -> int:
    """How many vector registers a kernel may fill: 32 with AVX-512 and on ARM, otherwise 16."""
    return 32 if REGISTER_BYTES == 64 or _IS_ARM else 16


class Kind:
    """A value that is a compile-time constant in kernels: frozen, and compared by what it holds.

    In a kernel, its attributes that are integers or kinds are constants too.
    """

    @cached_property
    def _numba_type_(self) -> Constant:
        """Where Numba looks for the type of an argument."""
        return Constant(self)

    def __getstate__(self) -> dict[str, Any]:
        """Without the cached type, which holds this value in turn."""
        return {name: item for name, item in self.__dict__.items() if name != "_numba_type_"}


@dataclass(frozen=True)
class Vector(Kind):
    """The kind of a vector: ``lanes`` numbers of ``dtype`` (``"float32"`` or ``"float64"``)."""

    dtype: str
    lanes: int

    def __post_init__(self) -> None:
        if self.dtype not in ("float32", "float64"):
            raise TypeError(f"Vector: dtype must be float32 or float64, got {self.dtype}")
        if self.lanes < 1 or self.lanes & (self.lanes - 1):
            raise ValueError(f"Vector: lanes must be a power of two, got {self.lanes}")


@dataclass(frozen=True)
class Tile(Kind):
    """The kind of a tile: ``rows`` x ``columns`` vectors, so rows x (columns * lanes) numbers, in registers.

    ``taps`` says how many numbers of x each row of the tile sees in ``tile_correlate``, or from how many stretches of x
    the rows' numbers come in ``tile_outer_stacked``.
    """

    vector: Vector
    rows: int
    columns: int
    taps: int = 1

    def __post_init__(self) -> None:
        if min(self.rows, self.columns, self.taps) < 1:
            raise ValueError(f"Tile: rows, columns and taps must be at least 1, got {self}")

    @property
    def width(self) -> int:
        """Numbers in one row."""
        return self.columns * self.vector.lanes


@dataclass(frozen=True)
class Matrix(Kind):
    """A constant matrix, known when a kernel is compiled: ``tile_sandwich`` multiplies tiles by it."""

    rows: tuple[tuple[float, ...], ...]


def vector(dtype: Any, most: int | None = None) -> Vector:
    """The widest vector of ``dtype`` that a register holds.

    With ``most``, not wider than that many numbers need: of 5 channels, 8 lanes.
    Raises TypeError for anything but float32 and float64.
    """
    dtype = np.dtype(dtype)
    lanes = max(1, REGISTER_BYTES // dtype.itemsize)
    if most is not None:
        lanes = min(lanes, 1 << max(0, most - 1).bit_length())
    return Vector(dtype.name, lanes)


# --- Compile-time constants: values whose Numba type is the value ----------------------------------------------------


class Constant(types.Type):  # type: ignore[misc]
    """The Numba type of a Vector, Tile or Matrix: it carries the value; at run time nothing is left of it.

    Its name, which tells the whole value, is part of the key under which machine code is kept on disk.
    """

    def __init__(self, value: Any) -> None:
        self.value = value
        super().__init__(repr(value))


@register_model(Constant)
class _ConstantModel(models.PrimitiveModel):  # type: ignore[misc]
    """One unused byte, so that a constant passes wherever a number does (also into the threads of a prange)."""

    def __init__(self, manager: Any, constant: Constant) -> None:
        super().__init__(manager, constant, ir.IntType(8))


NOTHING = ir.Constant(ir.IntType(8), 0)


@lower_constant(Constant)
def _constant(context: Any, builder: Any, kind: Any, value: Any) -> Any:
    return NOTHING


@unbox(Constant)
def _unbox(kind: Any, value: Any, context: Any) -> NativeValue:
    return NativeValue(NOTHING)


@infer_getattr
class _ConstantAttributes(AttributeTemplate):  # type: ignore[misc]
    """``tile.rows`` is a literal integer in a kernel, ``tile.vector`` again a constant."""

    key = Constant

    def generic_resolve(self, kind: Constant, name: str) -> types.Type | None:
        attribute = getattr(kind.value, name, None)
        if isinstance(attribute, int):
            return types.literal(attribute)
        return Constant(attribute) if isinstance(attribute, Kind) else None


@lower_getattr_generic(Constant)
def _get_attribute(context: Any, builder: Any, kind: Constant, value: Any, name: str) -> Any:
    attribute = getattr(kind.value, name)
    return context.get_constant(types.intp, attribute) if isinstance(attribute, int) else NOTHING
