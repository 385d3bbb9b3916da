"""What every public function checks first: its arguments are tensors of the right rank, its options in range."""

from __future__ import annotations

import math

import numpy as np

from minires.tensor import Tensor
from minires_kernels.window import is_integer, shown


def require_tensor(op: str, name: str, value: object, *, ndim: int | None = None, any_dtype: bool = False) -> None:
    """Raise TypeError unless ``value`` is a Tensor of floating-point numbers, ValueError unless it has ``ndim`` axes.

    With ``any_dtype`` integers and booleans will do as well: where numbers are only moved.
    """
    if not isinstance(value, Tensor):
        raise TypeError(f"{op}: {name} must be a Tensor, got {type(value).__name__}; wrap it: minires.Tensor({name})")
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
    except OverflowError:  # a whole number beyond all floats
        number = math.inf
    if least is not None and (not least <= number <= most or math.isinf(number)):
        limits = f"a finite number of at least {least}" if most == math.inf else f"a number from {least} to {most}"
        raise ValueError(f"{op}: {name} must be {limits}, got {shown(value)}")
    return number


def require_integer(op: str, name: str, value: object) -> int:
    """``value`` as an int. Raise TypeError unless it is a whole number."""
    if not is_integer(value):
        raise TypeError(f"{op}: {name} must be an integer, got {_named(value)}")
    return int(value)  # type: ignore[call-overload,no-any-return]


def require_flag(op: str, name: str, value: object) -> None:
    """Raise TypeError unless ``value`` is True or False: a 2 or a "no" in its place was meant for something else."""
    if not isinstance(value, (bool, np.bool_)):
        raise TypeError(f"{op}: {name} must be True or False, got {_named(value)}")


def shapes(**tensors: Tensor | None) -> str:
    """``x (2, 3, 8, 8), weight (16, 4, 3, 3)``: the end of every message about shapes."""
    return ", ".join(f"{name} {tensor.shape}" for name, tensor in tensors.items() if tensor is not None)


def _named(value: object) -> str:
    """What stands in the place of a number: a Tensor by its kind and with the cure, anything else as it is."""
    return f"a Tensor of shape {value.shape}; use .item()" if isinstance(value, Tensor) else shown(value)
