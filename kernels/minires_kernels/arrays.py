"""Arrays: which library owns one, on which device it lies, how its elements are laid out, what they add up to.

The ground of everything: it imports NumPy alone. CuPy is looked up only when an array that isn't NumPy's turns up.
"""

from __future__ import annotations

import sys
from typing import Any, TypeAlias

import numpy as np

Array: TypeAlias = Any
"""A ``numpy.ndarray`` or a ``cupy.ndarray``: never wrapped. (Any, because CuPy is an optional dependency.)"""


def array_module(x: Array) -> Any:
    """The library that owns ``x``: ``numpy`` or ``cupy``.

    Raises TypeError when ``x`` is neither library's array.
    """
    if isinstance(x, (np.ndarray, np.generic)):
        return np
    cupy = sys.modules.get("cupy")
    if cupy is not None and isinstance(x, cupy.ndarray):
        return cupy
    raise TypeError(
        f"array_module: expected a NumPy or CuPy array, got {type(x).__name__}; wrap it in numpy.asarray(...)"
    )


def device_of(x: Array) -> str:
    """``"cpu"`` for a NumPy array, ``"cuda"`` for a CuPy array."""
    return "cpu" if array_module(x) is np else "cuda"


def to_cpu(x: Array) -> np.ndarray[Any, Any]:
    """``x`` as a NumPy array: itself if it is one, else a copy from the GPU."""
    return x if isinstance(x, np.ndarray) else array_module(x).asnumpy(x)


def to_gpu(x: Array) -> Array:
    """``x`` as a CuPy array on the current GPU.

    Raises ImportError with the cure when CuPy is missing or can't be loaded, RuntimeError when CuPy finds no GPU.
    """
    try:
        import cupy
    except Exception as failure:  # whatever the libraries that it loads raise
        is_missing = isinstance(failure, ModuleNotFoundError) and failure.name == "cupy"
        reason = "is not installed" if is_missing else f"can't be loaded ({type(failure).__name__}: {failure})"
        raise ImportError(f"to_gpu: CuPy {reason}; {cupy_cure(failure)}") from failure
    try:
        cupy.cuda.runtime.getDeviceCount()
    except Exception as error:  # CuPy's own type, which differs between versions
        raise RuntimeError(f"to_gpu: CuPy finds no GPU that it can use ({error}); {_GPU_CURE}") from error
    return cupy.asarray(x)


_GPU_CURE = (
    "`nvidia-smi` must list one, and its driver must be as new as the CUDA that CuPy was built for; without one stay "
    "with 'cpu'"
)


def cupy_cure(failure: BaseException) -> str:
    """What to do about an ``import cupy`` that failed: install it, or else mend the driver that it loads."""
    if isinstance(failure, ModuleNotFoundError):
        return "pip install -e '.[cuda12x]' (CUDA 12) or '.[cuda13x]' (CUDA 13)"
    return f"it needs the driver of a GPU: {_GPU_CURE}"


def on_device(x: Array, device: str) -> Array:
    """``x`` on ``"cpu"`` or ``"cuda"``: itself if it is there, else a copy."""
    return to_cpu(x) if checked_device(device) == "cpu" else to_gpu(x)


def checked_device(device: str) -> str:
    """``device`` itself. Raises ValueError unless it is ``"cpu"`` or ``"cuda"``."""
    if device not in ("cpu", "cuda"):
        raise ValueError(f"to: device must be 'cpu' or 'cuda', got {device!r}; a dtype is chosen with .astype(...)")
    return device


def is_channels_last(x: Array) -> bool:
    """Whether the (N, C, H, W) array ``x`` lies in memory as a C-contiguous (N, H, W, C) one."""
    if x.ndim != 4:
        return False
    (_, C, H, W), step = x.shape, x.itemsize
    pixel = C * step
    if x.strides == (H * W * pixel, step, W * pixel, pixel):
        return True
    return bool(x.transpose(0, 2, 3, 1).flags.c_contiguous)  # strides of axes that have one element don't matter


def channels_last(x: Array) -> Array:
    """The (N, C, H, W) array ``x`` with channels-last strides: itself if it has them already, else a copy."""
    if is_channels_last(x):
        return x
    return array_module(x).ascontiguousarray(x.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)


FEW = 256
"""Numbers that may be added up one after the other: that costs two of float32's seven digits at the very worst."""


def total(x: Array, axis: int | tuple[int, ...] | None = None, keepdims: bool = False) -> Array:
    """``x.sum(axis, keepdims=keepdims)`` that keeps float32's digits along any axis.

    NumPy adds pairwise along contiguous memory alone, and elsewhere one number after the other: a million times 0.1
    becomes 100958. So sums of more than ``FEW`` float32 numbers are made in double precision, and rounded once. That
    takes less than twice the time. float64 has digits to spare, and integers lose none: they are added as ever.
    """
    if x.dtype != np.float32 or (axis is None and x.flags.forc):
        return x.sum(axis, keepdims=keepdims)
    count = 1
    for each in range(x.ndim) if axis is None else axis if isinstance(axis, tuple) else (axis,):
        count *= x.shape[each]
    if count <= FEW:
        return x.sum(axis, keepdims=keepdims)
    return x.sum(axis, dtype="float64", keepdims=keepdims).astype(x.dtype)
