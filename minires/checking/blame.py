"""Which node of a whole network computes a wrong gradient?

A check of the whole says *that* something is wrong. ``blame`` says where: it visits each node of the graph, with the
activations that the network really has there, and asks whether its backward pass is the adjoint of its forward's
derivative (:mod:`minires.checking.adjoint`). Each node answers for itself, so that a guilty one doesn't taint those
behind it. And it asks whether the engine adds up what the uses of a tensor send back (:mod:`minires.checking.sums`).

Both in one walk backward, the engine's own, in which each node takes the test in place of its backward pass: what it
then sends back are the gradients of the test. It costs two forward passes and one backward pass, at any depth.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from minires.checking.adjoint import Gradients, Workbench, disagreement
from minires.checking.kinks import graph_of, node_name
from minires.checking.sums import Sum, SumWatcher
from minires.display import escaped, few_lines
from minires.function import Function
from minires.graph import walk, watch
from minires.nn import Module
from minires.tensor import Tensor
from minires_kernels.arrays import Array

LIMIT = 1000.0
"""In units of expected rounding. Right nodes stay below 100 (nets of 18 to 110 layers: 40). A float32 gradient that is
wrong by a hundredth gives some 100,000, by a thousandth 10,000, either more or less by chance."""


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
    """What :func:`blame` found; truthy when every node and every sum is right."""

    nodes: tuple[Suspect, ...]
    seed: int
    sums: tuple[Sum, ...] = ()
    """The gradients of the tensors that are used more than once."""

    def __bool__(self) -> bool:
        return not self.guilty and not self.wrong_sums

    @property
    def guilty(self) -> tuple[Suspect, ...]:
        """The nodes whose backward isn't the adjoint of their forward's derivative, in forward order."""
        return tuple(node for node in self.nodes if node.guilty)

    @property
    def wrong_sums(self) -> tuple[Sum, ...]:
        """The tensors whose gradient isn't the sum of what their uses send back: the engine's mistake, no node's."""
        return tuple(each for each in self.sums if each.wrong)

    def __str__(self) -> str:
        return "\n".join(self._lines())

    def __repr__(self) -> str:
        return few_lines(str(self), "print(report)")

    def _lines(self) -> Iterator[str]:
        worst = max((node.units for node in self.nodes if not node.guilty), default=0.0)
        count, wrong = len(self.nodes), len(self.wrong_sums)
        sums = f"{wrong or 'none'} of {len(self.sums)} sums at fan-outs wrong"
        if self:
            yield f"blame: all {count} nodes are right, to {worst:.2g} units of rounding; {sums}  seed {self.seed}"
            return
        rest = f"the other {count - len(self.guilty)} nodes differ by at most {worst:.2g} units of rounding"
        yield f"blame: {len(self.guilty)} of {count} nodes guilty; {rest}; {sums}  seed {self.seed}"
        for node in self.guilty:
            of = f", gradient of {' and '.join(node.inputs)}" if node.inputs else ""
            yield f"  node {node.position}  {node.name}{of}: {node.units:.1e} units  {node.function}  {node.origin}"
        for each in self.wrong_sums:
            yield (
                f"  sum at {each.name}: its gradient isn't the sum of what {' and '.join(each.consumers)} send back: "
                f"{each.units:.1e} units  {each.origin}"
            )

    def to_dict(self) -> dict[str, Any]:
        """The report as plain Python values, for JSON; a number of units is None where it is infinite."""
        return {
            "ok": bool(self),
            "seed": self.seed,
            "guilty": [node.position for node in self.guilty],
            "nodes": [
                {"name": node.name, "function": node.function, "origin": node.origin, "units": _finite(node.units)}
                for node in self.nodes
            ],
            "wrong_sums": [position for position, each in enumerate(self.sums) if each.wrong],
            "sums": [
                {
                    "name": each.name,
                    "consumers": list(each.consumers),
                    "origin": each.origin,
                    "units": _finite(each.units),
                    "limit": each.limit,
                }
                for each in self.sums
            ],
        }

    def _repr_html_(self) -> str:
        """What a notebook shows: the text."""
        return f"<pre>{escaped(repr(self))}</pre>"


def _finite(units: float) -> float | None:
    return units if np.isfinite(units) else None


def blame(loss: Tensor, model: Module | None = None, *, seed: int = 0) -> BlameReport:
    """The nodes behind ``loss`` whose backward pass is wrong. Call it before ``loss.backward()`` frees the graph.

    ``loss``: any tensor with a graph, float32 or float64. ``model``: names the nodes by its parameters' paths.
    ``seed``: draws the random vectors. Nothing is changed: no ``grad``, no running statistic, no generator.

    The sums where a tensor was used several times, which are the engine's and no node's, are judged as well. Raises
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
    suspects: dict[int, Suspect] = {}

    def test(position: int, node: Function) -> Gradients:
        suspect, gradients = _judged(position, node, names, bench)
        suspects[position] = suspect
        return gradients

    watcher = SumWatcher(nodes, loss)
    with ExitStack() as stack:
        stack.enter_context(watch(watcher))
        stack.enter_context(_grads_kept(nodes, loss))
        for position, node in enumerate(nodes):
            stack.enter_context(_takes_the_test(position, node, test))
        walk(loss, np.ones_like(loss.data), retain_graph=True)
    for position, node in enumerate(nodes):
        if position not in suspects:  # the walk has gone astray, and didn't come by
            suspects[position] = _judged(position, node, names, bench)[0]

    def name(tensor: Tensor) -> str:
        made = f"the output of {node_name(tensor.creator, names)}" if tensor.creator is not None else "an input"
        return names.get(id(tensor), made)

    sums = watcher.sums(name, lambda node: node_name(node, names))
    return BlameReport(tuple(suspects[position] for position in range(len(nodes))), seed, sums)


def _judged(position: int, node: Function, names: dict[int, str], bench: Workbench) -> tuple[Suspect, Gradients]:
    """A node's answer, and gradients of the right shape for the walk to go on with."""
    slots = tuple(slot for slot, needed in enumerate(node.needs_input_grad) if needed)
    units, gradients = disagreement(node, slots, bench)
    suspect = Suspect(position, node_name(node, names), repr(node), node.where().strip(" ()"), units)
    if suspect.guilty:
        arguments = inspect.getfullargspec(node.forward)
        known = arguments.args[1:] + [f"input {i}" for i in range(len(arguments.args) - 1, len(node.inputs))]
        wrong = tuple(known[slot] for slot in slots if not disagreement(node, (slot,), bench)[0] <= LIMIT)
        suspect = replace(suspect, inputs=wrong)
    sent: list[Array | None] = [None] * len(node.inputs)
    for slot in slots:
        source, gradient = node.inputs[slot], gradients[slot] if gradients else None
        assert source is not None
        sent[slot] = np.zeros_like(source.data) if gradient is None else gradient
    return suspect, tuple(sent)


@contextmanager
def _takes_the_test(position: int, node: Function, test: Callable[[int, Function], Gradients]) -> Iterator[None]:
    """Within the block, ``node`` is tested when its backward pass is called, the first time."""
    own = vars(node).get("backward")

    def answer(grad_output: Array) -> Gradients:
        put_back()
        return test(position, node)

    def put_back() -> None:
        vars(node).pop("backward", None)
        if own is not None:
            node.backward = own

    node.backward = answer
    try:
        yield
    finally:
        put_back()


@contextmanager
def _grads_kept(nodes: list[Function], loss: Tensor) -> Iterator[None]:
    """Behind the block, every tensor's ``grad`` is what it was before."""
    tensors = {id(tensor): tensor for node in nodes for tensor in node.inputs if tensor is not None}
    kept = [(tensor, tensor.grad) for tensor in (*tensors.values(), loss)]
    for tensor, _ in kept:
        tensor.grad = None
    try:
        yield
    finally:
        for tensor, grad in kept:
            tensor.grad = grad
