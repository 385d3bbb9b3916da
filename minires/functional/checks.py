"""What every public function checks first: its arguments are tensors of the right rank, its options in range."""

from __future__ import annotations

from minires.tensor import Tensor


def require_tensor(op: str, name: str, value: object, *, ndim: int | None = None) -> None:
    """Raise TypeError unless ``value`` is a Tensor, ValueError unless it has ``ndim`` axes; both name ``op`` and it."""
    if not isinstance(value, Tensor):
        raise TypeError(f"{op}: {name} must be a Tensor, got {type(value).__name__}; wrap it: minires.Tensor({name})")
    if ndim is not None and value.ndim != ndim:
        form = {1: "(length,)", 2: "(N, features)", 4: "(N, C, H, W)"}.get(ndim, f"{ndim} axes")
        raise ValueError(f"{op}: {name} must be {form}, got shape {value.shape}")


def shapes(**tensors: Tensor | None) -> str:
    """``x (2, 3, 8, 8), weight (16, 4, 3, 3)``: the end of every message about shapes."""
    return ", ".join(f"{name} {tensor.shape}" for name, tensor in tensors.items() if tensor is not None)
