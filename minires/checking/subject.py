"""What a gradient check looks at: a function of float64 arrays that can be evaluated and differentiated.

Three kinds of code can be checked: functions of Tensors (and Modules) here, functions of NumPy arrays and of torch
tensors in :mod:`minires.checking.foreign`. They all look alike to the checker: named variables, a value, gradients.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from minires.algebra import sum_to_shape
from minires.checking.kinks import Choices, choices_of, graph_of
from minires.function import Function
from minires.graph import BackwardResultError, watch
from minires.nn import Module
from minires.nn.tree import is_state, leaves, replaced
from minires.tensor import Tensor, apply
from minires_kernels.arrays import Array, to_cpu


@dataclass(frozen=True)
class Variable:
    """One array that the function depends on: the checker moves its elements and puts them back."""

    name: str
    array: Array
    given_dtype: np.dtype[Any]


@dataclass(frozen=True)
class Evaluation:
    """A value of the function, and which side of every kink it was computed on (empty when that isn't known)."""

    output: Array
    choices: Choices


class Subject(Protocol):
    """A function under check. Every evaluation starts from the same state, so that only the variables matter."""

    name: str
    variables: list[Variable]

    def evaluate(self) -> Evaluation:
        """The value at the variables' present elements."""

    def gradients(self, upstream: Array) -> list[Array | None]:
        """The gradient of sum(upstream * value) for each variable; None where no gradient arrives."""

    def contributions(self, upstream: Array) -> list[list[Array]]:
        """For each variable, what each of its uses sent back; empty lists where that can't be known."""

    def source(self) -> str:
        """``file:line`` of the code that is at work, once gradients were computed; empty when it isn't known."""

    def close(self) -> None:
        """Put everything back that was changed for the check."""


class TensorSubject:
    """A callable of Tensors. Inputs are copied; parameters and module state become float64 until :meth:`close`."""

    def __init__(
        self,
        fn: Callable[..., Any],
        inputs: tuple[Any, ...],
        parameters: Module | Mapping[str, Tensor] | Iterable[Tensor],
        dtype: Any = np.float64,
    ) -> None:
        self._fn = _function_applier(fn) if _is_function_class(fn) else fn
        self.name = name_of(fn)
        self._arguments: list[Any] = []
        self._tensors: list[Tensor] = []
        self.variables: list[Variable] = []
        self._source = ""
        for position, value in enumerate(inputs):
            array = value.data if isinstance(value, Tensor) else value
            if not hasattr(array, "dtype") or array.dtype.kind in "iub":
                self._arguments.append(value)
                continue
            if array.dtype.kind != "f":
                raise TypeError(f"gradcheck: input {position} is {array.dtype}; only real numbers can be checked")
            tensor = Tensor(array.astype(dtype), requires_grad=True)
            self._arguments.append(tensor)
            self._add(input_name(fn, position), tensor, array.dtype)
        modules = [root for root in (fn, parameters) if isinstance(root, Module)]
        self._state = _State(modules)
        named = dict(_named(parameters))
        for root in modules:
            named.update(root.named_parameters())
        self._originals = [(tensor, tensor.data, tensor.grad, tensor.version) for tensor in named.values()]
        for name, tensor in named.items():
            given = tensor.dtype
            tensor.data = tensor.data.astype(dtype)
            self._add(name, tensor, given)
        self._state.convert(dtype)
        if not self.variables:
            self.close()
            raise TypeError("gradcheck: none of the inputs is a floating-point Tensor or array: nothing to check")
        self._names = {
            id(tensor): variable.name for tensor, variable in zip(self._tensors, self.variables, strict=True)
        }

    def _add(self, name: str, tensor: Tensor, given_dtype: Any) -> None:
        self._tensors.append(tensor)
        self.variables.append(Variable(name, tensor.data, given_dtype))

    def _call(self) -> Tensor:
        self._state.reset()
        output = self._fn(*self._arguments)
        if not isinstance(output, Tensor):
            raise TypeError(
                f"gradcheck: {self.name} must return one Tensor, got {type(output).__name__}; "
                "to check one of several results, pass a lambda that picks it"
            )
        if output.dtype.kind != "f":
            raise TypeError(f"gradcheck: {self.name} returned {output.dtype}; only real results have a gradient")
        return output

    def evaluate(self) -> Evaluation:
        """See :class:`Subject`."""
        output = self._call()
        # A copy, since a result may be a view of a variable, which the checker is about to move.
        return Evaluation(to_cpu(output.data).copy(), choices_of(output, self._names))

    def gradients(self, upstream: Array) -> list[Array | None]:
        """See :class:`Subject`. Computed twice from one graph: a backward that damages what it saved differs then."""
        output = self._call()
        if not output.requires_grad:
            return [None] * len(self.variables)
        self._source = _source(self._fn, graph_of(output))
        kept = upstream.copy()
        first = self._backward(output, upstream, retain_graph=True)
        if not np.array_equal(upstream, kept):
            raise DamageError("backward writes into its upstream gradient: other nodes may need it, work on a copy")
        second = self._backward(output, upstream, retain_graph=False)
        for variable, one, two in zip(self.variables, first, second, strict=True):
            if one is not None and two is not None and not np.array_equal(one, two, equal_nan=True):
                raise DamageError(
                    f"{self.name}: a second backward through the same graph gives another gradient of {variable.name}: "
                    "some backward writes into an array that it was given or has saved, or draws random numbers"
                )
        return first

    def _backward(self, output: Tensor, upstream: Array, retain_graph: bool) -> list[Array | None]:
        for tensor in self._tensors:
            tensor.grad = None
        try:
            output.backward(upstream, retain_graph=retain_graph)
        except BackwardResultError as error:
            raise self._misshapen(str(error), output, upstream) from error
        return [tensor.grad for tensor in self._tensors]

    def _misshapen(self, message: str, output: Tensor, upstream: Array) -> MisshapenError:
        """What to say of a backward that the engine refused; for a single Function, also its gradients, summed."""
        node = output.creator
        if node is None or any(tensor is not None and not tensor.is_leaf for tensor in node.inputs):
            return MisshapenError(message, None, "")
        grads = node.backward(upstream)
        if not isinstance(grads, tuple) or not all(grad is None or hasattr(grad, "shape") for grad in grads):
            return MisshapenError(message, None, "")
        sources = {id(source): grad for source, grad in zip(node.inputs, grads, strict=False)}
        summed: list[Array | None] = []
        axes = []
        for variable, tensor in zip(self.variables, self._tensors, strict=True):
            grad, shape = sources.get(id(tensor)), tensor.shape
            if grad is not None and grad.shape != shape:
                try:
                    fits = np.broadcast_shapes(grad.shape, shape) == grad.shape
                except ValueError:
                    fits = False
                if not fits:
                    return MisshapenError(message, None, "")
                padded = (1,) * (grad.ndim - len(shape)) + shape
                over = [i for i, (one, two) in enumerate(zip(grad.shape, padded, strict=True)) if one != two]
                axes.append(f"axes {over} of the gradient of {variable.name}" if len(over) > 1 else
                            f"axis {over[0]} of the gradient of {variable.name}")  # fmt: skip
                grad = sum_to_shape(grad, shape)
            summed.append(grad)
        return MisshapenError(message, summed if axes else None, " and ".join(axes))

    def contributions(self, upstream: Array) -> list[list[Array]]:
        """See :class:`Subject`."""
        listener = _Contributions()
        with watch(listener):
            output = self._call()
            if output.requires_grad:
                output.backward(upstream.copy())
        return [listener.of.get(id(tensor), []) for tensor in self._tensors]

    def source(self) -> str:
        """See :class:`Subject`."""
        return self._source

    def close(self) -> None:
        """See :class:`Subject`: the parameters and state hold the very arrays that they held before."""
        for tensor, data, grad, version in self._originals:
            tensor.data, tensor.grad, tensor.version = data, grad, version
        self._state.restore()


class DamageError(Exception):
    """Backward isn't a function of its arguments: what it says is in the message."""


class MisshapenError(Exception):
    """Backward returned something that the engine refuses. ``summed``: its gradients, broadcast axes summed away."""

    def __init__(self, message: str, summed: list[Array | None] | None, axes: str) -> None:
        super().__init__(message)
        self.summed, self.axes = summed, axes


class _Contributions:
    """A watcher that keeps what each use of a tensor sent back."""

    def __init__(self) -> None:
        self.of: dict[int, list[Array]] = {}

    def on_contribution(self, tensor: Tensor, consumer: Function | None, slot: int, grad: Array) -> None:
        if tensor.is_leaf:
            self.of.setdefault(id(tensor), []).append(grad)

    def on_forward(self, function: Function, inputs: tuple[Tensor | None, ...], output: Tensor) -> None: ...
    def on_gradient(self, tensor: Tensor, grad: Array) -> None: ...
    def on_release(self, function: Function) -> None: ...
    def enter(self, module: Any) -> None: ...
    def leave(self, module: Any) -> None: ...


class _State:
    """What modules carry from call to call: arrays (running statistics) and random generators."""

    def __init__(self, roots: list[Module]) -> None:
        self._modules = list({id(module): module for root in roots for module in root.modules()}.values())
        self._generators = [
            (item, item.bit_generator.state)
            for module in self._modules
            for name, value in vars(module).items()
            for _, item in leaves(name, value)
            if isinstance(item, np.random.Generator)
        ]
        self._attributes: list[tuple[Module, str, Any]] = []
        self._copies: list[tuple[Array, Array]] = []

    def convert(self, dtype: Any) -> None:
        def converted(value: Any) -> Any:
            if not is_state(value):
                return value
            array = value.astype(dtype) if value.dtype.kind == "f" else value.copy()
            self._copies.append((array, array.copy()))
            return array

        for module in self._modules:
            for name, value in list(vars(module).items()):
                if (new := replaced(value, converted)) is not value:
                    self._attributes.append((module, name, value))
                    setattr(module, name, new)

    def reset(self) -> None:
        for array, copy in self._copies:
            array[...] = copy
        for generator, state in self._generators:
            generator.bit_generator.state = state

    def restore(self) -> None:
        for module, name, value in self._attributes:
            setattr(module, name, value)
        for generator, state in self._generators:
            generator.bit_generator.state = state


def _named(parameters: Module | Mapping[str, Tensor] | Iterable[Tensor]) -> Iterator[tuple[str, Tensor]]:
    if isinstance(parameters, Module):
        return
    pairs = (
        parameters.items()
        if isinstance(parameters, Mapping)
        else ((f"parameter {i}", parameter) for i, parameter in enumerate(parameters))
    )
    for name, parameter in pairs:
        if not isinstance(parameter, Tensor) or not parameter.requires_grad:
            raise TypeError(f"gradcheck: {name} must be a Tensor that requires a gradient, got {parameter!r}")
        yield name, parameter


def input_name(fn: Any, position: int) -> str:
    """The name of ``fn``'s parameter at ``position``, as far as its code says."""
    code = getattr(fn.forward if isinstance(fn, Module) or _is_function_class(fn) else fn, "__code__", None)
    if code is None:
        return f"input {position}"
    bound = int(isinstance(fn, Module) or _is_function_class(fn) or hasattr(fn, "__self__"))
    names = code.co_varnames[bound : code.co_argcount]
    return names[position] if position < len(names) else f"input {position}"


def name_of(fn: Any) -> str:
    """What to call a function in a message."""
    if isinstance(fn, Module):
        return type(fn).__name__
    return str(getattr(fn, "__qualname__", type(fn).__name__)).replace("<locals>.", "").replace("<lambda>", "lambda")


def _source(fn: Any, nodes: list[Function]) -> str:
    """``file:line``: of backward, when a single kind of Function is at work; else of the function itself."""
    kinds = {type(node) for node in nodes}
    return source_of(kinds.pop().backward if len(kinds) == 1 else fn.forward if isinstance(fn, Module) else fn)


def source_of(fn: Any) -> str:
    """``file:line`` where ``fn`` is defined, relative to the working directory if it lies below; or nothing."""
    code = getattr(fn, "__code__", None)
    if code is None:
        return ""
    path = os.path.relpath(code.co_filename)
    return f"{code.co_filename if path.startswith('..') else path}:{code.co_firstlineno}"


def _is_function_class(fn: Any) -> bool:
    return isinstance(fn, type) and issubclass(fn, Function)


def _function_applier(function: Any) -> Callable[..., Tensor]:
    return lambda *tensors: apply(function(), *tensors)
