"""MiniRes's ground layer: kernels, plain functions from arrays to arrays. Importable without the engine.

Each family (``patches``, ``convolution``, ...) is a folder: its ``__init__`` holds the contract and dispatches, its
``reference`` is the specification, every other file is one implementation. See :mod:`minires_kernels.registry`.
"""

from minires_kernels.registry import available, families, forced, implementations, kernels, load, select, using
from minires_kernels.window import Window

__all__ = ["Window", "available", "families", "forced", "implementations", "kernels", "load", "select", "using"]
