"""MiniRes: a from-scratch deep-learning engine for understanding residual networks.

``import minires`` needs NumPy alone. Numba, CuPy, matplotlib and the rest are imported where they are used; so are the
gradient checker and the inspector, which training doesn't need and which would take half of the time.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from minires import functional, models, nn, optim, tensor
from minires.function import Function
from minires.graph import no_grad
from minires.tensor import Parameter, Tensor
from minires_kernels import using

if TYPE_CHECKING:
    from minires.checking import gradcheck
    from minires.inspection import record

__all__ = [
    "Function",
    "Parameter",
    "Tensor",
    "functional",
    "gradcheck",
    "models",
    "nn",
    "no_grad",
    "optim",
    "record",
    "tensor",
    "using",
]
__version__ = "0.1.0"

_ON_USE = {"gradcheck": "minires.checking", "record": "minires.inspection"}


def __getattr__(name: str) -> Any:
    """``gradcheck``, ``record``, and the packages that they are from, when they are first asked for (PEP 562)."""
    if name in _ON_USE:
        return getattr(import_module(_ON_USE[name]), name)
    if f"minires.{name}" in _ON_USE.values():
        return import_module(f"minires.{name}")
    raise AttributeError(f"module 'minires' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, *(package.partition(".")[2] for package in _ON_USE.values())})
