"""Tensor: an array, its gradient and the Function that made it; ``apply``, which builds the graph.

This file alone builds graphs. A graph is bipartite: ``tensor.creator`` is the Function that made the tensor,
``function.inputs`` are the tensors that it was made of. Nothing points from a Function to its output, so there are no
reference cycles: a graph lives as long as its last tensor and dies with it, by reference counting alone.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np

from minires.display import html_table
from minires.function import Function, origin_of_call
from minires.graph import as_array, tracking, walk, watching
from minires.operators import Operators
from minires_kernels import forced
from minires_kernels.arrays import Array, array_module, device_of, to_cpu

_numbers = itertools.count()


def apply(function: Function, *inputs: Tensor | None) -> Tensor:
    """The result of ``function`` on ``inputs``, as a node of the graph. None stands for an absent input.

    A Function instance is one application: it can be applied once. Raises TypeError for inputs that aren't tensors or
    whose floating-point types differ (nothing widens silently), RuntimeError for a second application.
    """
    watcher = watching()
    if function.expand is not None and (watcher is not None or forced() == "reference"):
        return function.expand(*inputs)
    if function.number >= 0:
        raise RuntimeError(
            f"{function!r} was applied already{function.where()}; an instance is one application: make a new one"
        )
    arrays = _arrays(function, inputs)
    if tracking():
        function.needs_input_grad = tuple(tensor is not None and tensor.requires_grad for tensor in inputs)
    else:
        function.needs_input_grad = (False,) * len(inputs)
    try:
        array = function.forward(*arrays)
    except ValueError as error:  # NumPy's own, about shapes: it doesn't know the operation
        reason = function.explain(*arrays) or error
        raise ValueError(f"{type(function).__name__}: {reason}; inputs {_listing(inputs)}") from error
    function.number = next(_numbers)
    requires_grad = any(function.needs_input_grad)
    output = Tensor(as_array(array))
    if requires_grad or watcher is not None:
        function.origin = origin_of_call()
    if requires_grad:
        output.requires_grad = True
        output.creator = function
        function.inputs = inputs
    if watcher is not None:
        watcher.on_forward(function, inputs, output)
    if not requires_grad:
        function.release()
    return output


def _arrays(function: Function, inputs: tuple[Tensor | None, ...]) -> list[Array | None]:
    arrays: list[Array | None] = []
    dtype = None
    for position, tensor in enumerate(inputs):
        if tensor is None:
            arrays.append(None)
            continue
        if not isinstance(tensor, Tensor):
            raise TypeError(
                f"{type(function).__name__}: input {position} must be a Tensor, got {type(tensor).__name__}; "
                "wrap it: minires.Tensor(...)"
            )
        array = tensor.data
        arrays.append(array)
        if array.dtype.kind == "f":
            if dtype is not None and array.dtype != dtype:
                raise TypeError(
                    f"{type(function).__name__}: inputs have different floating-point types: {_listing(inputs)}; "
                    "nothing widens silently: convert one with .astype(...)"
                )
            dtype = array.dtype
    return arrays


def _listing(inputs: tuple[Tensor | None, ...]) -> str:
    return ", ".join(f"{tensor.shape} {tensor.dtype}" for tensor in inputs if tensor is not None)


class Tensor(Operators):
    """An array that remembers how it was made.

    ``data``: a NumPy or CuPy array, or anything that ``numpy.asarray`` takes; Python numbers become float32 (integers
    stay integers), arrays keep their dtype and aren't copied. ``requires_grad``: whether backward shall compute its
    gradient; only floating-point tensors can. After backward ``grad`` is an array like ``data``, or None.
    """

    __slots__ = ("__weakref__", "creator", "data", "grad", "requires_grad", "retains_grad")
    __array_ufunc__ = None  # so that `array + tensor` reaches Tensor.__radd__

    def __init__(self, data: Any, requires_grad: bool = False) -> None:
        if isinstance(data, Tensor):
            raise TypeError("Tensor: data is a Tensor already; use it as it is, or its .detach()")
        self.data: Array = data if isinstance(data, np.ndarray) else _import_data(data)
        if self.data.dtype.kind not in "fiub":
            raise TypeError(f"Tensor: expected numbers, got {type(data).__name__} of {self.data.dtype}")
        if requires_grad and self.data.dtype.kind != "f":
            raise TypeError(
                f"Tensor: only floating-point tensors can require a gradient, got {self.data.dtype}; "
                "use array.astype(numpy.float32)"
            )
        self.grad: Array | None = None
        self.requires_grad = requires_grad
        self.creator: Function | None = None
        self.retains_grad = False

    # ---------------------------------------------------------------- what it is

    @property
    def device(self) -> str:
        """``"cpu"`` or ``"cuda"``."""
        return device_of(self.data)

    @property
    def is_leaf(self) -> bool:
        """Whether no Function made it: a parameter, an input, a constant."""
        return self.creator is None

    def item(self) -> float:
        """Its only element as a Python number. Raises ValueError when it has more than one."""
        return self._only("item")  # type: ignore[no-any-return]

    def numpy(self) -> np.ndarray[Any, Any]:
        """Its data as a NumPy array; shares memory on the CPU."""
        return to_cpu(self.data)

    def detach(self) -> Tensor:
        """A tensor of the same data (shared, not copied) that no gradient passes through."""
        return Tensor(self.data)

    def __repr__(self) -> str:
        made = f", {self.creator!r}" if self.creator is not None else ", requires_grad" if self.requires_grad else ""
        return f"{type(self).__name__}({self._content()}, {self.shape} {self.dtype}{made})"

    def _repr_html_(self) -> str:
        """What a notebook shows: a row for each of its properties."""
        rows = [("shape", str(self.shape)), ("dtype", str(self.dtype)), ("data", self._content())]
        if self.creator is not None:
            rows.append(("made by", f"{self.creator!r}{self.creator.where()}"))
        rows.append(("requires grad", str(self.requires_grad)))
        return html_table((), rows, left=(0, 1), title=type(self).__name__)

    def _content(self) -> str:
        """Its numbers in a line or, of more than 8, what sums them up."""
        if self.size <= 8:
            return " ".join(np.array2string(to_cpu(self.data), precision=4, separator=", ").split())
        if self.dtype.kind != "f":
            return "..."
        with np.errstate(all="ignore"):  # infinities have no standard deviation
            return f"mean {float(self.data.mean()):.4g}, std {float(self.data.std()):.4g}"

    def __len__(self) -> int:
        if not self.ndim:
            raise TypeError("len: a 0-d tensor has no length; its number is x.item()")
        return self.shape[0]

    def __iter__(self) -> Iterator[Tensor]:
        if not self.ndim:
            raise TypeError("iteration: a 0-d tensor has no rows; its number is x.item()")
        return (self[i] for i in range(len(self)))

    def __bool__(self) -> bool:
        return bool(self._only("if", "; ask for x.any() or x.all()"))

    def __float__(self) -> float:
        return float(self._only("float"))

    def __int__(self) -> int:
        return int(self._only("int"))

    def __index__(self) -> int:
        if self.dtype.kind not in "iu":
            raise TypeError(f"index: only a tensor of integers stands for an integer, got {self.dtype}")
        return int(self._only("index"))

    def _only(self, op: str, cure: str = "") -> Any:
        """Its only element as a Python number."""
        if self.size != 1:
            raise ValueError(f"{op}: the tensor must have one element, but its shape is {self.shape}{cure}")
        return self.data.item()

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray[Any, Any]:
        if self.requires_grad:
            raise RuntimeError("numpy.asarray: the tensor requires a gradient, which NumPy would lose; use tensor.data")
        return np.array(to_cpu(self.data), dtype=dtype, copy=copy)

    # ---------------------------------------------------------------- backward

    def retain_grad(self) -> Tensor:
        """Ask backward to keep this intermediate tensor's gradient in ``grad`` too; leaves keep theirs anyway.

        Returns the tensor itself. Raises RuntimeError when it doesn't require a gradient.
        """
        if not self.requires_grad:
            raise RuntimeError("retain_grad: the tensor doesn't require a gradient; create it with requires_grad=True")
        self.retains_grad = True
        return self

    def backward(self, grad: Array | Tensor | None = None, *, retain_graph: bool = False) -> None:
        """Compute this tensor's gradient with respect to every leaf that requires one, and add it to ``leaf.grad``.

        ``grad``: the upstream gradient, an array like ``data``; may be left out for a tensor of one element, where it
        is 1. The graph is walked by descending creation number, so that a tensor's gradient is complete (all its
        consumers came after it) before it is passed on; without recursion, so depth doesn't matter. Saved arrays are
        freed on the way unless ``retain_graph``. If a Function fails, no ``grad`` has been changed.

        Raises RuntimeError for a tensor without a graph, for one of several elements without ``grad``, for a second
        backward through a freed graph, and when a Function returns something that isn't its inputs' gradients;
        ValueError or TypeError when ``grad`` doesn't fit.
        """
        walk(self, self._upstream(grad), retain_graph=retain_graph)

    def _upstream(self, grad: Array | Tensor | None) -> Array:
        if not self.requires_grad:
            raise RuntimeError(
                "backward: this tensor has no graph; it was made from tensors that don't require a gradient, "
                "or inside no_grad()"
            )
        if grad is None:
            if self.size != 1:
                raise RuntimeError(
                    f"backward: a tensor of shape {self.shape} needs an upstream gradient of that shape: "
                    "tensor.backward(grad), or reduce it to a scalar first"
                )
            return array_module(self.data).ones_like(self.data)
        array = grad.data if isinstance(grad, Tensor) else grad
        if not hasattr(array, "dtype") or array.dtype != self.dtype:
            kind = getattr(array, "dtype", type(array).__name__)
            raise TypeError(f"backward: the upstream gradient must be an array of {self.dtype}, got {kind}")
        if array.shape != self.shape:
            raise ValueError(f"backward: the upstream gradient has shape {array.shape}, but the tensor {self.shape}")
        return as_array(array)

    def _apply(self, function: Function, *inputs: Tensor) -> Tensor:
        return apply(function, *inputs)

    def _constant(self, array: Array) -> Tensor:
        return Tensor(array)


class Parameter(Tensor):
    """A tensor that is learned: it requires a gradient, and modules and optimizers find it by its type."""

    __slots__ = ()

    def __init__(self, data: Any, requires_grad: bool = True) -> None:
        super().__init__(data, requires_grad)


def _import_data(data: Any) -> Array:
    if hasattr(data, "__cuda_array_interface__"):
        array_module(data)  # a TypeError here says what to do with other libraries' GPU arrays
        return data
    array = np.asarray(data)
    if array.dtype == np.float64 and not isinstance(data, np.generic):
        array = array.astype(np.float32)  # Python numbers carry no width of their own
    return array
