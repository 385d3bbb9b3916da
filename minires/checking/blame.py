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
    bench = Workbench(max(loss.size, *sizes), np.random.default_rng((seed, 110)))
    suspects = []
    for position, node in enumerate(nodes):
        slots = tuple(slot for slot, needed in enumerate(node.needs_input_grad) if needed)
        units = disagreement(node, slots, bench)
        wrong: tuple[str, ...] = ()
        if not units <= LIMIT:
            arguments = inspect.getfullargspec(node.forward)
            known = arguments.args[1:] + [f"input {i}" for i in range(len(arguments.args) - 1, len(node.inputs))]
            wrong = tuple(known[slot] for slot in slots if not disagreement(node, (slot,), bench) <= LIMIT)
        origin = node.where().strip(" ()")
        suspects.append(Suspect(position, node_name(node, names), repr(node), origin, units, wrong))
    return BlameReport(tuple(suspects), seed)


def disagreement(node: Function, slots: tuple[int, ...], bench: Workbench) -> float:
    """|<v, J u> - <J^T v, u>| of one node in units of expected rounding, moving the inputs ``slots``.

    Infinite when backward raises, returns the wrong shape or a number that isn't finite.
    """
    inputs: list[Any] = [None if tensor is None else tensor.data for tensor in node.inputs]
    above: list[Any] = [x if slot in slots else _wide(x) for slot, x in enumerate(inputs)]
    below = list(above)
    moves: dict[int, tuple[float, Array]] = {}
    for slot in slots:
        x = inputs[slot]
        size, signs = (square(x) / max(x.size, 1)) ** 0.5 or 1.0, bench.signs(x)
        size = float(np.float32(size))  # signs are float32, and so is their product with it: exact
        moves[slot] = size, signs
        below[slot] = np.multiply(signs, size * STEP, out=bench.scratch(x, np.float64, 2 * slot))
        above[slot] = np.add(x, below[slot], out=bench.scratch(x, np.float64, 2 * slot + 1))
        below[slot] = np.subtract(x, below[slot], out=below[slot])
    plus, plus_choice, _ = _forward(node, above)
    minus, minus_choice, _ = _forward(node, below)
    dtype = next(x.dtype for x in inputs if x is not None and x.dtype.kind == "f")
    v = bench.scratch(plus, dtype, -1)
    v[...] = bench.signs(plus)
    if any(isinstance(value, np.random.Generator) for value in vars(node).values()):
        node = _forward(node, [_wide(x) for x in inputs])[2]  # a twin that draws the same numbers as the others
    own_choice = node.signature()
    for choice in (plus_choice, minus_choice):  # outputs that crossed a kink have no derivative: they don't vote
        if own_choice is not None and choice is not None and own_choice.shape == choice.shape == v.shape:
            v *= own_choice == choice
    plus -= minus
    plus *= v
    left = float(plus.sum()) / (2 * STEP)
    try:
        gradients = node.backward(v)
    except Exception:  # whatever it is, this node is where it happens
        return float("inf")
    right = squares = 0.0
    for slot, (size, signs) in moves.items():
        gradient = gradients[slot]
        if gradient is None:
            continue
        if gradient.shape != signs.shape:
            return float("inf")
        # NumPy adds in pairs, so float32 sums are good to a few units.
        right += size * float(np.multiply(gradient, signs, out=bench.scratch(signs, dtype, -2)).sum())
        squares += size**2 * square(gradient)
    rounding = float(np.finfo(dtype).eps) / 2 + STEP**2 + np.finfo(np.float64).eps / STEP
    unit = rounding * max(squares, square(plus) / (2 * STEP) ** 2) ** 0.5
    if not np.isfinite(right):
        return float("inf")
    return abs(left - right) / unit if unit else 0.0


def _wide(x: Array | None) -> Array | None:
    return x if x is None or x.dtype.kind != "f" else x.astype(np.float64)


def _forward(node: Function, arrays: list[Any]) -> tuple[Array, Array | None, Function]:
    """(output, signature, twin) of ``node`` for other inputs: computed by a copy of it, the twin."""
    twin = _twin(node)
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


def square(x: Array) -> float:
    """The sum of x's squares. Not by BLAS: its threads would go on waiting, and take the cores from the kernels."""
    flat = (x.transpose(0, 2, 3, 1) if is_channels_last(x) else x).reshape(-1)
    return float(np.einsum("i,i->", flat, flat))


class Workbench:
    """Random signs, and memory to work in that is asked for once: most nodes do less work than finding memory costs.

    +1 and -1 are the cheapest random numbers, and as good as any others in an adjoint test. They are cut from one pool,
    each time elsewhere. All arrays lie in memory as their model does, so that nothing is rearranged.
    """

    def __init__(self, largest: int, rng: np.random.Generator) -> None:
        bits = np.unpackbits(np.frombuffer(rng.bytes((largest + 4096) // 8 + 1), np.uint8))
        self._pool, self._rng = bits * np.float32(2) - np.float32(1), rng
        self._pool.flags.writeable = False
        self._largest = largest
        self._memory: dict[int, Array] = {}

    def signs(self, model: Array) -> Array:
        """A read-only float32 array of signs, shaped and laid out like ``model``."""
        start = int(self._rng.integers(self._pool.size - model.size))
        return _laid_out(self._pool[start : start + model.size], model)

    def scratch(self, model: Array, dtype: Any, place: int) -> Array:
        """An array like ``model`` with anything in it; the next one at the same ``place`` takes its memory."""
        memory = self._memory.setdefault(place, np.empty(self._largest))
        return _laid_out(memory.view(dtype)[: model.size], model)


def _laid_out(flat: Array, model: Array) -> Array:
    if is_channels_last(model):
        N, C, H, W = model.shape
        return flat.reshape(N, H, W, C).transpose(0, 3, 1, 2)
    return flat.reshape(model.shape)
