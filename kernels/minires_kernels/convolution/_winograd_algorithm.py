"""Winograd's minimal filtering F(m x m, 3 x 3): fewer multiplications for a 3x3 convolution.

A tile of m x m outputs sees a patch d of inputs and a filter g of 3 x 3. Instead of 9 m^2 products,

    y = A^T [ (G g G^T) * (B^T d B) ] A        (* element by element)

takes (m+2)^2 with stride 1: 16 instead of 36 for m = 2, and 36 instead of 144 for m = 4. (Winograd 1980; for
convolutional networks Lavin and Gray 2016, "Fast Algorithms for Convolutional Neural Networks", section 4.) Summed
over channels, each of these positions is a matrix product of its own, [tiles, C] x [C, O]; they run on register
tiles. The transforms are sums of vectors of channels, in registers from load to store (``simd.tile_sandwich``).

With stride 2, the taps 0 and 2 meet one half of the pixels, those at even places, and tap 1 the other. The former are a
filter of two taps and stride 1, of which F(2, 2) makes two outputs in 3 products instead of 4; the latter takes 2.
That makes 5 instead of 6 along an axis, and 25 instead of 36 for 2 x 2 outputs. (Yepez and Ko 2020, "Stride 2 1-D, 2-D,
and 3-D Winograd for Convolutional Neural Networks".)

- forward: V = B^T d B, U = G g G^T, M = V U for each position, y = A^T M A.
- grad_input: with stride 1, forward of grad_output with the filters turned round and transposed, and padding 2 - P.
  With stride 2, an algorithm of its own, "adjoint", since outputs and inputs change places.
- grad_weight: the transposed algorithm, grad_g = G^T [ sum over tiles (B^T d B) (A grad_y A^T)^T ] G.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

from minires_kernels.simd import Kind, Matrix, Tile, Vector

Rows: TypeAlias = tuple[tuple[float, ...], ...]


class Filtering(NamedTuple):
    """y = A^T [(G g) * (B^T d)] along one axis: so many outputs of a filter of three taps."""

    input: Rows
    """B^T: what to multiply, from a patch of inputs."""
    filter: Rows
    """G: what to multiply it by."""
    output: Rows
    """A^T: the outputs, from the products."""
    step: int
    """Inputs from one patch to the next."""
    longest_sum: int
    """Channels that forward sums up before they are added to what is there: of all the rounding errors, that of one
    long sum would be the largest."""


EVEN_AND_ODD: Rows = ((1, 0, 0), (1, 0, 1), (0, 0, 1), (0, 1, 0), (0, 1, 0))
"""G of stride 2, and of its adjoint: F(2, 2) of taps 0 and 2, then tap 1, for either output."""

FILTERINGS: dict[str, Filtering] = {
    "F2": Filtering(
        input=((1, 0, -1, 0), (0, 1, 1, 0), (0, -1, 1, 0), (0, 1, 0, -1)),
        filter=((1, 0, 0), (1 / 2, 1 / 2, 1 / 2), (1 / 2, -1 / 2, 1 / 2), (0, 0, 1)),
        output=((1, 1, 1, 0), (0, 1, -1, -1)),
        step=2,
        longest_sum=64,
    ),
    "F4": Filtering(
        input=(
            (1, 0, -97 / 36, 0, 1, 0),
            (0, -3 / 2, -9 / 4, 2 / 3, 1, 0),
            (0, 3 / 2, -9 / 4, -2 / 3, 1, 0),
            (0, -2 / 3, -4 / 9, 3 / 2, 1, 0),
            (0, 2 / 3, -4 / 9, -3 / 2, 1, 0),
            (0, 1, 0, -97 / 36, 0, 1),
        ),
        filter=(
            (1, 0, 0),
            (-81 / 130, -27 / 65, -18 / 65),
            (-81 / 130, 27 / 65, -18 / 65),
            (8 / 65, 12 / 65, 18 / 65),
            (8 / 65, -12 / 65, 18 / 65),
            (0, 0, 1),
        ),
        output=(
            (1, 1, 1, 1, 1, 0),
            (0, 2 / 3, -2 / 3, 3 / 2, -3 / 2, 0),
            (0, 4 / 9, 4 / 9, 9 / 4, 9 / 4, 0),
            (0, 8 / 27, -8 / 27, 27 / 8, -27 / 8, 1),
        ),
        step=4,
        longest_sum=16,
    ),
    "F2 of stride 2": Filtering(
        input=((1, 0, -1, 0, 0), (0, 0, 1, 0, 0), (0, 0, -1, 0, 1), (0, 1, 0, 0, 0), (0, 0, 0, 1, 0)),
        filter=EVEN_AND_ODD,
        output=((1, 1, 0, 1, 0), (0, 1, 1, 0, 1)),
        step=4,
        longest_sum=64,
    ),
    "F2 of stride 2, adjoint": Filtering(
        input=((1, -1, 0), (0, 1, 0), (0, -1, 1), (1, 0, 0), (0, 1, 0)),
        filter=EVEN_AND_ODD,
        output=((0, 0, 0, 1, 0), (1, 1, 0, 0, 0), (0, 0, 0, 0, 1), (0, 1, 1, 0, 0)),
        step=2,
        longest_sum=64,
    ),
}
"""Made for the points 0, 1, -1, infinity (F2), 0, 2/3, -2/3, 3/2, -3/2, infinity (F4) and 0, 1, infinity (the even half
of stride 2). In the adjoint of stride 2 a patch of 3 gradients makes 4 pixels of x, first one that only tap 1 sees.

The points decide how far intermediate numbers exceed the result, and so the rounding error. With 0, 1, -1, 2, -2 and
infinity, which spare multiplications, F4's is twice as large: 1.7e-6 instead of 0.8e-6 of the outputs' root mean square
for 64 channels in one long sum, where the direct sum has 0.3e-6.
"""


def _transposed(rows: Rows) -> Rows:
    return tuple(zip(*rows, strict=True))


@dataclass(frozen=True)
class PatchTransform(Kind):
    """A matrix times a patch of vectors of channels times the transposed matrix: B^T d B or A grad_y A^T."""

    vector: Vector
    rows: Rows

    @property
    def size(self) -> int:
        """Rows and columns of positions."""
        return len(self.rows)

    @property
    def patch(self) -> Tile:
        """What is transformed."""
        return Tile(self.vector, len(self.rows[0]), len(self.rows[0]))

    @property
    def matrix(self) -> Matrix:
        """By what."""
        return Matrix(self.rows)


@dataclass(frozen=True)
class Algorithm(Kind):
    """One of ``FILTERINGS``, along both axes, on vectors of channels: a compile-time constant of the transforms."""

    vector: Vector
    name: str

    @property
    def filtering(self) -> Filtering:
        """Its matrices."""
        return FILTERINGS[self.name]

    @property
    def patch_size(self) -> int:
        """Rows and columns of inputs that a patch has."""
        return len(self.filtering.input[0])

    @property
    def size(self) -> int:
        """Rows and columns of positions."""
        return len(self.filtering.input)

    @property
    def output_size(self) -> int:
        """Rows and columns of outputs made from a patch."""
        return len(self.filtering.output)

    @property
    def input(self) -> PatchTransform:
        """B^T d B, of inputs."""
        return PatchTransform(self.vector, self.filtering.input)

    @property
    def grad_output(self) -> PatchTransform:
        """A grad_y A^T, of gradients of outputs."""
        return PatchTransform(self.vector, _transposed(self.filtering.output))

    @property
    def positions(self) -> Tile:
        """What is multiplied, and the products."""
        return Tile(self.vector, self.size, self.size)

    @property
    def filters(self) -> Tile:
        """3 x 3 vectors."""
        return Tile(self.vector, 3, 3)

    @property
    def filter(self) -> Matrix:
        """G: from a filter."""
        return Matrix(self.filtering.filter)

    @property
    def output(self) -> Matrix:
        """A^T: to outputs."""
        return Matrix(self.filtering.output)

    @property
    def grad_filter(self) -> Matrix:
        """G^T: to the gradient of a filter."""
        return Matrix(_transposed(self.filtering.filter))
