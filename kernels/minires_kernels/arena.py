"""Memory that is used again: scratch for kernels, and the memory of results that nobody holds any more.

**Scratch.** A kernel asks for 64-byte-aligned scratch by role ("packed image", "weight panels"). Each thread of Python
owns its buffers, so two threads that convolve at once don't meet. A buffer grows to the largest request for its role
and stays: no page is faulted in twice, and the peak is that of the largest layer, not the sum of all.

**Results.** Large results come from :func:`empty`. When the last array that looks at such memory dies, the memory waits
here for the next result of its size, instead of going back to the system, which would hand out zeroed pages anew at
each training step: faulting them in costs as much time as writing them. What is in use and what waits never exceed,
together, the most that was in use at once.

What a buffer holds is undefined, always: a kernel writes whatever it is going to read, zero borders too. (A border left
from another geometry once made gradients wrong by a factor of a million while the test of each operation passed.)
"""

from __future__ import annotations

import math
import os
import threading
from collections.abc import Sequence
from typing import Any

import numpy as np

from minires_kernels.arrays import is_channels_last

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


class _Results:
    """Memory of results: what is ``waiting``, by size; bytes in use, bytes waiting, and the most that was in use."""

    def __init__(self) -> None:
        self.lock = threading.RLock()  # a lease may be returned by the collector, in the midst of anything
        self.waiting: dict[int, list[np.ndarray[Any, Any]]] = {}
        self.used = self.idle = self.peak = 0

    def take(self, size: int) -> np.ndarray[Any, Any]:
        with self.lock:
            buffers = self.waiting.get(size)
            if buffers:
                buffer = buffers.pop()
                self.idle -= size
            else:
                self.trim(max(self.peak, self.used + size) - size)
                buffer = aligned_empty(size, np.uint8)  # a MemoryError leaves everything counted as it is
            self.used += size
            self.peak = max(self.peak, self.used)
        return buffer

    def give_back(self, buffer: np.ndarray[Any, Any]) -> None:
        with self.lock:
            self.used -= buffer.size
            self.idle += buffer.size
            self.waiting.setdefault(buffer.size, []).append(buffer)

    def trim(self, most: int) -> None:
        """Gives up what waits until no more than ``most`` bytes are in use or wait."""
        for size, buffers in list(self.waiting.items()):
            while buffers and self.used + self.idle > most:
                buffers.pop()
                self.idle -= size


_results = _Results()
if hasattr(os, "register_at_fork"):  # a child has no thread that would ever give the lock back
    os.register_at_fork(after_in_child=_results.lock._at_fork_reinit)  # type: ignore[attr-defined]


class _Lease:
    """What an array from :func:`empty` has for its base: it lives as long as somebody looks at the memory."""

    def __init__(self, buffer: np.ndarray[Any, Any], shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        self.buffer, self.results = buffer, _results
        self.__array_interface__ = {
            "version": 3, "shape": shape, "typestr": dtype.str, "data": (buffer.ctypes.data, False)
        }  # fmt: skip

    def __del__(self) -> None:
        self.results.give_back(self.buffer)


RECYCLED_BYTES = 1 << 17
"""From this size on glibc asks the system for memory and returns it; below, it keeps what is freed itself."""


def empty(shape: Sequence[int], dtype: Any) -> np.ndarray[Any, Any]:
    """``numpy.empty``, C-contiguous, for results: from :data:`RECYCLED_BYTES` on, memory of results that have died."""
    shape, dtype = tuple(shape), np.dtype(dtype)
    size = math.prod(shape) * dtype.itemsize
    return np.asarray(_Lease(_results.take(size), shape, dtype)) if size >= RECYCLED_BYTES else np.empty(shape, dtype)


def empty_channels_last(shape: Sequence[int], dtype: Any) -> np.ndarray[Any, Any]:
    """As :func:`empty`, an array of shape (N, C, H, W) with the strides of (N, H, W, C)."""
    N, C, H, W = shape
    return empty((N, H, W, C), dtype).transpose(0, 3, 1, 2)


def empty_like(x: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """As :func:`empty`, an array that lies in memory as ``x`` does, whose numbers fill a piece of memory."""
    if x.flags.c_contiguous:
        return empty(x.shape, x.dtype)
    if is_channels_last(x):
        return empty_channels_last(x.shape, x.dtype)
    order = sorted(range(x.ndim), key=lambda axis: (-x.strides[axis], -x.shape[axis], axis))
    return empty([x.shape[axis] for axis in order], x.dtype).transpose([order.index(axis) for axis in range(x.ndim)])


def release() -> None:
    """Forgets this thread's scratch and all memory that waits for a result; it goes back to the system."""
    _buffers.by_role.clear()
    with _results.lock:
        _results.waiting = {}
        _results.idle, _results.peak = 0, _results.used
