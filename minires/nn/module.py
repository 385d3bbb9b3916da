"""Module: a layer, a block or a net; a tree whose leaves are parameters and state.

A plain Python class. What an attribute is follows from its type: a Parameter is learned, an array is state (running
statistics), a Module is a child, a list or tuple of Modules is children, everything else is configuration. The order is
the order of definition. There is no registration, no ``super().__init__()`` to forget.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from minires.dtypes import checked_dtype
from minires.graph import watching
from minires.tensor import Parameter, Tensor
from minires_kernels.arrays import Array, array_module, checked_device, on_device
from minires_kernels.fit import unwritable


class Module:
    """Subclass it: set attributes in ``__init__``, write ``forward``; call the instance like a function.

    ``training`` says whether it trains (batch norm, dropout); :meth:`train` and :meth:`eval` set it for the whole tree.
    """

    training: bool = True

    forward: Callable[..., Any]

    def __call__(self, *inputs: Any, **options: Any) -> Any:
        """What ``forward`` computes; a tape that records learns which module was at work."""
        watcher = watching()
        if watcher is None:
            return self.forward(*inputs, **options)
        watcher.enter(self)  # a tape names what happens inside by the module's path
        try:
            return self.forward(*inputs, **options)
        finally:
            watcher.leave(self)

    # ---------------------------------------------------------------- the tree

    def named_children(self) -> Iterator[tuple[str, Module]]:
        """(name, module) of each direct child; the members of a list are named ``list.0``, ``list.1``, ..."""
        for name, value in vars(self).items():
            if isinstance(value, Module):
                yield name, value
            elif isinstance(value, (list, tuple)):
                yield from ((f"{name}.{i}", item) for i, item in enumerate(value) if isinstance(item, Module))

    def named_modules(self, prefix: str = "") -> Iterator[tuple[str, Module]]:
        """(path, module) of this module and all below it, parents first; the path of this one is ``prefix``."""
        yield prefix, self
        for name, child in self.named_children():
            yield from child.named_modules(f"{prefix}.{name}" if prefix else name)

    def modules(self) -> Iterator[Module]:
        """This module and all below it, parents first."""
        return (module for _, module in self.named_modules())

    def named_parameters(self) -> Iterator[tuple[str, Parameter]]:
        """(path, parameter) of all parameters, each once, in order of definition."""
        seen: set[int] = set()
        for path, module in self.named_modules():
            for name, value in vars(module).items():
                if isinstance(value, Parameter) and id(value) not in seen:
                    seen.add(id(value))
                    yield (f"{path}.{name}" if path else name), value

    def parameters(self) -> Iterator[Parameter]:
        """All parameters, each once, in order of definition."""
        return (parameter for _, parameter in self.named_parameters())

    def named_buffers(self) -> Iterator[tuple[str, Array]]:
        """(path, array) of all state: arrays that aren't learned, such as running statistics."""
        for path, module in self.named_modules():
            for name, value in vars(module).items():
                if _is_array(value):
                    yield (f"{path}.{name}" if path else name), value

    # ---------------------------------------------------------------- modes

    def train(self, training: bool = True) -> Module:
        """Set ``training`` for this module and all below it. Returns the module."""
        for module in self.modules():
            module.training = training
        return self

    def eval(self) -> Module:
        """Evaluation mode: :meth:`train` with False. Returns the module."""
        return self.train(False)

    def zero_grad(self) -> None:
        """Forget the gradients of all parameters."""
        for parameter in self.parameters():
            parameter.grad = None

    def astype(self, dtype: Any) -> Module:
        """Convert all floating-point parameters and state to ``dtype``, in place. Returns the module."""
        dtype = checked_dtype(dtype, "astype")
        return self._convert(lambda array: array.astype(dtype, copy=False) if array.dtype.kind == "f" else array)

    def to(self, device: str) -> Module:
        """Move all parameters and state to ``"cpu"`` or ``"cuda"``, in place. Returns the module."""
        checked_device(device)
        return self._convert(lambda array: on_device(array, device))

    def _convert(self, convert: Any) -> Module:
        for module in self.modules():
            for name, value in vars(module).items():
                if isinstance(value, Parameter):
                    converted = convert(value.data)
                    if converted is not value.data:  # what stays as it is keeps its gradient, and hasn't changed
                        value.data, value.grad = converted, None
                elif _is_array(value):
                    setattr(module, name, convert(value))
        return self

    # ---------------------------------------------------------------- state

    def state_dict(self) -> dict[str, Array]:
        """Path -> array, a copy of every parameter and all state, with torchvision's names for torchvision's nets."""
        return {path: array.copy() for path, array in self._named_arrays()}

    def load_state_dict(self, state: Mapping[str, Any], *, strict: bool = True) -> None:
        """Copy ``state`` (path -> array) into this module's parameters and state, cast to their dtypes.

        Everything is checked before anything is written. Raises ValueError that lists all missing and unexpected names
        (unless ``strict`` is False), each unexpected one with the nearest name that the module has, and (always) all
        wrong shapes, all values that aren't numbers, and all arrays of the module that can't be written.
        """
        own = dict(self._named_arrays())
        missing = [name for name in own if name not in state]
        unexpected = [name for name in state if name not in own]
        wrong = [
            f"{name}: {np.shape(state[name])} instead of {array.shape}"
            for name, array in own.items()
            if name in state and np.shape(state[name]) != array.shape
        ]
        strange = [name for name in own if name in state and not _is_numeric(state[name])]
        fixed = [f"{name} {reason}" for name, array in own.items() if name in state and (reason := unwritable(array))]
        problems = []
        if strict and missing:
            problems.append(f"missing: {', '.join(missing)}")
        if strict and unexpected:
            problems.append("unexpected: " + ", ".join(name + _hint(name, missing or list(own)) for name in unexpected))
        if wrong:
            problems.append("wrong shape: " + ", ".join(wrong))
        if strange:
            problems.append("not numbers: " + ", ".join(strange))
        if fixed:
            problems.append(f"can't be written: {', '.join(fixed)}; give the module a copy of it, array.copy()")
        if problems:
            raise ValueError(f"load_state_dict: {type(self).__name__} doesn't fit; {'; '.join(problems)}")
        # Copies, since a value may itself be an array of this module; and all of them first, since one may fail.
        values = {
            name: array_module(array).array(state[name], array.dtype) for name, array in own.items() if name in state
        }
        for name, value in values.items():
            own[name][...] = value
        for parameter in self.parameters():
            parameter.changed()

    def _named_arrays(self) -> Iterator[tuple[str, Array]]:
        """(path, array) of every parameter and all state; what is shared comes under each of its paths."""
        for path, module in self.named_modules():
            for name, value in vars(module).items():
                array = value.data if isinstance(value, Parameter) else value
                if _is_array(array):
                    yield (f"{path}.{name}" if path else name), array

    def __getstate__(self) -> dict[str, Any]:
        """Its attributes, for copy and pickle. Raises RuntimeError for one that is a tensor with a graph."""
        for name, value in vars(self).items():
            if isinstance(value, Tensor) and not value.is_leaf:
                raise RuntimeError(
                    f"copy, pickle: {type(self).__name__}.{name} is a tensor of shape {value.shape} made by "
                    f"{value.creator!r}, and a graph can't be copied; keep its numbers alone: .detach()"
                )
        return vars(self)

    # ---------------------------------------------------------------- text

    def configuration(self) -> str:
        """What stands in the parentheses of its repr: the settings that aren't arrays, parameters or children."""
        plain = (bool, int, float, str, tuple)
        return ", ".join(
            f"{name}={value!r}"
            for name, value in vars(self).items()
            if name != "training" and name[0] != "_" and isinstance(value, plain) and not _holds_modules(value)
        )

    def __repr__(self) -> str:
        children = [f"  ({name}): " + repr(child).replace("\n", "\n  ") for name, child in self.named_children()]
        body = "\n" + "\n".join(children) + "\n" if children else self.configuration()
        return f"{type(self).__name__}({body})"


def _is_array(value: Any) -> bool:
    return isinstance(value, np.ndarray) or (
        hasattr(value, "__cuda_array_interface__") and not isinstance(value, Tensor)
    )


def _is_numeric(value: Any) -> bool:
    return (value if _is_array(value) else np.asarray(value)).dtype.kind in "fiub"


def _holds_modules(value: Any) -> bool:
    return isinstance(value, tuple) and any(isinstance(item, Module) for item in value)


def _hint(name: str, known: list[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1)
    return f" (did you mean {close[0]}?)" if close else ""
