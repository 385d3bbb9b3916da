"""``diff``: the first node where two runs of one computation part.

Two runs (float32 and float64, two implementations, CPU and GPU, this engine and PyTorch) never agree to the last bit.
Where do they *begin* to differ by more than rounding? Both are read side by side, forward in order of creation, then
backward against it; each array is compared in units of the rounding to expect of it. One run is on a tape; the other
is on a tape too, or a few of its tensors are handed over by name.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from minires.inspection import Node, Tape
from minires.tensor import Tensor
from minires_kernels.arrays import Array, to_cpu

Phase = Literal["forward", "backward"]

LIMIT = 1000.0
"""In units of expected rounding, which grows with the square root of a node's depth."""


@dataclass(frozen=True)
class Parting:
    """Where one array of both runs differs, by how much. ``units``: of expected rounding."""

    phase: Phase
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


@dataclass(frozen=True)
class _Pair:
    """A node of the first run with what the second has in its place; no gradients where there is nothing to compare."""

    node: Node
    value: Array
    gradients: tuple[Array, Array] | None
    mismatch: str = ""
    """Why the gradients can't be compared although there should be two."""


class _MismatchError(Exception):
    """The two runs can't be read side by side: why, in a sentence."""


def diff(one: Tape, two: Tape | Mapping[str, Any], *, limit: float = LIMIT) -> Difference:
    """The first node, forward then backward, where two runs of one computation leave their rounding bound.

    ``two``: another tape, of which every node is compared; or, for a run of something else, its tensors by the names
    that they have on the tape ``one`` (``print(one)`` shows them). A tensor is PyTorch's or ours, whose ``grad`` is
    compared as well where it has one (``retain_grad()`` keeps it for what isn't a leaf); or an array, or a pair (array,
    gradient). Both runs must start from the same numbers, and backward from the same upstream gradient.

    The unit of an array is the unit roundoff of the coarser dtype, times its typical size, times the square root of how
    many nodes stand before it. ``limit``: how many such units are still rounding. Runs whose nodes differ in name or
    shape aren't of one computation: the result says where. Raises KeyError, with the nearest ones, for a name that
    isn't on the tape, ValueError where there is nothing to compare.
    """
    try:
        pairs = list(_of_tapes(one, two) if isinstance(two, Tape) else _of_names(one, two))
    except _MismatchError as mismatch:
        return Difference(0, 0.0, None, str(mismatch))
    if not pairs:
        raise ValueError("diff: there is nothing to compare: both tapes, or the names, are empty")
    compared, worst = 0, 0.0
    order: list[tuple[Phase, _Pair]] = [("forward", pair) for pair in pairs]
    order += [("backward", pair) for pair in reversed(pairs)]
    for phase, pair in order:
        node = pair.node
        arrays = (node.value, pair.value) if phase == "forward" else pair.gradients
        if phase == "backward" and pair.mismatch:
            return Difference(compared, worst, None, pair.mismatch)
        if arrays is None:
            continue
        before = node.id if phase == "forward" else 2 * len(one.nodes) - 1 - node.id
        units, index, values = _apart(*arrays, before + 1)
        compared, worst = compared + 1, max(worst, units)
        if not units <= limit:
            return Difference(compared, worst, Parting(phase, node.name, node.where(), units, index, values))
    return Difference(compared, worst, None)


def _of_tapes(one: Tape, two: Tape) -> Iterator[_Pair]:
    for a, b in zip(one.nodes, two.nodes, strict=False):
        if (a.name, a.shape) != (b.name, b.shape):
            raise _MismatchError(f"not the same computation: {a.name} {a.shape} and {b.name} {b.shape}")
    if len(one.nodes) != len(two.nodes):
        raise _MismatchError(f"one run has {len(one.nodes)} nodes, the other {len(two.nodes)}")
    for a, b in zip(one.nodes, two.nodes, strict=True):
        ours, theirs = one.gradient(a), two.gradient(b)
        if ours.array is not None and theirs.array is not None:
            yield _Pair(a, b.value, (ours.array, theirs.array))
        else:
            alike = ours.state is theirs.state
            states = f"the gradient of {a.name}: {ours.state.value} and {theirs.state.value}"
            yield _Pair(a, b.value, None, "" if alike else states)


def _of_names(tape: Tape, tensors: Mapping[str, Any]) -> Iterator[_Pair]:
    found = [(tape[name], *_value_and_gradient(given)) for name, given in tensors.items()]
    for node, value, gradient in sorted(found, key=lambda each: each[0].id):
        ours = tape.gradient(node)
        for what, array in (("", value), ("the gradient of ", gradient)):
            if array is not None and array.shape != node.shape:
                raise _MismatchError(f"not the same computation: {what}{node.name} is {node.shape} and {array.shape}")
        if gradient is None:
            yield _Pair(node, value, None)
        elif ours.array is None:
            yield _Pair(node, value, None, f"the gradient of {node.name}: {ours.state.value}, but one was given")
        else:
            yield _Pair(node, value, (ours.array, gradient))


def _value_and_gradient(given: Any) -> tuple[Array, Array | None]:
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(given, torch.Tensor):
        gradient = given.grad if given.is_leaf or given.retains_grad else None  # torch warns where it keeps none
        return given.detach().cpu().numpy(), None if gradient is None else gradient.cpu().numpy()
    if isinstance(given, Tensor):
        return given.data, given.grad
    value, gradient = given if isinstance(given, tuple) else (given, None)
    return np.asarray(value), None if gradient is None else np.asarray(gradient)


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
