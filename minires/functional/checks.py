"""What every public function checks first: its arguments are tensors of the right rank, its options in range."""

from __future__ import annotations

from minires.arguments import type_name
from minires.tensor import Tensor


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


def shapes(**tensors: Tensor | None) -> str:
    """``x (2, 3, 8, 8), weight (16, 4, 3, 3)``: the end of every message about shapes."""
    return ", ".join(f"{name} {tensor.shape}" for name, tensor in tensors.items() if tensor is not None)
