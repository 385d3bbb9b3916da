"""The ledger of skip connections: how the gradient splits at each addition, and what comes back where the ways parted.

**Forward**, a residual block sends its input x on two ways: through the branch F, and past it. They meet again in an
addition::

    x ──┬── F ──┐
        │       +── y = x + F(x)
        └───────┘

**Backward**, everything happens in the opposite order. Let g = dE/dy be the gradient that arrives at y, the *upstream*
gradient. An addition has the derivative 1 with respect to both of its operands, so it hands g on to both of them,
unchanged: the gradient is not divided between the ways, it is *copied*. This is the split.

On the shortcut nothing happens to g: at x it arrives as it left, exactly, element for element. On the branch it passes
the transposed derivative of each layer, last one first: the ReLUs blot out what was negative, the batch norms take away
mean and scale, the convolutions mix. What arrives at x is J^T g, with J = dF/dx: as a rule something quite different.

At x the two meet again. A tensor that is used twice influences E in two ways, and by the chain rule its gradient is the
sum of what each use sends back, its *contributions*::

    dE/dx = g + J^T g

(He et al. 2016, eq. 5, for a single unit.) Whatever the branch does, the first summand is there: g can't get lost by
passing many blocks, it only gets company. Stack two blocks, and x receives g + J2^T g, then that plus J1^T of it: the
four products of (1 + J1^T)(1 + J2^T), one for each way through the net. Without the shortcut only J1^T J2^T g is left:
one way, through every layer. That is the plain net, whose gradient depends on each factor in a product of many.

The engine adds contributions up as they come, after which they can't be told apart; the tape
(:func:`minires.inspection.record`) keeps them. For each junction the ledger says, for the contributions c_i to the
gradient s = sum of c_i at the fork:

- their norms, and the norm of s. Two contributions of norm 1 may add up to any norm between 0 and 2;
- the *cosine* between shortcut and branch, which says to which: near 0 they are independent and the squares of their
  norms add up, at 1 they agree, at -1 the branch undoes what the shortcut brings;
- their *shares*, <c_i, s> / |s|^2: how much of s, measured along s itself, each of them accounts for. Shares add up to
  1, even if contributions partly cancel; then one is above 1 and another below 0.

Where the dimensions change, the shortcut isn't the identity: a projection (options B and C) is a linear map P, with
contribution P^T g; option A's subsampling has the adjoint that puts pixels back, so g returns on a quarter of them. In
the blocks of 2015 a ReLU follows the addition: the g that splits is what that ReLU let through, so the identity holds
from the addition to the fork, not from block to block. In pre-activation nets (2016) x is the previous sum itself.

**How junctions are found.** By the graph, not by names. Let the ways of a tensor be its uses. Two ways meet at the
first node that both of them have to pass before the loss: the closest common *post-dominator* of the two. If it's an
addition, that is a junction, and the tensor is its *fork*. Several ways may meet in steps: if a block stands inside
another one's branch and both begin at the same tensor, the inner ways meet first and then, as one, the outer shortcut.
Additions that directly follow one another, x + F(x) + G(x), are one junction of three parts. A plain net has none.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from minires.display import brief_fields, html_table
from minires.inspection.record import Contribution, Node, Tape
from minires.inspection.text import number, shape_text, table
from minires_kernels.arrays import Array, array_module

ADDITIONS = ("add", "batch_norm_relu")
"""Where ways can meet in a sum: ``batch_norm_relu`` is the fused end of a block, on tapes that began after forward."""


@dataclass(frozen=True, eq=False, slots=True)
class Part:
    """What came back to the fork on one way: the sum of its ``contributions``, which are several if it forks again.

    ``nodes``: the operations on the way, none for an identity. ``grad``: an array like the fork. ``norm``: |grad|.
    ``share``: <grad, sum> / |sum|^2, NaN if the sum is 0.
    """

    contributions: tuple[Contribution, ...]
    nodes: tuple[Node, ...]
    grad: Array
    norm: float
    share: float

    __repr__ = brief_fields


@dataclass(frozen=True, eq=False, slots=True)
class Row:
    """One junction: where ways part (``fork``) and where they meet (``meeting``, an addition).

    ``block``: the path of the module in which that happens, or the addition's name outside of modules. ``parts``: the
    shortcut, which is the way with the fewest operations, then the branches in order of creation. ``sum``: what the
    parts add up to: the fork's gradient, or, where outer ways join in (nested blocks), the part of it that belongs to
    this junction. ``branch_norm``: the norm of all branches together; ``cosine``: between them and the shortcut, NaN if
    either is 0.
    """

    block: str
    fork: Node
    meeting: Node
    parts: tuple[Part, ...]
    sum: Array
    sum_norm: float
    branch_norm: float
    cosine: float

    __repr__ = brief_fields

    @property
    def shortcut(self) -> Part:
        """The way with the fewest operations."""
        return self.parts[0]

    @property
    def branches(self) -> tuple[Part, ...]:
        """All other ways."""
        return self.parts[1:]

    @property
    def kind(self) -> str:
        """What the shortcut is: "identity", "projection" (it has parameters) or "fixed" (it has none: option A)."""
        if not self.shortcut.nodes:
            return "identity"
        sources = (source for node in self.shortcut.nodes for source, _ in node.inputs)
        return "projection" if any(source.kind == "param" for source in sources) else "fixed"

    @property
    def branch_share(self) -> float:
        """The share of all branches together."""
        return math.fsum(part.share for part in self.branches)


_HEADERS = ("block", "shortcut", "shape", "shortcut ‖g‖", "branch ‖g‖", "cos(shortcut, branch)",
            "share shortcut | branch", "sum ‖g‖")  # fmt: skip
_LEFT = (0, 1)
_NO_ROWS = "no skip connections: no tensor's ways meet again in an addition"


@dataclass(frozen=True, eq=False, slots=True)
class Ledger:
    """The junctions of a tape, in the order in which backward reaches them: from the loss towards the input."""

    rows: tuple[Row, ...]

    def __iter__(self) -> Iterator[Row]:
        return iter(self.rows)

    def __len__(self) -> int:
        return len(self.rows)

    def __str__(self) -> str:
        return table(_HEADERS, self._lines(), left=_LEFT) if self.rows else _NO_ROWS

    def __repr__(self) -> str:
        if not self.rows:
            return "Ledger(no skip connections)"
        where = f"{self.rows[0].block} to {self.rows[-1].block}"
        return f"Ledger({len(self.rows)} junctions, {where}; print(ledger) shows each, ledger.rows holds them)"

    def _repr_html_(self) -> str:
        """What a notebook shows: the table, of a long one its beginning and its end."""
        title = f"Ledger of {len(self.rows)} junctions" if self.rows else _NO_ROWS
        return html_table(_HEADERS, self._lines(), left=_LEFT, title=title, whole="print(ledger) shows all")

    def _lines(self) -> list[tuple[str, ...]]:
        lines: list[tuple[str, ...]] = []
        for row in self.rows:
            norms = number(row.shortcut.norm), number(row.branch_norm), number(row.cosine, "+.3f")
            lines.append((row.block, row.kind, shape_text(row.fork.shape), *norms, _bar(row), number(row.sum_norm)))
            for position, part in enumerate(row.branches if len(row.branches) > 1 else (), start=1):
                way = part.nodes[0].name if part.nodes else "identity"
                norm, share = number(part.norm), number(part.share, ".0%")
                lines.append((f"  branch {position}: {way}", "", "", "", norm, "", share, ""))
        return lines


def ledger(tape: Tape) -> Ledger:
    """The ledger of the latest backward pass on ``tape``; ``.rows`` are its junctions, ``str(...)`` is a table.

    Raises RuntimeError when no backward pass was recorded.
    """
    if tape.loss is None:
        raise RuntimeError(
            "ledger: the tape holds no backward pass; call loss.backward() inside `with record() as tape:`"
        )
    ways = {node: _ways(tape, node) for node in tape.backward_order}
    order = _PostDominators(tape.loss, ways)
    rows: list[Row] = []
    for fork in sorted((node for node in ways if len(ways[node]) > 1), key=lambda node: -node.id):
        rows += _junctions(fork, ways, order)
        whole = tape.gradient(fork).array
        assert whole is not None
        _require_equal(fork, [way.array for way in ways[fork]], whole)
    return Ledger(tuple(sorted(rows, key=lambda row: -row.meeting.id)))


def _ways(tape: Tape, node: Node) -> tuple[Contribution, ...]:
    """The uses of a tensor that sent it a gradient. A parameter's aren't ways through the net: its ways end there."""
    if node.kind in ("param", "buffer"):
        return ()
    return tuple(each for each in tape.contributions(node) if each.consumer is not None)


class _PostDominators:
    """The tree in which each node hangs below the first one that all of its ways to the loss have to pass."""

    def __init__(self, loss: Node, ways: dict[Node, tuple[Contribution, ...]]) -> None:
        self._parent: dict[Node, Node] = {}
        self._depth: dict[Node, int] = {loss: 0}
        for node in sorted(ways, key=lambda node: -node.id):  # consumers before what they consume
            consumers = [way.consumer for way in ways[node] if way.consumer is not None]
            if not consumers:
                continue
            parent = consumers[0]
            for consumer in consumers[1:]:
                parent = self.meeting(parent, consumer)
            self._parent[node], self._depth[node] = parent, self._depth[parent] + 1

    def meeting(self, first: Node, second: Node) -> Node:
        """The first node that the ways from both have to pass; it may be one of the two."""
        while first is not second:
            if self._depth[first] < self._depth[second]:
                first, second = second, first
            first = self._parent[first]
        return first

    def depth(self, node: Node) -> int:
        """How many nodes every way from ``node`` to the loss has to pass."""
        return self._depth[node]


@dataclass(eq=False, slots=True)
class _Group:
    """Ways of one fork that have met: ``at`` is the node up to which they are followed; ``parts`` if at an addition.

    ``nodes``, once it is itself a part: the operations between the fork and the addition.
    """

    at: Node
    ways: tuple[Contribution, ...]
    parts: list[_Group]
    nodes: tuple[Node, ...] = ()


def _junctions(fork: Node, ways: dict[Node, tuple[Contribution, ...]], order: _PostDominators) -> list[Row]:
    """The additions in which the ways of ``fork`` meet, innermost first."""
    groups = []
    for way in ways[fork]:
        assert way.consumer is not None
        groups.append(_Group(way.consumer, (way,), []))
    junctions: list[_Group] = []
    while len(groups) > 1:
        meeting = max((order.meeting(a.at, b.at) for a, b in combinations(groups, 2)), key=order.depth)
        joining = [group for group in groups if order.meeting(group.at, meeting) is meeting]
        joined = _Group(meeting, tuple(way for group in joining for way in group.ways), [])
        if meeting.op in ADDITIONS:
            for group in joining:
                if group.parts and [way.consumer for way in ways[group.at]] == [meeting]:
                    junctions.remove(group)  # x + F(x) + G(x): the inner sum goes nowhere but into the outer one
                    joined.parts += group.parts
                else:
                    group.nodes = _between(group.ways, meeting, ways)
                    joined.parts.append(group)
            junctions.append(joined)
        groups = [joined, *(group for group in groups if group not in joining)]
    return [_row(fork, junction) for junction in junctions]


def _row(fork: Node, junction: _Group) -> Row:
    in_order = sorted(junction.parts, key=lambda part: part.nodes[0].id if part.nodes else -1)
    shortcut = min(in_order, key=lambda part: len(part.nodes))
    groups = [shortcut, *(part for part in in_order if part is not shortcut)]
    grads = [_total([way.array for way in group.ways]) for group in groups]
    whole = _total(grads)
    squared = _dot(whole, whole)
    parts = tuple(
        Part(
            group.ways,
            group.nodes,
            grad,
            math.sqrt(_dot(grad, grad)),
            _dot(grad, whole) / squared if squared else math.nan,
        )
        for group, grad in zip(groups, grads, strict=True)
    )
    branch = _total(grads[1:])
    branch_norm = math.sqrt(_dot(branch, branch))
    scale = parts[0].norm * branch_norm
    cosine = _dot(grads[0], branch) / scale if scale else math.nan
    block = _common_path([junction.at, *(node for group in groups for node in group.nodes)]) or junction.at.name
    return Row(block, fork, junction.at, parts, whole, math.sqrt(squared), branch_norm, cosine)


def _between(
    starts: Sequence[Contribution], meeting: Node, ways: dict[Node, tuple[Contribution, ...]]
) -> tuple[Node, ...]:
    """The nodes that the gradient passed between ``meeting`` and the fork on these ways, in order of creation."""
    found: set[Node] = set()
    waiting = [way.consumer for way in starts]
    while waiting:
        node = waiting.pop()
        if node is None or node is meeting or node in found:
            continue
        found.add(node)
        waiting += [way.consumer for way in ways[node]]
    return tuple(sorted(found, key=lambda node: node.id))


def _common_path(nodes: Sequence[Node]) -> str:
    """The path of the innermost module in which all of these nodes were made."""
    paths = [node.scope.split(".") for node in nodes]
    shared = []
    for names in zip(*paths, strict=False):
        if len(set(names)) > 1:
            break
        shared.append(names[0])
    return ".".join(shared)


def _total(arrays: Sequence[Array]) -> Array:
    total = arrays[0]
    for array in arrays[1:]:
        total = total + array
    return total


def _dot(x: Array, y: Array) -> float:
    return float(array_module(x).multiply(x, y, dtype=np.float64).sum())


def _require_equal(fork: Node, parts: Sequence[Array], whole: Array) -> None:
    """The books must balance: the engine's gradient is the sum of the parts, within rounding."""
    xp = array_module(whole)
    difference, size = xp.zeros(whole.shape, np.float64), xp.zeros(whole.shape, np.float64)
    for part in parts:
        difference, size = difference + part, size + abs(part)
    unequal = abs(difference - whole) > len(parts) * float(np.finfo(whole.dtype).eps) * size
    assert not bool(unequal.any()), f"ledger: the contributions to {fork.name} don't add up to its gradient"


def _bar(row: Row, width: int = 12) -> str:
    share = row.shortcut.share
    if share != share:
        return "-"
    filled = round(width * min(max(share, 0.0), 1.0))
    return f"{'█' * filled}{'░' * (width - filled)} {share:4.0%} | {row.branch_share:4.0%}"
