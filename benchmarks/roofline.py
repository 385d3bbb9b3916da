"""The two peaks of this machine, measured: multiply-adds a second out of registers, bytes a second out of memory.

A kernel's bound is the larger of operations / peak and bytes / bandwidth (Williams, Waterman and Patterson 2009). Both
are measured with the threads that the kernels use, by programs that do nothing else: for the first, the micro-kernel of
a matrix product on several tiles that fit this processor's registers (which of them is the fastest, one can't know: it
depends on how many loads and multiply-adds start in a cycle, and on how long one takes); for the second, reading,
copying, negating in place and adding in place. The best of each is the peak. A kernel that claims more than 102 % of
its bound was measured wrongly, and that is an error, not a record. Or the peaks were: on a machine that others use as
well, memory may be slow for a while. So they are measured once more before a figure is called wrong.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass

import numba
import numpy as np
from numba import prange

from benchmarks.timing import alternate
from minires_kernels.jit import njit
from minires_kernels.simd import Tile, registers, tile_outer, tile_store, tile_zero, vector

TOLERATED = 1.02


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
    source, target, sums = np.ones(48_000_000, np.float32), np.zeros(48_000_000, np.float32), np.zeros(threads)
    products = {str(tile): _product(tile, threads) for tile in tiles()}
    passes: dict[str, tuple[float, Callable[[], None]]] = {
        "read": (1.0 * source.nbytes, lambda: _read(source, sums)),
        "copy": (2.0 * source.nbytes, lambda: _copy(source, target, threads)),
        "negate": (2.0 * source.nbytes, lambda: _negate(target, threads)),
        "add": (3.0 * source.nbytes, lambda: _add(source, target, threads)),
    }
    return Roofline(operations=_most(products, seconds), bytes=_most(passes, seconds))


def _most(work: dict[str, tuple[float, Callable[[], None]]], seconds: float) -> float:
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


@njit(parallel=True, fastmath=True)
def _read(source, sums):  # type: ignore[no-untyped-def]
    """Each thread adds up its share: one number moved for each."""
    for thread in prange(len(sums)):
        begin, end = thread * source.size // len(sums), (thread + 1) * source.size // len(sums)
        total = source.dtype.type(0)
        for i in range(begin, end):
            total += source[i]
        sums[thread] = total


@njit(parallel=True)
def _copy(source, target, threads):  # type: ignore[no-untyped-def]
    """Each thread copies its share: two numbers moved for each."""
    for thread in prange(threads):
        begin, end = thread * source.size // threads, (thread + 1) * source.size // threads
        for i in range(begin, end):
            target[i] = source[i]


@njit(parallel=True)
def _negate(target, threads):  # type: ignore[no-untyped-def]
    """Each thread negates its share in place: two numbers moved for each, and no cache line fetched only to be lost."""
    for thread in prange(threads):
        begin, end = thread * target.size // threads, (thread + 1) * target.size // threads
        for i in range(begin, end):
            target[i] = -target[i]


@njit(parallel=True)
def _add(source, target, threads):  # type: ignore[no-untyped-def]
    """Each thread adds its share to what is there: three numbers moved for each, along two streams."""
    for thread in prange(threads):
        begin, end = thread * target.size // threads, (thread + 1) * target.size // threads
        for i in range(begin, end):
            target[i] += source[i]
