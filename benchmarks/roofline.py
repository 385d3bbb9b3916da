"""The two peaks of this machine, measured: multiply-adds a second out of registers, bytes a second out of memory.

A kernel's bound is the larger of operations / peak and bytes / bandwidth (Williams, Waterman and Patterson 2009). Both
are measured with the threads that the kernels use, by programs that do nothing else; a kernel that claims more than
102 % of its bound was measured wrongly, and that is an error, not a record.
"""

from __future__ import annotations

from dataclasses import dataclass

import numba
import numpy as np
from numba import njit, prange

from benchmarks.timing import alternate
from minires_kernels.simd import Tile, tile_outer, tile_store, tile_zero, vector

TOLERATED = 1.02


@dataclass(frozen=True)
class Roofline:
    """Measured peaks: ``operations`` a second (float32) and ``bytes`` a second."""

    operations: float
    bytes: float

    def share(self, operations: float, moved: float, seconds: float, case: str) -> float:
        """The bound's time over ``seconds``: the share of what this machine can do.

        Raises RuntimeError above 102 %: then the measurement, or the count of operations, is wrong.
        """
        share = max(operations / self.operations, moved / self.bytes) / seconds
        if share > TOLERATED:
            raise RuntimeError(
                f"{case}: {share:.0%} of the measured roofline ({self.operations / 1e9:.0f} GFLOP/s, "
                f"{self.bytes / 1e9:.1f} GB/s); a share above {TOLERATED:.0%} means a wrong measurement"
            )
        return share


def measure(threads: int, *, seconds: float = 6.0) -> Roofline:
    """Measure both peaks with ``threads`` threads; the best of all quiet rounds, since a peak is a maximum."""
    numba.set_num_threads(threads)
    tile = Tile(vector(np.float32), rows=12, columns=2)
    depth, repeats = 256, 400
    x = np.ones((threads, 12 * depth), np.float32)
    w = np.ones((threads, tile.width * depth), np.float32)
    y = np.zeros((threads, 12 * tile.width), np.float32)
    flops = 2.0 * 12 * tile.width * depth * repeats * threads
    # Far larger than any cache, so that every pass reads and writes memory.
    source, target = np.ones(48_000_000, np.float32), np.zeros(48_000_000, np.float32)
    measured = alternate(
        {
            "operations": lambda: _multiply_adds(tile, x, w, y, depth, repeats),
            "bytes": lambda: _copy(source, target, threads),
        },
        rounds=40,
        seconds=seconds,
    )
    return Roofline(
        operations=flops / min(measured.times["operations"].seconds),
        bytes=2.0 * source.nbytes / min(measured.times["bytes"].seconds),
    )


@njit(parallel=True, cache=True)
def _multiply_adds(tile, x, w, y, depth, repeats):  # type: ignore[no-untyped-def]
    """The micro-kernel of a matrix product on operands that lie in the first-level cache."""
    for thread in prange(len(x)):
        for _ in range(repeats):
            accumulators = tile_zero(tile)
            for k in range(depth):
                accumulators = tile_outer(accumulators, x[thread], k, depth, w[thread], k * tile.width)
            tile_store(accumulators, y[thread], 0, tile.width)


@njit(parallel=True, cache=True)
def _copy(source, target, threads):  # type: ignore[no-untyped-def]
    """Each thread copies its share."""
    for thread in prange(threads):
        begin, end = thread * source.size // threads, (thread + 1) * source.size // threads
        for i in range(begin, end):
            target[i] = source[i]
