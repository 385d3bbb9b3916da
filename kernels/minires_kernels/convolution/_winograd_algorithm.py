"""Winograd's minimal filtering F(m x m, 3 x 3): fewer multiplications for a 3x3 convolution of stride 1.

A tile of m x m outputs sees a patch d of (m+2) x (m+2) inputs and a filter g of 3 x 3. Instead of 9 m^2 products,

    y = A^T [ (G g G^T) * (B^T d B) ] A        (* element by element)

takes (m+2)^2: 16 instead of 36 for m = 2, and 36 instead of 144 for m = 4. (Winograd 1980; for convolutional networks
Lavin and Gray 2016, "Fast Algorithms for Convolutional Neural Networks", section 4.) Summed over channels, each of the
(m+2)^2 positions is a matrix product of its own, [tiles, C] x [C, O]; these run on register tiles. The transforms are
sums of vectors of channels, in registers from load to store (``simd.tile_sandwich``).

- forward: V = B^T d B, U = G g G^T, M = V U for each position, y = A^T M A.
- grad_input: forward of grad_output with the filters turned round and transposed, and padding 2 - P.
- grad_weight: the transposed algorithm, grad_g = G^T [ sum over tiles (B^T d B) (A grad_y A^T)^T ] G.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from minires_kernels.simd import Kind, Matrix, Tile, Vector

Rows: TypeAlias = tuple[tuple[float, ...], ...]

INPUT: dict[int, Rows] = {
    2: ((1, 0, -1, 0), (0, 1, 1, 0), (0, -1, 1, 0), (0, 1, 0, -1)),
    4: (
        (1, 0, -97 / 36, 0, 1, 0),
        (0, -3 / 2, -9 / 4, 2 / 3, 1, 0),
        (0, 3 / 2, -9 / 4, -2 / 3, 1, 0),
        (0, -2 / 3, -4 / 9, 3 / 2, 1, 0),
        (0, 2 / 3, -4 / 9, -3 / 2, 1, 0),
        (0, 1, 0, -97 / 36, 0, 1),
    ),
}
"""B^T, for the points 0, 1, -1, infinity (m = 2) and 0, 2/3, -2/3, 3/2, -3/2, infinity (m = 4).

The points decide how far intermediate numbers exceed the result, and so the rounding error. With 0, 1, -1, 2, -2 and
infinity, which spare multiplications, it is twice as large: 1.7e-6 instead of 0.8e-6 of the outputs' root mean square
for 64 channels in one long sum, where the direct sum has 0.3e-6.
"""

FILTER: dict[int, Rows] = {
    2: ((1, 0, 0), (1 / 2, 1 / 2, 1 / 2), (1 / 2, -1 / 2, 1 / 2), (0, 0, 1)),
    4: (
        (1, 0, 0),
        (-81 / 130, -27 / 65, -18 / 65),
        (-81 / 130, 27 / 65, -18 / 65),
        (8 / 65, 12 / 65, 18 / 65),
        (8 / 65, -12 / 65, 18 / 65),
        (0, 0, 1),
    ),
}
"""G."""

OUTPUT: dict[int, Rows] = {
    2: ((1, 1, 1, 0), (0, 1, -1, -1)),
    4: (
        (1, 1, 1, 1, 1, 0),
        (0, 2 / 3, -2 / 3, 3 / 2, -3 / 2, 0),
        (0, 4 / 9, 4 / 9, 9 / 4, 9 / 4, 0),
        (0, 8 / 27, -8 / 27, 27 / 8, -27 / 8, 1),
    ),
}
"""A^T."""


def _transposed(rows: Rows) -> Rows:
    return tuple(zip(*rows, strict=True))


@dataclass(frozen=True)
class Algorithm(Kind):
    """F(m x m, 3 x 3) on vectors of channels: a compile-time constant of the programs in ``_winograd_loops``."""

    vector: Vector
    m: int

    @property
    def size(self) -> int:
        """Rows and columns of a patch."""
        return self.m + 2

    @property
    def patch(self) -> Tile:
        """(m+2) x (m+2) vectors."""
        return Tile(self.vector, self.m + 2, self.m + 2)

    @property
    def outputs(self) -> Tile:
        """m x m vectors."""
        return Tile(self.vector, self.m, self.m)

    @property
    def filters(self) -> Tile:
        """3 x 3 vectors."""
        return Tile(self.vector, 3, 3)

    @property
    def input(self) -> Matrix:
        """B^T: from a patch of x."""
        return Matrix(INPUT[self.m])

    @property
    def filter(self) -> Matrix:
        """G: from a filter."""
        return Matrix(FILTER[self.m])

    @property
    def output(self) -> Matrix:
        """A^T: to outputs."""
        return Matrix(OUTPUT[self.m])

    @property
    def grad_output(self) -> Matrix:
        """A: from gradients of outputs."""
        return Matrix(_transposed(OUTPUT[self.m]))

    @property
    def grad_filter(self) -> Matrix:
        """G^T: to the gradient of a filter."""
        return Matrix(_transposed(FILTER[self.m]))
