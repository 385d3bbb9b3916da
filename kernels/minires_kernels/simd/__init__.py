"""Vectors and register tiles as Numba types: the two nouns in which every fast CPU kernel is written.

**Why.** Numba turns loops into machine code, and LLVM vectorises the easy ones. It doesn't keep a block of a matrix
product in registers: each step of the sum loads and stores the output again, and a convolution runs at a tenth of what
the processor can do. The two types here say what must be in registers, in one line each:

- a **vector** is one register: ``lanes`` neighbouring numbers (LLVM ``<16 x float>``). It adds, multiplies, loads and
  stores as a whole;
- a **tile** is ``rows`` x ``columns`` of vectors that stay in registers for as long as a loop runs: the accumulators
  of a block of a matrix product.

A micro-kernel is then its mathematics, y[p, o] = sum over c of x[p, c] w[c, o] for a block of p and o::

    accumulators = tile_zero(tile)
    for c in range(C):
        accumulators = tile_outer(accumulators, x, c, C, w, c * tile.width)     # += x[:, c] (outer product) w[c, :]
    tile_store(accumulators, y, 0, O)

**What the processor sees** (AVX-512, 14 x 2 tile): 28 of 32 registers hold accumulators, two hold ``w[c, :]``, and
``x[p, c]`` is broadcast by the multiply-add instruction itself as it reads memory. Each step does 28 multiply-adds and
16 loads. Two of either start per cycle, so the multiply-adds are the bound, and each accumulator is touched once in 14
cycles, which hides the 4 cycles that a multiply-add takes. That is how a BLAS does it, and the speed is a BLAS's.

**Compile-time constants.** ``Vector``, ``Tile`` and ``Matrix`` values are arguments of a kernel whose Numba *type* is
the value. So sizes of tiles are compiled in, loops over a tile are unrolled where machine code is made (inside the
intrinsics below; no source text is generated anywhere), the width is part of the key of Numba's on-disk cache, and
machine code for two widths can lie side by side in one process. Sizes of arrays stay run-time arguments.

**One source for all widths.** ``vector(dtype)`` has as many lanes as fit into ``REGISTER_BYTES``: 16 float32 or 8
float64 with AVX-512, 8 or 4 with AVX2, 4 or 2 with NEON and SSE. One lane is the plain loop: the same source again,
with scalars for vectors, for processors that have nothing better. Tests set ``kinds.REGISTER_BYTES``.

**Arithmetic.** ``+ - * /`` work between vectors, and between a vector and a number, which is rounded to the vector's
dtype first: nothing widens. A product that feeds a sum may be contracted to one fused multiply-add. Arrays must be
one-dimensional and contiguous, indices count elements, and nothing checks them.

Read on in ``kinds`` (the compile-time constants and the width), ``emit`` (the types, and the LLVM code of the parts),
``vectors`` and ``tiles`` (the operations), ``calls`` (kernels called by their address) and ``threads``.
"""

from __future__ import annotations

from minires_kernels.simd.calls import address, call
from minires_kernels.simd.kinds import Kind, Matrix, Tile, Vector, registers, vector
from minires_kernels.simd.threads import for_each, for_each_worker, in_parallel
from minires_kernels.simd.tiles import (
    tile_add,
    tile_correlate,
    tile_gather,
    tile_load,
    tile_load_part,
    tile_outer,
    tile_outer_stacked,
    tile_pixels,
    tile_plus,
    tile_prefetch,
    tile_sandwich,
    tile_scatter,
    tile_scatter_part,
    tile_store,
    tile_store_part,
    tile_total,
    tile_zero,
)
from minires_kernels.simd.vectors import (
    broadcast,
    fma,
    gate,
    gather,
    largest,
    load,
    load_part,
    maximum,
    prefetch,
    store,
    store_part,
    total,
    where_greater,
    zero,
)

__all__ = [
    "Kind",
    "Matrix",
    "Tile",
    "Vector",
    "address",
    "broadcast",
    "call",
    "fma",
    "for_each",
    "for_each_worker",
    "gate",
    "gather",
    "in_parallel",
    "largest",
    "load",
    "load_part",
    "maximum",
    "prefetch",
    "registers",
    "store",
    "store_part",
    "tile_add",
    "tile_correlate",
    "tile_gather",
    "tile_load",
    "tile_load_part",
    "tile_outer",
    "tile_outer_stacked",
    "tile_pixels",
    "tile_plus",
    "tile_prefetch",
    "tile_sandwich",
    "tile_scatter",
    "tile_scatter_part",
    "tile_store",
    "tile_store_part",
    "tile_total",
    "tile_zero",
    "total",
    "vector",
    "where_greater",
    "zero",
]
