"""Tensor: an array, its gradient and the Function that made it; ``apply``, which builds the graph.

This file alone builds graphs. A graph is bipartite: ``tensor.creator`` is the Function that made the tensor,
``function.inputs`` are the tensors that it was made of. Nothing points from a Function to its output, so there are no
reference cycles: a graph lives as long as its last tensor and dies with it, by reference counting alone.
"""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np

from minires import algebra
from minires.arguments import type_name
from minires.conversions import Conversions
from minires.dtypes import admit, admit_like, to_array
from minires.function import Function, origin_of_call, place
from minires.graph import BackwardHook, HookHandle, tracking, walk, watching
from minires.operators import Operators
from minires_kernels import forced
from minires_kernels.arrays import Array, array_module, checked_device, device_of
from minires_kernels.notes import add_note_once

_numbers = itertools.count()  # of Functions and of changes: what came first, in one order


def apply(function: Function, *inputs: Tensor | None) -> Tensor:
    """The result of ``function`` on ``inputs``, as a node of the graph. None stands for an absent input.

    A Function instance is one application: it can be applied once. Raises TypeError for inputs that aren't tensors or
    whose floating-point types differ (nothing widens silently), and for a result that isn't one array of their type;
    RuntimeError for a second application.
    """
    watcher = watching()
    if function.expand is not None and (watcher is not None or forced() == "reference"):
        return function.expand(*inputs)
    if function.number >= 0:
        raise RuntimeError(
            f"{function!r} was applied already{function.where()}; an instance is one application: make a new one"
        )
    arrays, dtype = _arrays(function, inputs)
    if tracking():
        function.needs_input_grad = tuple(tensor is not None and tensor._requires_grad for tensor in inputs)
    else:
        function.needs_input_grad = (False,) * len(inputs)
    try:
        array = function.forward(*arrays)
    except ValueError as error:  # NumPy's own, about shapes: it doesn't know the operation
        reason = function.explain(*arrays) or error
        raise ValueError(f"{type(function).__name__}: {reason}; inputs {_listing(inputs)}") from error
    except Exception as error:
        add_note_once(error, f"in the forward pass of {function!r}; inputs {_listing(inputs)}")
        raise
    try:
        output = Tensor(array if type(array) is np.ndarray else _one_array(array))
    except TypeError as error:
        raise TypeError(f"{type(function).__name__}: forward must return one array of numbers; {error}") from error
    requires_grad = True in function.needs_input_grad
    if output._data.dtype is not dtype:  # an array of integers has no gradient
        requires_grad = _is_floating(function, output, dtype, inputs) and requires_grad
    function.number = next(_numbers)
    if requires_grad or watcher is not None:
        function.origin = origin_of_call()
    if requires_grad:
        output._requires_grad = True
        output.creator = function
        function.inputs = inputs
    if watcher is not None:
        watcher.on_forward(function, inputs, output)
    if not requires_grad:
        function.release()
    return output


def _arrays(function: Function, inputs: tuple[Tensor | None, ...]) -> tuple[list[Array | None], np.dtype[Any] | None]:
    """The arrays of ``inputs``, and the floating-point type that they have in common; None if all hold integers."""
    arrays: list[Array | None] = []
    dtype = None
    for position, tensor in enumerate(inputs):
        if tensor is None:
            arrays.append(None)
            continue
        if not isinstance(tensor, Tensor):
            raise TypeError(
                f"{type(function).__name__}: input {position} must be a Tensor, got {type_name(tensor)}; "
                "wrap it: minires.Tensor(...)"
            )
        array = tensor._data
        arrays.append(array)
        if array.dtype is not dtype and array.dtype.kind == "f":
            if dtype is not None and array.dtype != dtype:
                raise TypeError(
                    f"{type(function).__name__}: inputs have different floating-point types: {_listing(inputs)}; "
                    "nothing widens silently: convert one with .astype(...)"
                )
            dtype = array.dtype
    return arrays, dtype


def _is_floating(
    function: Function, output: Tensor, dtype: np.dtype[Any] | None, inputs: tuple[Tensor | None, ...]
) -> bool:
    """Whether ``output`` holds floating-point numbers. Raises TypeError if they are of another type than the inputs."""
    if output.dtype.kind != "f":
        return False
    if dtype is not None and output.dtype != dtype and not function.casts:
        raise TypeError(
            f"{type(function).__name__}: forward made {output.dtype} of {_listing(inputs)}; nothing widens silently: "
            f"return array.astype({dtype})"
        )
    return True


def _one_array(value: Any) -> Array:
    """What forward returned, if it is an array, or a NumPy scalar, which NumPy's arithmetic makes of 0-d arrays."""
    if not isinstance(value, (np.ndarray, np.generic)) and not hasattr(value, "__cuda_array_interface__"):
        raise TypeError(f"got {type(value).__name__}" + ("; use its data" if isinstance(value, Tensor) else ""))
    return value


def _listing(inputs: tuple[Tensor | None, ...]) -> str:
    return ", ".join(f"{tensor.shape} {tensor.dtype}" for tensor in inputs if tensor is not None)


class Tensor(Operators, Conversions):
    """An array that remembers how it was made.

    ``data``: a NumPy or CuPy array, or anything that ``numpy.asarray`` takes; Python numbers become float32 (integers
    stay integers), arrays keep their dtype and aren't copied, except to bring them into native byte order or alignment.
    Raises TypeError for other types than float32, float64, integers and booleans, and for masked arrays that hide
    elements. ``requires_grad``: whether backward shall compute its gradient; only floating-point tensors can.

    Comparisons (``==``, ``<`` ...) are elementwise, as in NumPy, and give a boolean Tensor without a gradient; as a key
    of a dictionary a tensor stands for itself, whatever it holds.
    """

    __slots__ = (
        "__weakref__", "_changed_at", "_data", "_grad", "_hooks", "_requires_grad", "_shares", "creator",
        "retains_grad", "version",
    )  # fmt: skip
    __array_ufunc__ = None  # so that `array + tensor` reaches Tensor.__radd__

    def __init__(self, data: Any, requires_grad: bool = False) -> None:
        self._data: Array = admit(data if isinstance(data, np.ndarray) else _plain(data), "Tensor")
        self._grad: Array | None = None
        self._requires_grad = False
        self.creator: Function | None = None
        self.retains_grad = False
        self._hooks: dict[int, BackwardHook] | None = None
        self._shares: Tensor | None = None
        self.version = -1
        """When it was last changed, on the scale of creation numbers: Functions of smaller ones saw other values."""
        if requires_grad:
            self.requires_grad = True

    # ---------------------------------------------------------------- its numbers

    @property
    def data(self) -> Array:
        """Its numbers: an array. What is assigned goes through the same checks as in ``Tensor(...)``.

        An assignment, ``tensor.data -= step`` too, is noticed by a backward pass whose forward pass saw other numbers:
        it raises RuntimeError. Writing into the array, ``tensor.data[0] = 1``, isn't noticed: call :meth:`changed`
        afterwards, or look for such a line with ``minires.record(check=True)``.
        """
        return self._data

    @data.setter
    def data(self, data: Any) -> None:
        array = admit(_plain(data), "Tensor.data")
        if self.requires_grad and array.dtype.kind != "f":
            raise TypeError(
                f"Tensor.data: a tensor that requires a gradient holds float32 or float64, not {array.dtype}"
            )
        self._data, self._shares = array, None
        self.changed()

    @property
    def grad(self) -> Array | None:
        """Its gradient: an array like ``data`` that backward adds to, or None. Nothing else can be assigned."""
        return self._grad

    @grad.setter
    def grad(self, grad: Array | Tensor | None) -> None:
        self._grad = None if grad is None else self._gradient("Tensor.grad: the gradient", grad)

    @property
    def requires_grad(self) -> bool:
        """Whether backward computes its gradient. A leaf of floating-point numbers may be set to either."""
        return self._requires_grad

    @requires_grad.setter
    def requires_grad(self, requires_grad: bool) -> None:
        if requires_grad and self.dtype.kind != "f":
            raise TypeError(
                f"Tensor: only floating-point tensors can require a gradient, got {self.dtype}; "
                "use array.astype(numpy.float32)"
            )
        if not requires_grad and self.creator is not None:
            raise RuntimeError(
                f"Tensor: what {self.creator!r} made requires a gradient because its inputs do; take a constant of the "
                "same numbers: tensor.detach()"
            )
        self._requires_grad = bool(requires_grad)

    def changed(self, at: tuple[str, int] | None = None) -> None:
        """Say that its numbers have been written to: backward passes that need the former ones will raise.

        Optimizers, ``load_state_dict`` and conversions call it, and so does an assignment to ``data``. ``at``: the file
        and line for the message, for whoever knows it already; by default the line that calls.
        """
        self._changed_at = at or origin_of_call()
        self.version = next(_numbers)

    def changed_at(self) -> str:
        """`` (file:line)`` of its last change, or nothing when that isn't known."""
        return place(self._changed_at) if self.version >= 0 else ""

    # ---------------------------------------------------------------- what it is

    @property
    def device(self) -> str:
        """``"cpu"`` or ``"cuda"``."""
        return device_of(self.data)

    @property
    def is_leaf(self) -> bool:
        """Whether no Function made it: a parameter, an input, a constant."""
        return self.creator is None

    def detach(self) -> Tensor:
        """A tensor of the same data (shared, not copied) that no gradient passes through.

        Of a leaf, such as a parameter, it shares the changes too: a backward pass that needs former numbers raises.
        """
        twin = Tensor(self.data)
        if self.creator is None:  # nothing else is changed in place; and a graph must not live on for it
            twin._shares = self if self._shares is None else self._shares
        return twin

    def __reduce__(self) -> tuple[Any, ...]:
        """For copy and pickle: its array, its gradient and its settings; not its hooks.

        Raises RuntimeError for a tensor that a Function made: a graph can't be copied.
        """
        if self.creator is not None:
            raise RuntimeError(
                f"copy, pickle: the tensor of shape {self.shape} was made by {self.creator!r}{self.creator.where()}, "
                "and its graph can't be copied; take its numbers: tensor.detach(), a leaf"
            )
        content = (self._data, self._grad, self.requires_grad, self.retains_grad)
        return _restored, (type(self), *content), getattr(self, "__dict__", None)

    # ---------------------------------------------------------------- where it is

    def to(self, device: str) -> Tensor:
        """The same tensor on ``"cpu"`` or ``"cuda"``: itself if it is there; else a copy, the gradient comes back.

        Raises ValueError for another device, ImportError or RuntimeError when CuPy or a GPU is missing.
        """
        return self if checked_device(device) == self.device else apply(algebra.Transfer(device), self)

    def cpu(self) -> Tensor:
        """The same tensor in the computer's own memory: ``to("cpu")``."""
        return self.to("cpu")

    def cuda(self) -> Tensor:
        """The same tensor on the GPU: ``to("cuda")``."""
        return self.to("cuda")

    # ---------------------------------------------------------------- backward

    def register_hook(self, hook: BackwardHook) -> HookHandle:
        """Call ``hook(grad)`` in each backward pass, when this tensor's gradient is complete and not yet passed on.

        What it returns, an array of the same shape and dtype, takes the gradient's place: for a leaf in ``grad``,
        otherwise in all that comes after; None leaves it as it is. ``grad`` is a value: read-only, if it is NumPy's.
        Hooks run in the order of registration, before :meth:`retain_grad` keeps the gradient; a tape, which sees the
        contributions as they arrive, records as gradient what the hooks have left. Call ``remove()`` on the handle to
        end it, or use the handle in a ``with`` block.

        >>> x = Tensor([1.0, 2.0], requires_grad=True)
        >>> handle = x.register_hook(lambda grad: grad.clip(-1, 1))
        >>> (x * 3).sum().backward()
        >>> x.grad
        array([1., 1.], dtype=float32)

        Raises RuntimeError when the tensor doesn't require a gradient, TypeError for what can't be called; backward
        raises TypeError or ValueError for a replacement that isn't like the gradient.
        """
        if not self.requires_grad:
            raise RuntimeError(
                "register_hook: the tensor doesn't require a gradient; create it with requires_grad=True"
            )
        if not callable(hook):
            raise TypeError(f"register_hook: expected a function of the gradient, got {type(hook).__name__}")
        if self._hooks is None:
            self._hooks = {}
        return HookHandle(self._hooks, hook)

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
        return self._gradient("backward: the upstream gradient", grad)

    def _gradient(self, name: str, grad: Any) -> Array:
        """``grad``, which a user or a hook has given, as an array like ``data``."""
        return admit_like(self._data, grad.data if isinstance(grad, Tensor) else grad, name)

    def _apply(self, function: Function, *inputs: Tensor) -> Tensor:
        return apply(function, *inputs)

    def _constant(self, array: Array) -> Tensor:
        return Tensor(array)


class Parameter(Tensor):
    """A tensor that is learned: it requires a gradient, and modules and optimizers find it by its type."""

    __slots__ = ()

    def __init__(self, data: Any, requires_grad: bool = True) -> None:
        super().__init__(data, requires_grad)


def _restored(kind: type[Tensor], data: Array, grad: Array | None, requires_grad: bool, retains_grad: bool) -> Tensor:
    tensor = kind.__new__(kind)
    Tensor.__init__(tensor, data, requires_grad)
    tensor.grad, tensor.retains_grad = grad, retains_grad
    return tensor


def _plain(data: Any) -> Array:
    if isinstance(data, Tensor):
        raise TypeError("Tensor: data is a Tensor already; use it as it is, its .detach(), or its .data")
    return to_array(data, "Tensor")
