"""What every public function checks first: its arguments are tensors of the right rank, its options in range."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from minires.arguments import require_flag, type_name
from minires.tensor import Tensor
from minires_kernels import Window
from minires_kernels.arrays import Array, array_module
from minires_kernels.window import shown

ADDRESSABLE = 1 << 47
"""Bytes that a process can address. An array of more can't be had on any machine, so that asking is a mistake."""


def require_tensor(op: str, name: str, value: object, *, ndim: int | None = None, any_dtype: bool = False) -> None:
    """Raise TypeError unless ``value`` is a Tensor of floating-point numbers, ValueError unless it has ``ndim`` axes.

    With ``any_dtype`` integers and booleans will do as well: where numbers are only moved.
    """
    if not isinstance(value, Tensor):
        raise TypeError(f"{op}: {name} must be a Tensor, got {type_name(value)}; wrap it: minires.Tensor({name})")
    if value.dtype.kind != "f" and not any_dtype:
        raise TypeError(f"{op}: {name} must hold floating-point numbers, got {value.dtype}; use .astype(numpy.float32)")
    if ndim is not None and value.ndim != ndim:
        form = {1: "(length,)", 2: "(N, features)", 4: "(N, C, H, W)"}.get(ndim, f"{ndim} axes")
        raise ValueError(f"{op}: {name} must be {form}, got shape {value.shape}")


def refuse_inplace(op: str, inplace: object) -> None:
    """Raise ValueError, with the reason, for an ``inplace`` that is True."""
    require_flag(op, "inplace", inplace)
    if inplace:
        raise ValueError(
            f"{op}: inplace=True would write into x, which the backward pass of what made x may still have to read; "
            "leave it out: x is freed as soon as nothing needs it"
        )


def as_array(op: str, name: str, value: object, *, like: Tensor) -> Array:
    """The array of a Tensor, an array or a list. Raise TypeError for anything else.

    It belongs to the library of ``like``. Python's fractions, which have no width, take that of ``like``.
    """
    if isinstance(value, Tensor):
        return value.data
    try:
        array = array_module(like.data).asarray(value)
    except (TypeError, ValueError, RuntimeError) as error:  # a ragged list; tensors; another device's array
        raise TypeError(f"{op}: {name} must be an array, got {shown(value)} ({error})") from error
    if array.dtype.kind not in "fiub":
        raise TypeError(f"{op}: {name} must be an array of numbers, got {shown(value)}")
    return array.astype(like.dtype) if array.dtype.kind == "f" and not hasattr(value, "dtype") else array


def items_of(value: object) -> tuple[Any, ...] | None:
    """The items of a sequence, or None for what is none; a Tensor isn't: its rows are seldom meant."""
    if isinstance(value, Tensor):
        return None
    try:
        return tuple(value)  # type: ignore[arg-type]
    except TypeError:
        return None


def require_addressable(op: str, shape: Sequence[int], dtype: Any, **tensors: Tensor | None) -> None:
    """Raise ValueError when an array of ``shape``, which the operation needs, is larger than a process can address."""
    if math.prod(shape) * np.dtype(dtype).itemsize > ADDRESSABLE:
        given = f"; {shapes(**tensors)}" if tensors else ""
        raise ValueError(
            f"{op}: it would need an array of shape {tuple(shape)}, more than a process can address{given}; "
            "is an option too large?"
        )


def require_image_fits(op: str, x: Tensor, window: Window, *, channels: int, ceil_mode: bool = False) -> None:
    """Raise ValueError when ``window`` doesn't fit into the padded ``x``, or when that or the result is too large."""
    N, C, H, W = x.shape
    output = window.output_size(H, W, ceil_mode=ceil_mode, op=op)
    padded = H + 2 * window.padding[0], W + 2 * window.padding[1]
    for shape in ((N, C, *padded), (N, channels, *output)):
        require_addressable(op, shape, x.dtype, x=x)


def batch_of_images(op: str, x: Tensor) -> tuple[Tensor, bool]:
    """(``x`` as (N, C, H, W), whether it was a single image (C, H, W) and so shall the result be)."""
    require_tensor(op, "x", x)
    if x.ndim not in (3, 4):
        raise ValueError(f"{op}: x must be (N, C, H, W), or (C, H, W) for one image, got shape {x.shape}")
    is_single = x.ndim == 3
    return (x.reshape(1, *x.shape) if is_single else x), is_single


def without_batch(y: Tensor, is_single: bool) -> Tensor:
    """The image alone, (C, H, W), of a batch of one that :func:`batch_of_images` has made; else ``y`` itself."""
    return y.reshape(y.shape[1:]) if is_single else y


def shapes(**tensors: Tensor | None) -> str:
    """``x (2, 3, 8, 8), weight (16, 4, 3, 3)``: the end of every message about shapes."""
    return ", ".join(f"{name} {tensor.shape}" for name, tensor in tensors.items() if tensor is not None)
