"""The two peaks of this machine, measured: multiply-adds a second out of registers, bytes a second out of memory.

A kernel's bound is the larger of operations / peak and bytes / bandwidth (Williams, Waterman and Patterson 2009). Both
are measured with the threads that the kernels use, by programs that do nothing else: for the first, the micro-kernel of
a matrix product on several tiles that fit this processor's registers (which of them is the fastest, one can't know: it
depends on how many loads and multiply-adds start in a cycle, and on how long one takes); for the second, reading,
negating in place, adding in place, and a step of momentum, vector by vector: plain loops of Numba go number by number
here, and wait for the processor instead of memory. The best of each is the peak. A kernel that claims more than 102 %
of its bound was measured wrongly, and that is an error, not a record. Or the peaks were: on a machine that others use
as well, memory may be slow for a while. So they are measured once more before a figure is called wrong.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numba
import numpy as np
from numba import prange

from benchmarks.timing import alternate
from minires_kernels.arrays import Array
from minires_kernels.jit import njit
from minires_kernels.simd import (
    Tile,
    broadcast,
    fma,
    load,
    registers,
    store,
    tile_outer,
    tile_store,
    tile_zero,
    vector,
)

TOLERATED = 1.02
UNIT = 64
"""Numbers that are a multiple of four vectors of every width."""


class ExceededError(RuntimeError):
    """A kernel seems to do more than the machine can."""


@dataclass(frozen=True)
class Roofline:
    """Measured peaks: ``operations`` a second (float32) and ``bytes`` a second."""

    operations: float
    bytes: float

    def share(self, operations: float, moved: float, seconds: float, case: str) -> float:
        """The bound's time over ``seconds``: the share of what this machine can do.

        Raises ExceededError above 102 %: then the measurement, or the count of operations, is wrong.
        """
        share = max(operations / self.operations, moved / self.bytes) / seconds
        if share > TOLERATED:
            raise ExceededError(
                f"{case}: {share:.0%} of the measured roofline ({self.operations / 1e9:.0f} GFLOP/s, "
                f"{self.bytes / 1e9:.1f} GB/s); a share above {TOLERATED:.0%} means a wrong measurement"
            )
        return share

    def joined(self, other: Roofline) -> Roofline:
        """The higher of each two peaks: both were seen."""
        return Roofline(max(self.operations, other.operations), max(self.bytes, other.bytes))


def tiles() -> list[Tile]:
    """Tiles that fit the registers beside one row of weights and a broadcast, as large as can be and a row smaller."""
    kind, found = vector(np.float32), []
    for columns in (1, 2, 3):
        most = (registers() - 1 - columns) // columns
        found += [Tile(kind, rows, columns) for rows in (most, most - 1)]
    return found


def measure(threads: int, *, seconds: float = 5.0) -> Roofline:
    """Measure each peak for ``seconds`` with ``threads`` threads: the best of all rounds, since a peak is a maximum."""
    numba.set_num_threads(threads)
    # Far larger than any cache, so that every pass reads and writes memory.
    rows = [np.ones((threads, 48_000_000 // threads // UNIT * UNIT), np.float32) for _ in range(3)]
    products = {str(tile): _product(tile, threads) for tile in tiles()}
    return Roofline(operations=_most(products, seconds), bytes=_most(passes(*rows), seconds))


def passes(grad: Array, velocity: Array, parameter: Array) -> dict[str, tuple[float, Callable[[], Any]]]:
    """Name -> (bytes moved, call) of the passes over float32 arrays (threads, multiple of ``UNIT``): a row a thread."""
    kind = vector(np.float32)
    return {
        "read": (1.0 * grad.nbytes, lambda: _read(kind, grad)),
        "negate": (2.0 * grad.nbytes, lambda: _negate(kind, grad)),
        "add": (3.0 * grad.nbytes, lambda: _add(kind, grad, velocity)),
        "momentum": (5.0 * grad.nbytes, lambda: _momentum(kind, grad, velocity, parameter)),
    }


def _most(work: dict[str, tuple[float, Callable[[], Any]]], seconds: float) -> float:
    """The most that any of ``work``, name -> (amount, call), did in a second."""
    measured = alternate({name: call for name, (_, call) in work.items()}, rounds=sys.maxsize, seconds=seconds)
    return max(amount / min(measured.times[name].seconds) for name, (amount, _) in work.items())


def _product(tile: Tile, threads: int, *, depth: int = 256, repeats: int = 400) -> tuple[float, Callable[[], None]]:
    """(operations, call) of a matrix product's micro-kernel on ``tile``."""
    x = np.ones((threads, tile.rows * depth), np.float32)
    w = np.ones((threads, tile.width * depth), np.float32)
    y = np.zeros((threads, tile.rows * tile.width), np.float32)
    operations = 2.0 * tile.rows * tile.width * depth * repeats * threads
    return operations, lambda: _multiply_adds(tile, x, w, y, depth, repeats)


@njit(parallel=True)
def _multiply_adds(tile, x, w, y, depth, repeats):  # type: ignore[no-untyped-def]
    """The micro-kernel of a matrix product on operands that lie in the first-level cache."""
    for thread in prange(len(x)):
        for _ in range(repeats):
            accumulators = tile_zero(tile)
            for k in range(depth):
                accumulators = tile_outer(accumulators, x[thread], k, depth, w[thread], k * tile.width)
            tile_store(accumulators, y[thread], 0, tile.width)


@njit(parallel=True)
def _read(kind, source):  # type: ignore[no-untyped-def]
    """The sums of each row, a vector: four at once, so that no addition waits for another. A number moved for each."""
    sums, lanes = np.empty((len(source), kind.lanes), source.dtype), kind.lanes
    for thread in prange(len(source)):
        row = source[thread]
        first = broadcast(kind, 0.0)
        second, third, fourth = first, first, first
        for i in range(0, row.size, 4 * lanes):
            first = first + load(kind, row, i)
            second = second + load(kind, row, i + lanes)
            third = third + load(kind, row, i + 2 * lanes)
            fourth = fourth + load(kind, row, i + 3 * lanes)
        store(first + second + (third + fourth), sums[thread], 0)
    return sums


@njit(parallel=True)
def _negate(kind, target):  # type: ignore[no-untyped-def]
    """Each thread negates its row in place: two numbers moved for each, and no cache line fetched only to be lost."""
    for thread in prange(len(target)):
        row, minus = target[thread], broadcast(kind, -1.0)
        for i in range(0, row.size, kind.lanes):
            store(load(kind, row, i) * minus, row, i)


@njit(parallel=True)
def _add(kind, source, target):  # type: ignore[no-untyped-def]
    """Each thread adds a row to what is there: three numbers moved for each, along two streams."""
    for thread in prange(len(target)):
        addend, row = source[thread], target[thread]
        for i in range(0, row.size, kind.lanes):
            store(load(kind, row, i) + load(kind, addend, i), row, i)


@njit(parallel=True)
def _momentum(kind, grad, velocity, parameter):  # type: ignore[no-untyped-def]
    """Each thread v := v / 2 + g, p -= v: five numbers moved for each, along three streams."""
    for thread in prange(len(grad)):
        g, v, p = grad[thread], velocity[thread], parameter[thread]
        half, minus = broadcast(kind, 0.5), broadcast(kind, -1.0)
        for i in range(0, g.size, kind.lanes):
            speed = fma(half, load(kind, v, i), load(kind, g, i))
            store(speed, v, i)
            store(fma(minus, speed, load(kind, p, i)), p, i)
