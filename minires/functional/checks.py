"""What every public function checks first: its arguments are tensors of the right rank, its options in range."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import wraps
from typing import Any, TypeVar

import numpy as np

from minires.arguments import type_name
from minires.tensor import Tensor
from minires_kernels import Window
from minires_kernels.arrays import Array, array_module
from minires_kernels.window import is_integer, shown

Result = TypeVar("Result")

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


def require_number(op: str, name: str, value: object, *, least: float | None = None, most: float = math.inf) -> float:
    """``value`` as a float. Raise TypeError unless it is a number.

    With ``least``, raise ValueError unless it is finite and ``least`` <= it <= ``most``.
    """
    if isinstance(value, bool) or not isinstance(value, (int, float, np.integer, np.floating)):
        raise TypeError(f"{op}: {name} must be a number, got {_named(value)}")
    try:
        number = float(value)
    except OverflowError as error:
        raise ValueError(f"{op}: {name} is a whole number beyond all floats, got {shown(value)}") from error
    if least is not None and (not least <= number <= most or math.isinf(number)):
        limits = f"a finite number of at least {least}" if most == math.inf else f"a number from {least} to {most}"
        raise ValueError(f"{op}: {name} must be {limits}, got {shown(value)}")
    return number


def require_integer(op: str, name: str, value: object) -> int:
    """``value`` as an int. Raise TypeError unless it is a whole number, ValueError for one beyond 64 bits."""
    if not is_integer(value):
        raise TypeError(f"{op}: {name} must be an integer, got {_named(value)}")
    number: int = int(value)  # type: ignore[call-overload]
    if not -(1 << 63) <= number < 1 << 63:
        raise ValueError(f"{op}: {name} must be an integer of 64 bits, got {shown(value)}")
    return number


def require_flag(op: str, name: str, value: object) -> None:
    """Raise TypeError unless ``value`` is True or False: a 2 or a "no" in its place was meant for something else."""
    if not isinstance(value, (bool, np.bool_)):
        raise TypeError(f"{op}: {name} must be True or False, got {_named(value)}")


def require_generator(op: str, rng: object) -> np.random.Generator:
    """``rng``. Raise TypeError unless it is a Generator of NumPy's: a seed, or numpy.random itself, isn't one."""
    if not isinstance(rng, np.random.Generator):
        raise TypeError(
            f"{op}: rng must be a numpy.random.Generator, got {type(rng).__name__}; numpy.random.default_rng(seed) "
            "makes one"
        )
    return rng


def refuse_inplace(op: str, inplace: object) -> None:
    """Raise ValueError, with the reason, for an ``inplace`` that is True."""
    require_flag(op, "inplace", inplace)
    if inplace:
        raise ValueError(
            f"{op}: inplace=True would write into x, which the backward pass of what made x may still have to read; "
            "leave it out: x is freed as soon as nothing needs it"
        )


def require_axis(op: str, axis: object, ndim: int, shape: str) -> int:
    """``axis``, counted from the front. Raise TypeError or ValueError unless it is one of the ``ndim`` axes."""
    number = require_integer(op, "axis", axis)
    if not -ndim <= number < ndim:
        raise ValueError(f"{op}: axis {number} doesn't exist in {shape}")
    return number % ndim


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
    if math.prod(shape) * dtype.itemsize > ADDRESSABLE:
        raise ValueError(f"{op}: it would need an array of shape {tuple(shape)}, more than a process can address; "
                         f"{shapes(**tensors)}; is an option too large?")  # fmt: skip


def require_image_fits(op: str, x: Tensor, window: Window, *, channels: int, ceil_mode: bool = False) -> None:
    """Raise ValueError when ``window`` doesn't fit into the padded ``x``, or when that or the result is too large."""
    N, C, H, W = x.shape
    output = window.output_size(H, W, ceil_mode=ceil_mode, op=op)
    padded = H + 2 * window.padding[0], W + 2 * window.padding[1]
    for shape in ((N, C, *padded), (N, channels, *output)):
        require_addressable(op, shape, x.dtype, x=x)


def also_dim(function: Callable[..., Result]) -> Callable[..., Result]:
    """``function``, whose keyword ``axis`` may be called ``dim`` as well, as PyTorch calls it."""

    @wraps(function)
    def call(*arguments: Any, **options: Any) -> Result:
        if "dim" in options:
            if "axis" in options:
                raise TypeError(f"{function.__name__}: axis and dim are two names of one argument; give one of them")
            options["axis"] = options.pop("dim")
        return function(*arguments, **options)

    return call


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


def _named(value: object) -> str:
    """What stands in the place of a number: a Tensor by its kind and with the cure, anything else as it is."""
    return f"a Tensor of shape {value.shape}; use .item()" if isinstance(value, Tensor) else shown(value)
