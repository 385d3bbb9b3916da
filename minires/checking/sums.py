"""Does the engine add up what the uses of a tensor send back? What ``blame`` asks of each fan-out.

Where a tensor is used twice, as before each residual block, its gradient is the sum of two. No node does that: the walk
through the graph does. A watcher sees each contribution as it arrives, and the gradient that is passed on.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from minires.function import Function
from minires.tensor import Tensor
from minires_kernels.arrays import Array


@dataclass(frozen=True)
class Sum:
    """The gradient of a tensor that is used more than once, beside the sum of what its uses sent back."""

    name: str
    consumers: tuple[str, ...]
    """The nodes that use it, in the order in which they answered."""
    origin: str
    """``file:line`` of the code that made the tensor; empty for a leaf."""
    units: float
    """How far the two lie apart, in unit roundoffs of the sum of the contributions' sizes; infinite when one of them
    came too late, or not at all."""

    @property
    def limit(self) -> float:
        """What rounding can explain: k numbers are added with an error of at most k - 1 units, here and there."""
        return 2.0 * max(len(self.consumers) - 1, 0)

    @property
    def wrong(self) -> bool:
        """Whether rounding can't explain the difference."""
        return not self.units <= self.limit


class SumWatcher:
    """A :class:`minires.graph.Watcher` of one backward pass in which every use of every tensor sends something back."""

    def __init__(self, nodes: Iterable[Function], root: Tensor) -> None:
        self._uses = Counter({root: 1})
        self._uses.update(
            tensor
            for node in nodes
            for tensor, needed in zip(node.inputs, node.needs_input_grad, strict=True)
            if tensor is not None and needed
        )
        self._waiting: dict[Tensor, list[tuple[Function | None, Array]]] = {tensor: [] for tensor in self._uses}
        self._units: dict[Tensor, float] = {}
        self._consumers: dict[Tensor, list[Function | None]] = {}

    def sums(self, name: Callable[[Tensor], str], node_name: Callable[[Function], str]) -> tuple[Sum, ...]:
        """Every fan-out, in the order of first use; a tensor with one use only where even that went wrong."""
        found = []
        for tensor, uses in self._uses.items():
            units = float("inf") if self._waiting.get(tensor) else self._units.get(tensor, float("inf"))
            if uses == 1 and units == 0.0:
                continue
            consumers = self._consumers.get(tensor, []) + [each for each, _ in self._waiting.get(tensor, [])]
            origin = tensor.creator.where().strip(" ()") if tensor.creator is not None else ""
            names = tuple("where backward starts" if each is None else node_name(each) for each in consumers)
            found.append(Sum(name(tensor), names, origin, units))
        return tuple(found)

    def on_contribution(self, tensor: Tensor, consumer: Function | None, slot: int, grad: Array) -> None:
        """Keep it until the gradient is complete."""
        self._waiting.setdefault(tensor, []).append((consumer, grad))

    def on_gradient(self, tensor: Tensor, grad: Array) -> None:
        """Compare it with the sum of what arrived; contributions that come after this stay waiting: too late."""
        arrived = self._waiting.pop(tensor, [])
        self._consumers[tensor] = [consumer for consumer, _ in arrived]
        parts = [part for _, part in arrived]
        complete = len(parts) == self._uses[tensor] and tensor not in self._units
        self._units[tensor] = _units(grad, parts) if complete else float("inf")

    def on_forward(self, function: Function, inputs: tuple[Tensor | None, ...], output: Tensor) -> None:
        """Nothing is computed forward."""

    def on_release(self, function: Function) -> None:
        """The graph is kept."""

    def enter(self, module: Any) -> None:
        """No module is at work."""

    def leave(self, module: Any) -> None:
        """The same."""


def _units(grad: Array, parts: list[Array]) -> float:
    """The largest |grad - sum of parts| in unit roundoffs of the sum of |parts|; 0 where they are equal to the bit."""
    total = parts[0]
    for part in parts[1:]:
        total = total + part
    if total is grad or np.array_equal(total, grad):
        return 0.0
    size = np.sum([np.abs(part) for part in parts], axis=0)
    apart = np.abs(total - grad)
    with np.errstate(divide="ignore", invalid="ignore"):
        units = np.where(apart == 0, 0.0, apart / (size * (np.finfo(grad.dtype).eps / 2)))
    return float(np.max(np.where(np.isnan(units), np.inf, units)))
