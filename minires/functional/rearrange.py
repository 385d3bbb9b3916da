"""Putting tensors side by side and around: concatenate, stack, pad, where."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import numpy as np

from minires.algebra import sum_to_shape
from minires.arguments import require_axis, require_number
from minires.function import Function
from minires.functional.checks import as_array, items_of, require_addressable, require_tensor, shapes
from minires.tensor import Tensor, apply
from minires.vocabulary import torch_keywords
from minires_kernels.arrays import Array, array_module
from minires_kernels.window import is_integer, shown


class Concatenate(Function):
    """Arrays joined along an existing axis; the gradient is cut at the same places."""

    def __init__(self, axis: int) -> None:
        self.axis = axis

    def forward(self, *arrays: Array) -> Array:
        self._lengths = [array.shape[self.axis] for array in arrays]
        return array_module(arrays[0]).concatenate(arrays, self.axis)

    def backward(self, grad_output: Array) -> tuple[Array | None, ...]:
        ends = [sum(self._lengths[: i + 1]) for i in range(len(self._lengths) - 1)]
        return tuple(array_module(grad_output).split(grad_output, ends, self.axis))


class Pad(Function):
    """A number around an array; the gradient of what was inside."""

    def __init__(self, widths: tuple[tuple[int, int], ...], value: float = 0) -> None:
        self.widths, self.value = widths, value

    def forward(self, x: Array) -> Array:
        return array_module(x).pad(x, self.widths, constant_values=self.value)

    def backward(self, grad_output: Array) -> tuple[Array | None, ...]:
        inside = (
            slice(before, length - after)
            for (before, after), length in zip(self.widths, grad_output.shape, strict=True)
        )
        return (grad_output[tuple(inside)],)


class Where(Function):
    """x where the condition holds, else y; each gets the gradient where it was taken."""

    def __init__(self, condition: Array) -> None:
        self._condition = condition

    def forward(self, x: Array, y: Array) -> Array:
        self._shapes = x.shape, y.shape
        return array_module(x).where(self._condition, x, y)

    def backward(self, grad_output: Array) -> tuple[Array | None, ...]:
        xp, (needs_x, needs_y) = array_module(grad_output), self.needs_input_grad
        return (
            sum_to_shape(xp.where(self._condition, grad_output, 0), self._shapes[0]) if needs_x else None,
            sum_to_shape(xp.where(self._condition, 0, grad_output), self._shapes[1]) if needs_y else None,
        )

    def signature(self) -> Array:
        return self._condition


@torch_keywords
def concatenate(tensors: Sequence[Tensor], axis: int = 0) -> Tensor:
    """``tensors`` joined along ``axis`` (or ``dim``): torch.cat.

    Raises ValueError for an axis that isn't there and for other lengths that don't agree, TypeError for what isn't a
    sequence of tensors of one dtype.

    >>> concatenate([Tensor([1.0]), Tensor([2.0, 3.0])]).shape
    (3,)
    """
    tensors = _sequence("concatenate", tensors)
    listing = ", ".join(str(tensor.shape) for tensor in tensors)
    ndim = tensors[0].ndim
    if any(tensor.ndim != ndim for tensor in tensors):
        raise ValueError(f"concatenate: shapes must have the same number of axes, got {listing}")
    axis = require_axis("concatenate", axis, ndim, listing)
    first, *others = [(*tensor.shape[:axis], *tensor.shape[axis + 1 :]) for tensor in tensors]
    if any(lengths != first for lengths in others):
        raise ValueError(f"concatenate: shapes must agree except on axis {axis}, got {listing}")
    return apply(Concatenate(axis), *tensors)


@torch_keywords
def stack(tensors: Sequence[Tensor], axis: int = 0) -> Tensor:
    """``tensors`` of one shape side by side along a new ``axis`` (or ``dim``). Errors as :func:`concatenate`."""
    tensors = _sequence("stack", tensors)
    if any(tensor.shape != tensors[0].shape for tensor in tensors):
        raise ValueError(f"stack: shapes must agree, got {', '.join(str(tensor.shape) for tensor in tensors)}")
    ndim = tensors[0].ndim + 1
    position = require_axis("stack", axis, ndim, f"a result of {ndim} axes")
    lifted = [t.reshape(*t.shape[:position], 1, *t.shape[position:]) for t in tensors]
    return apply(Concatenate(position), *lifted)


def pad(x: Tensor, widths: Sequence[tuple[int, int]], *, value: float = 0) -> Tensor:
    """``value`` around ``x``: ``widths`` holds (before, after) for each axis from the first, as ``numpy.pad`` has it.

    PyTorch's order is the reverse: pairs from the last axis on, in one flat sequence.

    >>> pad(Tensor([[1.0]]), [(0, 1), (0, 0)], value=7).data.tolist()
    [[1.0], [7.0]]

    Raises TypeError for widths that aren't pairs of integers and a value that isn't a number, ValueError for negative
    widths or another number of pairs than ``x`` has axes.
    """
    require_tensor("pad", "x", x, any_dtype=True)
    pairs = _pairs(widths, x)
    length = tuple(before + size + after for (before, after), size in zip(pairs, x.shape, strict=True))
    require_addressable("pad", length, x.dtype, x=x)
    return apply(Pad(pairs, _padding_value(value, x)), x)


def where(condition: Array | Tensor, x: Tensor | float, y: Tensor | float) -> Tensor:
    """``x`` where ``condition`` (booleans) holds, ``y`` elsewhere; all three broadcast.

    One of x and y may be a number or an array; it takes the other's dtype by the rule of ``x + y``.

    >>> where([True, False], Tensor([1.0, 2.0]), 0).data.tolist()
    [1.0, 0.0]

    Raises TypeError for a condition that isn't boolean, for no tensor at all and for different floating-point types,
    ValueError for shapes that don't broadcast.
    """
    if isinstance(x, Tensor):
        taken, other = x._operands("where", y)
    elif isinstance(y, Tensor):
        other, taken = y._operands("where", x)
    else:
        raise TypeError(f"where: x or y must be a Tensor, got {type(x).__name__} and {type(y).__name__}; "
                        "wrap one: minires.Tensor(...)")  # fmt: skip
    x, y = cast(Tensor, taken), cast(Tensor, other)
    mask = _mask(condition, x)
    try:
        np.broadcast_shapes(mask.shape, x.shape, y.shape)
    except ValueError as error:
        raise ValueError(f"where: the shapes don't broadcast: condition {mask.shape}, {shapes(x=x, y=y)}") from error
    return apply(Where(mask), x, y)


def _mask(condition: Array | Tensor, like: Tensor) -> Array:
    """A copy of the condition: the gradient must go where the numbers came from, whatever becomes of the original."""
    mask = as_array("where", "condition", condition, like=like)
    if mask.dtype != bool:
        raise TypeError(f"where: condition must be boolean, got {mask.dtype}; compare first, as in x.data > 0")
    return mask.copy()


def _sequence(op: str, tensors: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """``tensors`` as a tuple, at least one and all of one dtype."""
    items = items_of(tensors)
    if items is None:
        raise TypeError(f"{op}: tensors must be a sequence of Tensors, got {type(tensors).__name__}; "
                        f"write {op}([x, y])")  # fmt: skip
    tensors = items
    if not tensors:
        raise ValueError(f"{op}: needs at least one tensor")
    for tensor in tensors:
        require_tensor(op, "each item", tensor, any_dtype=True)
    if any(tensor.dtype != tensors[0].dtype for tensor in tensors):
        listing = ", ".join(f"{tensor.shape} {tensor.dtype}" for tensor in tensors)
        raise TypeError(f"{op}: tensors must have one dtype, got {listing}; convert with .astype(...)")
    return tensors


def _pairs(widths: Sequence[tuple[int, int]], x: Tensor) -> tuple[tuple[int, int], ...]:
    items = items_of(widths)
    pairs = (None,) if items is None else tuple(map(_pair, items))
    listing = f"got {shown(widths)}; x {x.shape}"
    form = f"{x.ndim} pairs (before, after), one for each axis from the first"
    if None in pairs:
        raise TypeError(f"pad: widths must be {form}, {listing}; PyTorch's flat widths begin at the last axis")
    if len(pairs) != x.ndim or any(min(pair) < 0 for pair in pairs if pair):
        raise ValueError(f"pad: widths must be {form}, of numbers >= 0, {listing}")
    return tuple(pair for pair in pairs if pair)


def _padding_value(value: object, x: Tensor) -> float:
    number = require_number("pad", "value", value)
    with np.errstate(all="ignore"):
        held = np.asarray(number).astype(x.dtype)
    if np.isinf(held) != np.isinf(number) if x.dtype.kind == "f" else held != number:
        raise ValueError(f"pad: value {shown(value)} isn't one of the numbers that x, {x.dtype}, can hold")
    return number


def _pair(value: object) -> tuple[int, int] | None:
    """Two integers, or None if it is anything else."""
    items = items_of(value) or ()
    return (int(items[0]), int(items[1])) if len(items) == 2 and all(map(is_integer, items)) else None
