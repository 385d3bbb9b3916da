"""Is one node's backward the adjoint of its forward's derivative? The question that ``blame`` puts to each.

<v, J u> = <J^T v, u> for random u and v: the left side from the node's forward pass at its own inputs, the right side
by the very backward pass that training runs, on what the node has saved. J u is a central difference in float64; of a
product of two inputs (a convolution, a linear layer), whose J u for a move (d, e) is f(d, weight) + f(x, e), it is just
that, in the node's own precision.
"""

from __future__ import annotations

import copy
from typing import Any

import numpy as np

from minires.function import Function
from minires.functional.conv import Conv2d
from minires.functional.linear import Linear
from minires_kernels.arrays import Array, is_channels_last

STEP = 2.0**-17
"""Of the central difference, relative to each input: its h^2 and its rounding are then both near 1e-10."""
PRODUCTS = (Conv2d, Linear)
"""Functions of (x, weight, bias) that are linear in x, linear in weight, and add the bias."""

ROW = 256
"""How many numbers are added in their own precision."""

Random = tuple[Array, Array]
"""The same random numbers, as float32 and as float64: what is of one type needs no conversion."""
Moves = dict[int, tuple[float, Random]]
"""For each input that moves, by slot: a typical size, and how far each element moves in units of it."""
Gradients = tuple[Array | None, ...]


def disagreement(node: Function, slots: tuple[int, ...], bench: Workbench) -> tuple[float, Gradients]:
    """(|<v, J u> - <J^T v, u>| of one node in units of expected rounding, moving the inputs ``slots``; J^T v).

    The unit is what a relative error of one unit roundoff in each element, at random, does to the sums: the roundoff of
    the node's dtype, and for a difference its own 1e-10, times the larger of |J u| and |J^T v| |u|. Infinite, and no
    gradients, when backward raises, or returns what the engine refuses, or a number that isn't finite.
    """
    inputs: list[Any] = [None if tensor is None else tensor.data for tensor in node.inputs]
    dtype = next(x.dtype for x in inputs if x is not None and x.dtype.kind == "f")
    moves: Moves = {slot: (_typical(inputs[slot]), bench.random(inputs[slot])) for slot in slots}
    rounding = float(np.finfo(dtype).eps) / 2
    if type(node) in PRODUCTS and (0 in moves or 1 in moves):
        change, length, crossed = _product(node, inputs, moves, dtype, bench), 1.0, None
    else:
        (change, crossed, node), length = _difference(node, inputs, moves, bench), 2 * STEP
        rounding += STEP**2 + np.finfo(np.float64).eps / STEP
    upstream = bench.random(change)
    v = bench.scratch(change, dtype, -1)
    v[...] = _of(dtype, upstream)
    if crossed is not None:  # outputs that crossed a kink have no derivative: they don't vote
        v[crossed] = change[crossed] = 0
    left, of_change = dot(change, _of(change.dtype, upstream)) / length, dot(change, change) / length**2
    try:
        gradients = node.backward(v)
    except Exception:  # whatever it is, this node is where it happens
        return float("inf"), ()
    if not _acceptable(gradients, inputs, slots):
        return float("inf"), ()
    right = of_gradients = 0.0
    for slot, (size, move) in moves.items():
        gradient = gradients[slot]
        if gradient is not None:
            right += size * dot(gradient, _of(dtype, move))
            of_gradients += size**2 * dot(gradient, gradient)
    if not np.isfinite(right):
        return float("inf"), ()
    unit = rounding * max(of_change, of_gradients) ** 0.5
    # An addition hands on the very array that it gets; v's memory is used again for the next node.
    own = (each.copy() if each is not None and np.may_share_memory(each, v) else each for each in gradients)
    return (abs(left - right) / unit if unit else 0.0), tuple(own)


def _acceptable(gradients: Any, inputs: list[Any], slots: tuple[int, ...]) -> bool:
    """Whether the engine would take what backward returned: one array like each input that needs a gradient."""
    return (
        isinstance(gradients, tuple)
        and len(gradients) == len(inputs)
        and all(
            gradients[slot] is None
            or (getattr(gradients[slot], "shape", None), getattr(gradients[slot], "dtype", None))
            == (inputs[slot].shape, inputs[slot].dtype)
            for slot in slots
        )
    )


def _product(node: Function, inputs: list[Any], moves: Moves, dtype: Any, bench: Workbench) -> Array:
    """J u of a product, exact but for the rounding of its own forward pass: nothing is subtracted."""
    move_x, move_weight, move_bias = (
        np.multiply(_of(dtype, moves[slot][1]), dtype.type(moves[slot][0]), out=bench.scratch(x, dtype, slot))
        if slot in moves
        else None
        for slot, x in enumerate(inputs)
    )
    x, weight, _ = inputs
    if move_weight is None:
        return _forward(node, [move_x, weight, move_bias])[0]
    change = _forward(node, [x, move_weight, move_bias])[0]
    if move_x is not None:
        change += _forward(node, [move_x, weight, None])[0]
    return change


def _difference(
    node: Function, inputs: list[Any], moves: Moves, bench: Workbench
) -> tuple[Array, Array | None, Function]:
    """(f(x + h u) - f(x - h u), which outputs crossed a kink, the node whose backward pass belongs to it)."""
    above: list[Any] = [x if slot in moves else _wide(x) for slot, x in enumerate(inputs)]
    below = list(above)
    for slot, (size, move) in moves.items():
        x = inputs[slot]
        below[slot] = np.multiply(move[1], size * STEP, out=bench.scratch(x, np.float64, 2 * slot))
        above[slot] = np.add(x, below[slot], out=bench.scratch(x, np.float64, 2 * slot + 1))
        below[slot] = np.subtract(x, below[slot], out=below[slot])
    plus, plus_choice, _ = _forward(node, above, wide=True)
    minus, minus_choice, _ = _forward(node, below, wide=True)
    plus -= minus
    if any(isinstance(value, np.random.Generator) for value in vars(node).values()):
        node = _forward(node, inputs)[2]  # a twin that draws the same numbers as the others
    own_choice, crossed = node.signature(), None
    for choice in (plus_choice, minus_choice):
        if own_choice is not None and choice is not None and own_choice.shape == choice.shape == plus.shape:
            differ = own_choice != choice
            if differ.any():
                crossed = differ if crossed is None else crossed | differ
    return plus, crossed, node


def _of(dtype: Any, random: Random) -> Array:
    return random[1] if dtype == np.float64 else random[0]


def _wide(x: Array | None) -> Array | None:
    return x if x is None or x.dtype.kind != "f" else x.astype(np.float64)


def _forward(node: Function, arrays: list[Any], *, wide: bool = False) -> tuple[Array, Array | None, Function]:
    """(output, signature, twin) of ``node`` for other inputs: computed by a copy of it, the twin."""
    twin = _twin(node, wide)
    with np.errstate(all="ignore"):
        output = np.asarray(twin.forward(*arrays))
    return output, twin.signature(), twin


def _twin(node: Function, wide: bool) -> Function:
    """A copy of ``node`` whose forward pass disturbs nothing: generators and inner Functions are copied as well.

    ``wide``: what it keeps in float32, such as statistics, becomes float64.
    """
    twin = copy.copy(node)
    for name, value in vars(node).items():
        if isinstance(value, Function):
            setattr(twin, name, _twin(value, wide))
        elif isinstance(value, np.random.Generator):
            setattr(twin, name, copy.deepcopy(value))
        elif wide and isinstance(value, np.ndarray) and value.dtype == np.float32:
            setattr(twin, name, value.astype(np.float64))
    return twin


def _typical(x: Array) -> float:
    """The root mean square of ``x``, by every eighth row where it is large; 1 where that is 0. A float32 number."""
    flat = _flat(x, is_channels_last(x))
    if flat.size > 8 * ROW:
        flat = flat[: flat.size // ROW * ROW].reshape(-1, ROW)[::8].reshape(-1)
    return float(np.float32((dot(flat, flat) / max(flat.size, 1)) ** 0.5)) or 1.0


def dot(x: Array, y: Array) -> float:
    """<x, y>, added up in rows and these in float64, so that float32 sums are good to a few units of rounding.

    Not by BLAS: its threads would go on waiting, and take the cores from the kernels.
    """
    channels_last = is_channels_last(x)
    x, y = _flat(x, channels_last), _flat(y, channels_last)
    whole = x.size // ROW * ROW
    rows = np.einsum("ij,ij->i", x[:whole].reshape(-1, ROW), y[:whole].reshape(-1, ROW))
    return float(rows.sum(dtype=np.float64)) + float(np.einsum("i,i->", x[whole:], y[whole:]))


def _flat(x: Array, channels_last: bool) -> Array:
    """The elements of ``x`` in the order in which an array of that layout keeps them: a view if it is one."""
    return (x.transpose(0, 2, 3, 1) if channels_last else x).reshape(-1)


class Workbench:
    """Random numbers, and memory to work in that is asked for once: most nodes do less work than finding memory costs.

    The numbers lie around +1 and -1, but are unequal: sums of a few signs cancel with good odds (one in four that a
    target that is off by one in each of four rows goes unnoticed). They are cut from one pool, each time elsewhere. All
    arrays lie in memory as their model does, so that nothing is rearranged.
    """

    def __init__(self, largest: int, rng: np.random.Generator) -> None:
        pool = rng.random(largest + 4096, np.float32)  # 0 ... 1, of which all but the first bit make 0.5 ... 1.5
        pool = np.where(pool < 0.5, -0.5 - 2 * pool, 2 * pool - 0.5)
        self._pools, self._rng = (pool, pool.astype(np.float64)), rng
        for each in self._pools:
            each.flags.writeable = False
        self._largest = largest
        self._memory: dict[int, Array] = {}

    def random(self, model: Array) -> Random:
        """Read-only random numbers, as many as ``model`` has and laid out alike: the same in both precisions."""
        start = int(self._rng.integers(self._pools[0].size - model.size))
        single, double = (_laid_out(pool[start : start + model.size], model) for pool in self._pools)
        return single, double

    def scratch(self, model: Array, dtype: Any, place: int) -> Array:
        """An array like ``model`` with anything in it; the next one at the same ``place`` takes its memory."""
        memory = self._memory.setdefault(place, np.empty(self._largest))
        return _laid_out(memory.view(dtype)[: model.size], model)


def _laid_out(flat: Array, model: Array) -> Array:
    if is_channels_last(model):
        N, C, H, W = model.shape
        return flat.reshape(N, H, W, C).transpose(0, 3, 1, 2)
    return flat.reshape(model.shape)
