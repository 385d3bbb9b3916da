"""Which node of a whole network computes a wrong gradient?

A check of the whole says *that* something is wrong. ``blame`` says where: it visits each node of the graph, with the
activations that the network really has there, and asks the one question <v, J u> = <J^T v, u> for random u and v: the
left side by a difference of the node's own forward pass, in float64; the right side by the very backward pass that
training runs, on what the node has saved. Each node answers for itself, so that a guilty one doesn't taint those behind
it. It costs two forward passes in float64 and one backward pass, a few training steps in all, at any depth.
"""

from __future__ import annotations

import copy
import html
import inspect
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from minires.checking.kinks import graph_of, node_name
from minires.function import Function
from minires.nn import Module
from minires.tensor import Tensor
from minires_kernels.arrays import Array, is_channels_last

STEP = 2.0**-17
"""Of the central difference, relative to each input: its h^2 and its rounding are then both near 1e-10."""
LIMIT = 1000.0
"""In units of expected rounding. Right nodes stay below 100; a wrong thousandth of a float32 gradient gives 16,000."""


@dataclass(frozen=True)
class Suspect:
    """One node's answer. ``units``: how far the two sides lie apart, in units of the rounding to expect."""

    position: int
    name: str
    function: str
    origin: str
    """``file:line`` of the code that applied it."""
    units: float
    inputs: tuple[str, ...] = ()
    """Which of its inputs get a wrong gradient, for a guilty node."""

    @property
    def guilty(self) -> bool:
        """Whether rounding can't explain the difference."""
        return not self.units <= LIMIT


@dataclass(frozen=True)
class BlameReport:
    """What :func:`blame` found; truthy when every node is right."""

    nodes: tuple[Suspect, ...]
    seed: int

    def __bool__(self) -> bool:
        return not self.guilty

    @property
    def guilty(self) -> tuple[Suspect, ...]:
        """The nodes whose backward isn't the adjoint of their forward's derivative, in forward order."""
        return tuple(node for node in self.nodes if node.guilty)

    def __str__(self) -> str:
        return "\n".join(self._lines())

    __repr__ = __str__

    def _lines(self) -> Iterator[str]:
        worst = max((node.units for node in self.nodes if not node.guilty), default=0.0)
        rest = f"the other {len(self.nodes) - len(self.guilty)} nodes differ by at most {worst:.2g} units of rounding"
        if not self.guilty:
            yield f"blame: all {len(self.nodes)} nodes are right, to {worst:.2g} units of rounding  seed {self.seed}"
            return
        yield f"blame: {len(self.guilty)} of {len(self.nodes)} nodes guilty; {rest}  seed {self.seed}"
        for node in self.guilty:
            of = f", gradient of {' and '.join(node.inputs)}" if node.inputs else ""
            yield f"  node {node.position}  {node.name}{of}: {node.units:.1e} units  {node.function}  {node.origin}"

    def to_dict(self) -> dict[str, Any]:
        """The report as plain Python values, for JSON."""
        return {
            "ok": bool(self),
            "seed": self.seed,
            "guilty": [node.position for node in self.guilty],
            "nodes": [
                {"name": node.name, "function": node.function, "origin": node.origin, "units": node.units}
                for node in self.nodes
            ],
        }

    def _repr_html_(self) -> str:
        return f"<pre>{html.escape(str(self))}</pre>"


def blame(loss: Tensor, model: Module | None = None, *, seed: int = 0) -> BlameReport:
    """The nodes behind ``loss`` whose backward pass is wrong. Call it before ``loss.backward()`` frees the graph.

    ``loss``: any tensor with a graph, float32 or float64. ``model``: names the nodes by its parameters' paths.
    ``seed``: draws the random vectors. Nothing is changed: no ``grad``, no running statistic, no generator.

    What it sees is nodes; the sum where a tensor was used several times is the engine's, not a node's. Raises
    RuntimeError for a tensor without a graph, or one whose graph was freed.
    """
    if not loss.requires_grad:
        raise RuntimeError("blame: the tensor has no graph; it was made from tensors that don't require a gradient")
    nodes = graph_of(loss)
    freed = next((node for node in nodes if node.released), None)
    if freed is not None:
        raise RuntimeError(
            f"blame: the graph was freed by a backward pass, at {freed!r}{freed.where()}; call it before"
        )
    names = {id(p): name for name, p in model.named_parameters()} if model is not None else {}
    sizes = (tensor.size for node in nodes for tensor in node.inputs if tensor is not None)
    signs = Signs(max(loss.size, *sizes), np.random.default_rng((seed, 110)))
    suspects = []
    for position, node in enumerate(nodes):
        slots = tuple(slot for slot, needed in enumerate(node.needs_input_grad) if needed)
        units = disagreement(node, slots, signs)
        wrong: tuple[str, ...] = ()
        if not units <= LIMIT:
            arguments = inspect.getfullargspec(node.forward)
            known = arguments.args[1:] + [f"input {i}" for i in range(len(arguments.args) - 1, len(node.inputs))]
            wrong = tuple(known[slot] for slot in slots if not disagreement(node, (slot,), signs) <= LIMIT)
        origin = node.where().strip(" ()")
        suspects.append(Suspect(position, node_name(node, names), repr(node), origin, units, wrong))
    return BlameReport(tuple(suspects), seed)


def disagreement(node: Function, slots: tuple[int, ...], signs: Signs) -> float:
    """|<v, J u> - <J^T v, u>| of one node in units of expected rounding, moving the inputs ``slots``.

    Infinite when backward raises, returns the wrong shape or a number that isn't finite.
    """
    inputs: list[Any] = [None if tensor is None else tensor.data for tensor in node.inputs]
    moves: dict[int, Array] = {}
    for slot in slots:
        x = inputs[slot]
        moves[slot] = signs.like(x) * ((float(dot(x, x)) / max(x.size, 1)) ** 0.5 or 1.0)
    plus, plus_choice, _ = _forward(node, inputs, moves, STEP)
    minus, minus_choice, _ = _forward(node, inputs, moves, -STEP)
    v = signs.like(plus).copy(order="K")
    if any(isinstance(value, np.random.Generator) for value in vars(node).values()):
        node = _forward(node, inputs, {}, 0.0)[2]  # it drew numbers: a twin that draws the same ones as the others
    own_choice = node.signature()
    for choice in (plus_choice, minus_choice):  # outputs that crossed a kink have no derivative: they don't vote
        if own_choice is not None and choice is not None and own_choice.shape == choice.shape == v.shape:
            v[own_choice != choice] = 0
    plus -= minus
    left = float(dot(v, plus)) / (2 * STEP)
    dtype = next(x.dtype for x in inputs if x is not None and x.dtype.kind == "f")
    try:
        gradients = node.backward(v.astype(dtype))
    except Exception:  # whatever it is, this node is where it happens
        return float("inf")
    right = square = 0.0
    for slot, move in moves.items():
        gradient = gradients[slot]
        if gradient is None:
            continue
        if gradient.shape != move.shape:
            return float("inf")
        move *= gradient
        right += float(move.sum())
        square += float(dot(move, move))
    rounding = float(np.finfo(dtype).eps) / 2 + STEP**2 + np.finfo(np.float64).eps / STEP
    unit = rounding * max(square, float(dot(plus, plus)) / (2 * STEP) ** 2) ** 0.5
    if not np.isfinite(right):
        return float("inf")
    return abs(left - right) / unit if unit else 0.0


def _forward(
    node: Function, inputs: list[Any], moves: dict[int, Array], step: float
) -> tuple[Array, Array | None, Function]:
    """(output, signature, twin) of ``node`` with its inputs moved, in float64: computed by a copy of it, the twin."""
    twin = _twin(node)
    arrays = []
    for slot, x in enumerate(inputs):
        if x is None or x.dtype.kind != "f":
            arrays.append(x)
        elif slot in moves:
            moved = moves[slot] * step
            moved += x
            arrays.append(moved)
        else:
            arrays.append(x.astype(np.float64))
    with np.errstate(all="ignore"):
        output = np.asarray(twin.forward(*arrays))
    return output, twin.signature(), twin


def _twin(node: Function) -> Function:
    """A copy of ``node`` whose forward pass disturbs nothing: generators and inner Functions are copied as well."""
    twin = copy.copy(node)
    for name, value in vars(node).items():
        if isinstance(value, Function):
            setattr(twin, name, _twin(value))
        elif isinstance(value, np.random.Generator):
            setattr(twin, name, copy.deepcopy(value))
        elif isinstance(value, np.ndarray) and value.dtype == np.float32:
            setattr(twin, name, value.astype(np.float64))
    return twin


def dot(a: Array, b: Array) -> Any:
    """sum(a b), of arrays laid out alike without a copy."""
    if is_channels_last(a) and is_channels_last(b):
        a, b = a.transpose(0, 2, 3, 1), b.transpose(0, 2, 3, 1)
    return np.dot(a.reshape(-1), b.reshape(-1))


class Signs:
    """Arrays of +1 and -1: the cheapest random numbers, and as good as any others in an adjoint test.

    They are cut from one pool, each time elsewhere, and lie in memory as their model does: nothing is converted.
    """

    def __init__(self, largest: int, rng: np.random.Generator) -> None:
        bits = np.unpackbits(np.frombuffer(rng.bytes((largest + 4096) // 8 + 1), np.uint8))
        self._pool, self._rng = bits * 2.0 - 1.0, rng

    def like(self, model: Array) -> Array:
        """A read-only float64 array of signs, shaped and laid out like ``model``."""
        start = int(self._rng.integers(self._pool.size - model.size))
        signs = self._pool[start : start + model.size]
        if is_channels_last(model):
            N, C, H, W = model.shape
            return signs.reshape(N, H, W, C).transpose(0, 3, 1, 2)
        return signs.reshape(model.shape)
