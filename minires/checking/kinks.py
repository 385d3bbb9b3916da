"""Which side of every kink a value was computed on, read from the graph that computed it.

ReLU, max pooling, clip, abs and max are smooth but for a set of kinks; which smooth piece they used is a discrete
choice, and each tells it: see :meth:`minires.Function.signature`. A difference quotient means something exactly when
the choices at x - h, x and x + h are the same. So the check never mistakes a kink for a wrong gradient, and never
passes over one in silence.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from minires.function import Function
from minires.tensor import Tensor
from minires_kernels.arrays import Array, to_cpu


@dataclass(frozen=True)
class Choices:
    """The choices of all piecewise nodes of one evaluation, in order of creation."""

    names: tuple[str, ...] = ()
    signatures: tuple[Array, ...] = ()
    path: tuple[type, ...] = ()
    """The classes of all nodes: code that branches on values takes another path."""

    def crossed(self, other: Choices) -> Counter[str]:
        """By node: how many choices differ between the two; empty when both lie on the same smooth piece."""
        if self.path != other.path:
            return Counter({"another branch of the code": 1})
        differing: Counter[str] = Counter()
        for name, one, two in zip(self.names, self.signatures, other.signatures, strict=True):
            count = int(np.count_nonzero(one != two)) if one.shape == two.shape else max(one.size, two.size)
            if count:
                differing[name] += count
        return differing


def graph_of(output: Tensor) -> list[Function]:
    """Every Function that ``output`` depends on (as far as gradients flow), in order of creation."""
    found: dict[int, Function] = {}
    waiting = [output]
    while waiting:
        function = waiting.pop().creator
        if function is None or function.number in found:
            continue
        found[function.number] = function
        waiting.extend(tensor for tensor in function.inputs if tensor is not None)
    return [found[number] for number in sorted(found)]


def choices_of(output: Tensor, names: Mapping[int, str]) -> Choices:
    """The choices made while ``output`` was computed; ``names`` maps id(tensor) to the name of a variable."""
    nodes = graph_of(output)
    labels: list[str] = []
    signatures: list[Array] = []
    for node in nodes:
        signature = node.signature()
        if signature is not None:
            labels.append(node_name(node, names))
            signatures.append(to_cpu(signature))
    return Choices(tuple(labels), tuple(signatures), tuple(type(node) for node in nodes))


def node_name(node: Function, names: Mapping[int, str]) -> str:
    """``ReLU behind layer1.0.bn1``: its class and the nearest named parameters that it was computed from."""
    kind = type(node).__name__
    ancestor: Function | None = node
    while ancestor is not None:
        owners = [names.get(id(tensor), "") for tensor in ancestor.inputs if tensor is not None]
        owned = next((name.rpartition(".")[0] for name in owners if "." in name), None)
        if owned is not None:
            return f"{owned} ({kind})" if ancestor is node else f"{kind} behind {owned}"
        ancestor = next((t.creator for t in ancestor.inputs if t is not None and t.creator is not None), None)
    return kind
