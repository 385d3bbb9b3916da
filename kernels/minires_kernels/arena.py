"""Scratch memory: 64-byte-aligned buffers that a kernel reuses from call to call.

A kernel asks for scratch by role ("packed image", "weight panels"). Each thread of Python owns its buffers, so two
threads that convolve at once don't meet. A buffer grows to the largest request for its role and stays: no page is
faulted in twice, and the peak is that of the largest layer, not the sum of all.

What a buffer holds is undefined, always: a kernel writes whatever it is going to read, zero borders too. (A border left
from another geometry once made gradients wrong by a factor of a million while the test of each operation passed.)
"""

from __future__ import annotations

import threading
from typing import Any

import numpy as np

ALIGNMENT = 64
"""Bytes in a cache line, and in the widest vector register: no aligned vector crosses two lines."""


class _Buffers(threading.local):
    def __init__(self) -> None:
        self.by_role: dict[str, np.ndarray[Any, Any]] = {}


_buffers = _Buffers()


def aligned_empty(count: int, dtype: Any) -> np.ndarray[Any, Any]:
    """A new one-dimensional array of ``count`` undefined numbers that starts on a cache line."""
    dtype = np.dtype(dtype)
    raw = np.empty(count * dtype.itemsize + ALIGNMENT, np.uint8)
    start = -raw.ctypes.data % ALIGNMENT
    return raw[start : start + count * dtype.itemsize].view(dtype)


def scratch(role: str, count: int, dtype: Any) -> np.ndarray[Any, Any]:
    """A one-dimensional array of ``count`` undefined numbers, this thread's until it asks for ``role`` again."""
    size = count * np.dtype(dtype).itemsize
    buffer = _buffers.by_role.get(role)
    if buffer is None or buffer.size < size:
        buffer = _buffers.by_role[role] = aligned_empty(size, np.uint8)
    return buffer[:size].view(dtype)


def release() -> None:
    """Forgets this thread's buffers; their memory is freed."""
    _buffers.by_role.clear()
