"""Putting tensors side by side and around: concatenate, stack, pad, where."""

from __future__ import annotations

from collections.abc import Sequence

from minires.algebra import sum_to_shape
from minires.function import Function
from minires.functional.checks import require_tensor
from minires.tensor import Tensor, apply
from minires_kernels.arrays import Array, array_module


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
    """Zeros around an array; the gradient of what was inside."""

    def __init__(self, widths: tuple[tuple[int, int], ...]) -> None:
        self.widths = widths

    def forward(self, x: Array) -> Array:
        return array_module(x).pad(x, self.widths)

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


def concatenate(tensors: Sequence[Tensor], axis: int = 0) -> Tensor:
    """``tensors`` joined along ``axis``; their other lengths (else ValueError) and dtypes (TypeError) must agree."""
    _require_alike("concatenate", tensors, axis)
    first, *others = [[n for i, n in enumerate(t.shape) if i != axis % t.ndim] for t in tensors]
    if any(lengths != first for lengths in others):
        listing = ", ".join(str(tensor.shape) for tensor in tensors)
        raise ValueError(f"concatenate: shapes must agree except on axis {axis}, got {listing}")
    return apply(Concatenate(axis), *tensors)


def stack(tensors: Sequence[Tensor], axis: int = 0) -> Tensor:
    """``tensors`` of one shape side by side along a new ``axis``. Raises ValueError or TypeError when they differ."""
    if not tensors:
        raise ValueError("stack: needs at least one tensor")
    for tensor in tensors:
        require_tensor("stack", "each item", tensor, any_dtype=True)
    _require_one_dtype("stack", tensors)
    if any(tensor.shape != tensors[0].shape for tensor in tensors):
        raise ValueError(f"stack: shapes must agree, got {', '.join(str(tensor.shape) for tensor in tensors)}")
    ndim = tensors[0].ndim + 1
    if not -ndim <= axis < ndim:
        raise ValueError(f"stack: axis {axis} doesn't exist in a result of {ndim} axes")
    position = axis % ndim
    lifted = [t.reshape(*t.shape[:position], 1, *t.shape[position:]) for t in tensors]
    return apply(Concatenate(position), *lifted)


def pad(x: Tensor, widths: Sequence[tuple[int, int]]) -> Tensor:
    """Zeros around ``x``: ``widths`` holds (before, after) for each axis, as ``numpy.pad`` takes them.

    Raises ValueError for negative widths or another number of pairs than ``x`` has axes.
    """
    require_tensor("pad", "x", x, any_dtype=True)
    pairs = tuple((int(before), int(after)) for before, after in widths)
    if len(pairs) != x.ndim or any(min(pair) < 0 for pair in pairs):
        raise ValueError(
            f"pad: widths must be {x.ndim} pairs (before, after) of numbers >= 0, got {pairs}; x {x.shape}"
        )
    return apply(Pad(pairs), x)


def where(condition: Array | Tensor, x: Tensor, y: Tensor) -> Tensor:
    """``x`` where ``condition`` (booleans) holds, ``y`` elsewhere; all three broadcast.

    Raises TypeError for a condition that isn't boolean and for x and y of different dtypes, ValueError for shapes that
    don't broadcast.
    """
    require_tensor("where", "x", x, any_dtype=True)
    require_tensor("where", "y", y, any_dtype=True)
    _require_one_dtype("where", (x, y))
    mask = condition.data if isinstance(condition, Tensor) else array_module(x.data).asarray(condition)
    if mask.dtype != bool:
        raise TypeError(f"where: condition must be boolean, got {mask.dtype}; compare first, as in x.data > 0")
    return apply(Where(mask.copy()), x, y)


def _require_alike(op: str, tensors: Sequence[Tensor], axis: int) -> None:
    if not tensors:
        raise ValueError(f"{op}: needs at least one tensor")
    for tensor in tensors:
        require_tensor(op, "each item", tensor, any_dtype=True)
    _require_one_dtype(op, tensors)
    ndim = tensors[0].ndim
    if any(tensor.ndim != ndim for tensor in tensors) or not -ndim <= axis < ndim:
        listing = ", ".join(str(tensor.shape) for tensor in tensors)
        raise ValueError(f"{op}: shapes must have the same number of axes, axis {axis} among them, got {listing}")


def _require_one_dtype(op: str, tensors: Sequence[Tensor]) -> None:
    if any(tensor.dtype != tensors[0].dtype for tensor in tensors):
        listing = ", ".join(f"{tensor.shape} {tensor.dtype}" for tensor in tensors)
        raise TypeError(f"{op}: tensors must have one dtype, got {listing}; convert with .astype(...)")
