"""MiniRes: a from-scratch deep-learning engine for understanding residual networks.

``import minires`` needs NumPy alone. Numba, CuPy, matplotlib and the rest are imported where they are used.
"""

from minires import functional, models, nn, optim, tensor
from minires.checking import gradcheck
from minires.function import Function
from minires.graph import no_grad
from minires.inspection import record
from minires.tensor import Parameter, Tensor
from minires_kernels import using

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
