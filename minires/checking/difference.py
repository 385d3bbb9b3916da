"""``diff``: the first node where two recorded runs part.

Two runs of one computation (float32 and float64, two implementations, CPU and GPU) never agree to the last bit. Where
do they *begin* to differ by more than rounding? Both tapes are read side by side, forward in order of creation, then
backward against it; each array is compared in units of the rounding to expect of it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from minires.inspection import Tape
from minires_kernels.arrays import Array, to_cpu

LIMIT = 1000.0
"""In units of expected rounding, which grows with the square root of a node's depth."""


@dataclass(frozen=True)
class Parting:
    """Where one array of both runs differs, by how much. ``units``: of expected rounding."""

    phase: Literal["forward", "backward"]
    name: str
    origin: str
    units: float
    index: tuple[int, ...]
    values: tuple[float, float]


@dataclass(frozen=True)
class Difference:
    """The result of :func:`diff`; truthy when the runs agree."""

    compared: int
    worst: float
    first: Parting | None
    mismatch: str = ""
    """Why the tapes can't be read side by side; empty when they can."""

    def __bool__(self) -> bool:
        return self.first is None and not self.mismatch

    def __str__(self) -> str:
        if self.mismatch:
            return f"diff: {self.mismatch}"
        if self.first is None:
            return f"diff: {self.compared} arrays agree, to {self.worst:.2g} units of rounding"
        part = self.first
        return (
            f"diff: the runs part {part.phase}, at {part.name} {list(part.index)}: {part.values[0]:+.7e} and "
            f"{part.values[1]:+.7e}, {part.units:.1e} units of rounding  {part.origin}"
        )

    __repr__ = __str__


def diff(one: Tape, two: Tape, *, limit: float = LIMIT) -> Difference:
    """The first node, forward then backward, where two tapes of one computation leave their rounding bound.

    The unit of an array is the unit roundoff of the coarser dtype, times its typical size, times the square root of how
    many nodes stand before it. ``limit``: how many such units are still rounding. Tapes whose nodes differ in name or
    shape aren't runs of one computation: the result says where.
    """
    nodes = list(zip(one.nodes, two.nodes, strict=False))
    for a, b in nodes:
        if (a.name, a.shape) != (b.name, b.shape):
            return Difference(0, 0.0, None, f"not the same computation: {a.name} {a.shape} and {b.name} {b.shape}")
    if len(one.nodes) != len(two.nodes):
        return Difference(0, 0.0, None, f"one run has {len(one.nodes)} nodes, the other {len(two.nodes)}")
    compared, worst = 0, 0.0
    for depth, (a, b) in enumerate(nodes):
        units, index, values = _apart(a.value, b.value, depth + 1)
        compared, worst = compared + 1, max(worst, units)
        if not units <= limit:
            return Difference(compared, worst, Parting("forward", a.name, a.where(), units, index, values))
    for depth, (a, b) in enumerate(reversed(nodes)):
        grads = one.gradient(a), two.gradient(b)
        if grads[0].array is None or grads[1].array is None:
            if grads[0].state is not grads[1].state:
                states = f"{grads[0].state.value} and {grads[1].state.value}"
                return Difference(compared, worst, None, f"the gradient of {a.name}: {states}")
            continue
        units, index, values = _apart(grads[0].array, grads[1].array, len(nodes) + depth + 1)
        compared, worst = compared + 1, max(worst, units)
        if not units <= limit:
            return Difference(compared, worst, Parting("backward", a.name, a.where(), units, index, values))
    return Difference(compared, worst, None)


def _apart(one: Array, two: Array, depth: int) -> tuple[float, tuple[int, ...], tuple[float, float]]:
    """(largest distance in units of rounding, its index, both values there)."""
    a, b = to_cpu(one), to_cpu(two)
    if not a.size or a.dtype.kind != "f":
        return (0.0 if np.array_equal(a, b) else float("inf")), (), (0.0, 0.0)
    roundoff = max(float(np.finfo(array.dtype).eps) for array in (a, b)) / 2
    typical = float(np.sqrt(np.mean(np.square(b, dtype=np.float64))))
    distance = np.asarray(np.abs(a.astype(np.float64) - b))
    distance[~np.isfinite(a) | ~np.isfinite(b)] = np.inf
    distance[a == b] = 0.0
    index = tuple(int(i) for i in np.unravel_index(int(distance.argmax()), distance.shape))
    unit = roundoff * max(typical, 1e-300) * depth**0.5
    return float(distance[index]) / unit, index, (float(a[index]), float(b[index]))
