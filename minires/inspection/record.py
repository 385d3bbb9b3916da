"""``with minires.record() as tape:``: everything that the engine computes in the block, forward and backward.

The tape is what the core's :class:`~minires.graph.Watcher` reports to. It keeps, in order of creation, a
:class:`Node` for each tensor; for each node the *contributions* to its gradient, one per use of the tensor, as they
were before the engine added them up; and the gradient that they add up to. It holds the arrays themselves, not copies:
as long as the tape lives, so do the step's activations and gradients, and what is changed in place later (a parameter,
by the optimizer) is seen changed. Record one step, look at it, let it go.

Recording changes no result. The one difference that it makes is stated: a composite Function (batch norm + addition +
ReLU in one kernel) is replaced by its textbook expansion, equal within rounding, so that each term has its node.
"""

from __future__ import annotations

import difflib
import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any, Literal, TextIO

from minires.display import brief_fields, html_table
from minires.function import Function, described
from minires.graph import watch
from minires.inspection.locks import Locks
from minires.inspection.text import number, shape_text, table
from minires.nn import Module
from minires.tensor import Parameter, Tensor
from minires_kernels.arrays import Array, array_module
from minires_kernels.window import shown

Kind = Literal["input", "param", "buffer", "op", "loss"]


@dataclass(eq=False, slots=True)
class Node:
    """One tensor on the tape.

    ``name``: unique; the path of the module at work and the operation, ``layer1.0.bn2.relu``; for a parameter or
    buffer its own path, ``layer1.0.conv1.weight``; the k-th of the same name ends in ``#k``. ``kind``: "input" (any
    tensor that nothing on the tape made and that isn't a module's), "param", "buffer", "op", or "loss": where backward
    started. ``scope``: the module path alone. ``function``: the Function that made it, with its ``hyper_parameters``,
    as text; empty for leaves. ``inputs``: (node, slot), with slot the position among the Function's arguments.
    ``saved``: bytes that it keeps for backward, by name; nothing where no gradient is needed. ``origin``: (file, line)
    of the code that applied the operation.
    """

    id: int
    name: str
    op: str
    kind: Kind
    scope: str
    function: str
    hyper_parameters: dict[str, Any]
    inputs: tuple[tuple[Node, int], ...]
    requires_grad: bool
    value: Array
    saved: dict[str, int]
    origin: tuple[str, int] | None

    @property
    def shape(self) -> tuple[int, ...]:
        """The lengths of the tensor's axes."""
        return self.value.shape  # type: ignore[no-any-return]

    @property
    def dtype(self) -> Any:
        """The type of the tensor's elements."""
        return self.value.dtype

    def where(self) -> str:
        """``file.py:line`` of the code that applied it, or nothing where that isn't known."""
        return f"{Path(self.origin[0]).name}:{self.origin[1]}" if self.origin else ""

    def __repr__(self) -> str:
        return f"Node({self.id}, {self.name!r}, {self.function or self.kind}, {self.shape} {self.dtype})"


@dataclass(frozen=True, eq=False, slots=True)
class Contribution:
    """What one use of a tensor sent back: ``consumer``, of which ``node`` is input ``slot``, contributed ``array``.

    ``consumer`` is None for the upstream gradient that backward started from.
    """

    node: Node
    consumer: Node | None
    slot: int
    array: Array

    __repr__ = brief_fields


class GradientState(Enum):
    """What is known of a tensor's gradient. Only ``ZERO`` is a statement about numbers that were computed."""

    NOT_COMPUTED = "not computed"  # no backward pass has come here (yet, or it failed on the way)
    NO_PATH = "no path"  # backward ran; nothing leads from this tensor to where it started
    ZERO = "zero"  # a gradient arrived, and all of it is 0
    VALUE = "value"


@dataclass(frozen=True, eq=False, slots=True)
class Gradient:
    """A gradient's state, and the array where there is one: ``state`` ZERO or VALUE."""

    state: GradientState
    array: Array | None

    __repr__ = brief_fields


@dataclass(frozen=True, eq=False, slots=True)
class NonFinite:
    """The first NaN or infinity: ``node`` made it, in the ``phase`` "forward" or "backward", in ``array``.

    ``what`` says which array that is, ``index`` is the position of the first of the ``count`` elements in it.
    """

    node: Node
    phase: Literal["forward", "backward"]
    what: str
    array: Array
    index: tuple[int, ...]
    count: int

    __repr__ = brief_fields

    def __str__(self) -> str:
        place = f" at {self.node.where()}" if self.node.where() else ""
        value = float(self.array[self.index])
        return (
            f"{self.phase}: {self.what} is {value} at index {list(self.index)} and non-finite in {self.count} of "
            f"{self.array.size} elements, shape {self.array.shape} {self.array.dtype}; {self.node.name}{place}"
        )


_HEADERS = ("", "name", "made by", "shape", "saved bytes", "parts", "‖gradient‖", "line")
_LEFT = (1, 2, 7)


class Tape:
    """What :func:`record` has recorded; a :class:`~minires.graph.Watcher`.

    Contributions and gradients are those of the latest backward pass: a new one begins with a clean slate. A graph that
    was built before recording began is put on the tape when it is met, without module paths in its names.
    """

    def __init__(self, *, check: bool = False) -> None:
        self.nodes: list[Node] = []
        """In order of creation: each node's inputs come before it."""
        self.backward_order: list[Node] = []
        """The nodes in the order in which the latest backward pass completed their gradients."""
        self.loss: Node | None = None
        """Where the latest backward pass started."""
        self._tensors: dict[Tensor, Node] = {}
        self._functions: dict[Function, Node] = {}
        self._names: dict[str, Node] = {}
        self._module_outputs: dict[str, Node] = {}
        self._name_uses: dict[str, int] = {}
        self._module_uses: dict[str, int] = {}
        # modules at work, outermost first: path, path numbered by call, how many nodes there were before the call
        self._scopes: list[tuple[str, str, int]] = []
        self._paths: dict[int, str] = {}  # id of a module, parameter or buffer below the outermost module -> its path
        self._contributions: dict[Node, list[Contribution]] = {}
        self._arrivals: list[Contribution] = []
        self._gradients: dict[Node, Array] = {}
        self._recorded_before_backward = 0
        self._awaiting: dict[Node, None] = {}  # has contributions, but no gradient: the pass is here, or failed here
        self._in_flight: Node | None = (
            None  # had its gradient last; whether its backward pass succeeded isn't known yet
        )
        self._locks = Locks() if check else None

    # ---------------------------------------------------------------- reading

    def __getitem__(self, key: str | Tensor) -> Node:
        """The node of this name; a module's path names its output, the last node that it made. Or a tensor's node.

        Raises KeyError with the nearest names, or for a tensor that the tape hasn't seen; TypeError for another key.
        """
        if isinstance(key, Tensor):
            if key not in self._tensors:
                raise KeyError(f"tape: this tensor of shape {key.shape} was not recorded")
            return self._tensors[key]
        if not isinstance(key, str):
            raise TypeError(
                f"tape: a node is asked for by its name or its tensor, got {shown(key)}; tape.nodes lists them in order"
            )
        for names in (self._names, self._module_outputs):
            if key in names:
                return names[key]
        known = [*self._names, *self._module_outputs]
        close = difflib.get_close_matches(key, known, n=3, cutoff=0.4) or known[:3]
        raise KeyError(f"tape: there is no node {key!r}; the nearest: {', '.join(close) or 'none, the tape is empty'}")

    def contributions(self, node: Node | str | Tensor) -> tuple[Contribution, ...]:
        """What each use of ``node`` sent back, in order of arrival: the engine adds them up in this order."""
        return tuple(self._contributions.get(self._find(node), ()))

    def gradient(self, node: Node | str | Tensor) -> Gradient:
        """The sum of all contributions to ``node``, or why there is none."""
        found = self._find(node)
        array = self._gradients.get(found)
        if array is not None:
            return Gradient(GradientState.VALUE if bool(array.any()) else GradientState.ZERO, array)
        if found.id >= self._recorded_before_backward or found in self._behind_failure():
            return Gradient(GradientState.NOT_COMPUTED, None)
        return Gradient(GradientState.NO_PATH, None)

    def first_nonfinite(self) -> NonFinite | None:
        """The earliest node on the tape that made a NaN or infinity: forward first, then backward; None if all is well.

        Backward, the node is the one whose backward pass turned finite gradients into others, or at which finite
        contributions had an infinite sum.
        """
        for node in self.nodes:
            found = _first_bad("its value", node, "forward", node.value)
            if found:
                return found
        for arrived in self._arrivals:
            if _is_finite(arrived.array):
                continue
            maker = arrived.consumer
            if maker is None:
                return _first_bad("the upstream gradient", arrived.node, "backward", arrived.array)
            if maker in self._gradients and not _is_finite(self._gradients[maker]):
                return _first_bad("the sum of its contributions", maker, "backward", self._gradients[maker])
            return _first_bad(f"its gradient for {arrived.node.name}", maker, "backward", arrived.array)
        for node in self.backward_order:
            found = _first_bad("the sum of its contributions", node, "backward", self._gradients[node])
            if found:
                return found
        return None

    def __str__(self) -> str:
        return table(_HEADERS, self._rows(), left=_LEFT)

    def __repr__(self) -> str:
        if self.loss is None:
            backward = "no backward pass"
        else:
            backward = f"backward from {self.loss.name}; {len(self.backward_order)} gradients"
        return f"Tape({len(self.nodes)} nodes, {backward}; print(tape) shows each, tape[name] is one)"

    def _repr_html_(self) -> str:
        """What a notebook shows: a row for each node, of a long tape for the first and the last."""
        title = f"Tape of {len(self.nodes)} nodes"
        return html_table(_HEADERS, self._rows(), left=_LEFT, title=title, whole="print(tape) shows all")

    def _rows(self) -> list[tuple[str, ...]]:
        rows: list[tuple[str, ...]] = []
        for node in self.nodes:
            gradient = self.gradient(node)
            norm = gradient.state.value
            if gradient.state is GradientState.VALUE:
                norm = number(_norm(gradient.array))
            saved = f"{sum(node.saved.values()):,}" if node.saved else ""
            parts = len(self.contributions(node))
            rows.append((str(node.id), node.name, _shortened(node.function or node.kind), shape_text(node.shape), saved,
                         str(parts) if parts > 1 else "", norm, node.where()))  # fmt: skip
        return rows

    def print(self, file: TextIO | None = None) -> None:
        """Write one line per node to ``file``, by default the terminal: name, Function, shape, saved bytes, gradient.

        "parts" is the number of contributions where there are several: a gradient that split and met again.
        """
        (file or sys.stdout).write(f"{self}\n")

    def _find(self, node: Node | str | Tensor) -> Node:
        return node if isinstance(node, Node) else self[node]

    def _behind_failure(self) -> set[Node]:
        """Where a backward pass that failed half-way would still have come."""
        waiting = list(self._awaiting)
        if self._in_flight is not None:
            waiting += [node for node, _ in self._in_flight.inputs]
        behind: set[Node] = set()
        while waiting:
            node = waiting.pop()
            if node.requires_grad and node not in behind and node not in self._gradients:
                behind.add(node)
                waiting += [source for source, _ in node.inputs]
        return behind

    # ---------------------------------------------------------------- the Watcher

    def on_forward(self, function: Function, inputs: tuple[Tensor | None, ...], output: Tensor) -> None:
        """Put ``output`` on the tape, and those of its inputs that aren't there yet."""
        self._add_op(function, inputs, output, self._scopes[-1][0] if self._scopes else "")

    def on_contribution(self, tensor: Tensor, consumer: Function | None, slot: int, grad: Array) -> None:
        """Keep a contribution; one without a consumer begins a new backward pass."""
        node = self._node(tensor)
        if consumer is None:
            for record in (self._contributions, self._arrivals, self._gradients, self.backward_order, self._awaiting):
                record.clear()
            self._recorded_before_backward = len(self.nodes)
            self.loss = node
            if node.kind == "op":
                node.kind = "loss"
        contribution = Contribution(node, None if consumer is None else self._functions[consumer], slot, grad)
        self._contributions.setdefault(node, []).append(contribution)
        self._arrivals.append(contribution)
        self._awaiting[node] = None
        self._in_flight = None

    def on_gradient(self, tensor: Tensor, grad: Array) -> None:
        """Keep a complete gradient."""
        node = self._tensors[tensor]
        self._gradients[node] = grad
        self.backward_order.append(node)
        self._awaiting.pop(node, None)
        self._in_flight = node

    def on_release(self, function: Function) -> None:
        """Unlock what only ``function`` still needed."""
        self._in_flight = None
        if self._locks:
            self._locks.release(function)

    def enter(self, module: Module) -> None:
        """Nodes are named after ``module`` from here on; the outermost one provides the paths."""
        if not self._scopes:
            named = (*module.named_modules(), *module.named_parameters(), *module.named_buffers())
            for path, item in reversed(named):
                self._paths[id(item)] = path  # reversed: of an object's several paths, the first stays
        parent = self._scopes[-1][0] if self._scopes else ""
        made_on_the_fly = f"{parent}.{_snake_case(module)}" if parent else _snake_case(module)
        path = self._paths.get(id(module), made_on_the_fly)
        self._scopes.append((path, _numbered(path, self._module_uses), len(self.nodes)))

    def leave(self, module: Module) -> None:
        """``module`` is done: its path names the last node that it made."""
        _, call, nodes_before = self._scopes.pop()
        if len(self.nodes) > nodes_before:
            self._module_outputs[call] = self.nodes[-1]
        if not self._scopes:
            self._paths.clear()

    def unlock(self) -> None:
        """Make everything that ``check`` locked writable again: recording has ended."""
        if self._locks:
            self._locks.release_all()

    # ---------------------------------------------------------------- nodes

    def _node(self, tensor: Tensor) -> Node:
        """The node of ``tensor``; one that isn't on the tape yet is put there, with the graph that made it."""
        if tensor not in self._tensors:
            for made in _unrecorded(tensor, self._tensors):
                assert made.creator is not None
                self._add_op(made.creator, made.creator.inputs, made, scope="")
            if tensor.creator is None:
                self._add_leaf(tensor)
        return self._tensors[tensor]

    def _add_op(self, function: Function, inputs: Sequence[Tensor | None], output: Tensor, scope: str) -> None:
        sources = tuple((self._node(tensor), slot) for slot, tensor in enumerate(inputs) if tensor is not None)
        op = _snake_case(function)
        settings = {name: described(value) for name, value in function.hyper_parameters().items()}
        saved = function.saved_arrays() if output.requires_grad else {}
        node = self._add(
            output,
            f"{scope}.{op}" if scope else op,
            op=op,
            kind="op",
            scope=scope,
            function=f"{type(function).__name__}({', '.join(f'{name}={text}' for name, text in settings.items())})",
            hyper_parameters=settings,
            inputs=sources,
            saved={name: array.nbytes for name, array in saved.items()},
            origin=function.origin,
        )
        self._functions[function] = node
        if self._locks:
            self._locks.hold(function, saved.values())

    def _add_leaf(self, tensor: Tensor) -> None:
        kind: Kind = "param" if isinstance(tensor, Parameter) else "input"
        path = self._paths.get(id(tensor))
        if path is None and id(tensor.data) in self._paths:
            path, kind = self._paths[id(tensor.data)], "buffer"
        scope = (path or "").rpartition(".")[0]
        self._add(tensor, path or kind, op=kind, kind=kind, scope=scope, function="", hyper_parameters={}, inputs=(),
                  saved={}, origin=None)  # fmt: skip

    def _add(self, tensor: Tensor, name: str, **description: Any) -> Node:
        unique = _numbered(name, self._name_uses)
        node = Node(len(self.nodes), unique, requires_grad=tensor.requires_grad, value=tensor.data, **description)
        self.nodes.append(node)
        self._tensors[tensor] = self._names[unique] = node
        if self._locks:
            self._locks.know(tensor.data, is_new=bool(node.inputs))
        return node


@contextmanager
def record(*, check: bool = False) -> Iterator[Tape]:
    """Record what happens in the block: ``with minires.record() as tape: ...``, then read the :class:`Tape`.

    ``check=True`` looks for in-place damage: arrays saved for backward, and everything known to share their memory, are
    read-only until the backward pass has released them, so that the line that overwrites one is the line that raises
    NumPy's ValueError. When the block ends, normally or not, everything is as writable as before. (Views that you make
    of a locked array yourself are born read-only and stay so. Arrays on a GPU can't be locked.)

    One tape records at a time in a context: an inner ``record()`` takes over within its block.
    """
    tape = Tape(check=check)
    try:
        with watch(tape):
            yield tape
    finally:
        tape.unlock()


def _unrecorded(tensor: Tensor, recorded: dict[Tensor, Node]) -> list[Tensor]:
    """``tensor`` and its ancestors that some Function made and that aren't recorded, in order of creation."""
    found: dict[Tensor, int] = {}
    waiting = [tensor]
    while waiting:
        each = waiting.pop()
        if each.creator is not None and each not in recorded and each not in found:
            found[each] = each.creator.number
            waiting += [source for source in each.creator.inputs if source is not None]
    return sorted(found, key=lambda each: found[each])


def _snake_case(value: object) -> str:
    """The name of its class as Python functions are named: BatchNorm -> batch_norm, ReLU -> relu."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z][a-z])", "_", type(value).__name__).lower()


def _numbered(name: str, uses: dict[str, int]) -> str:
    """``name`` the first time, then ``name#2``, ``name#3``, ..."""
    uses[name] = count = uses.get(name, 0) + 1
    return name if count == 1 else f"{name}#{count}"


def _shortened(text: str, width: int = 48) -> str:
    return text if len(text) <= width else text[: width - 1] + "…"


def _norm(array: Array) -> float:
    return float(array_module(array).square(array, dtype="float64").sum() ** 0.5)


def _is_finite(array: Array) -> bool:
    return array.dtype.kind != "f" or bool(array_module(array).isfinite(array).all())


def _first_bad(what: str, node: Node, phase: Literal["forward", "backward"], array: Array) -> NonFinite | None:
    if _is_finite(array):
        return None
    xp = array_module(array)
    bad = ~xp.isfinite(array)
    index = tuple(int(i) for i in xp.unravel_index(bad.argmax(), bad.shape))
    return NonFinite(node, phase, what, array, index, int(bad.sum()))
