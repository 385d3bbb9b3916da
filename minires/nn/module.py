"""Module: a layer, a block or a net; a tree whose leaves are parameters and state.

A plain Python class. What an attribute is follows from its type: a Parameter is learned, an array of numbers is state
(running statistics), a Module is a child; a list, tuple or dictionary, nested to any depth, is what it holds, and
everything else is configuration. The order is the order of definition. There is no registration, no
``super().__init__()`` to forget.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np

from minires.dtypes import checked_dtype
from minires.graph import HookHandle, watching
from minires.nn.hooks import Hooks, call_with_hooks
from minires.nn.text import tree_html, tree_text
from minires.nn.tree import PLAIN, closed_items, is_array, is_state, joined, leaves, replaced
from minires.tensor import Parameter, Tensor
from minires_kernels.arrays import Array, array_module, checked_device, on_device
from minires_kernels.fit import unwritable


class Module:
    """Subclass it: set attributes in ``__init__``, write ``forward``; call the instance like a function.

    ``training`` says whether it trains (batch norm, dropout); :meth:`train` and :meth:`eval` set it for the whole tree.

    Raises TypeError where something would be lost without a word: a Parameter or Module on the class instead of the
    instance or in what isn't opened (a set, a view, a UserList, an array of objects), a Tensor in the place of a
    Parameter; ValueError for a child that holds its parent.
    """

    training: bool = True

    _hooks: Hooks | None = None

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        for attribute, value in vars(cls).items():
            for path, item in leaves(attribute, value):
                if isinstance(item, (Parameter, Module)):
                    raise TypeError(
                        f"{cls.__name__}: {path} is a {type(item).__name__} of the class, which all instances would "
                        f"share and none would learn: set self.{attribute} in __init__"
                    )

    def __setattr__(self, name: str, value: Any) -> None:
        if isinstance(self.__dict__.get(name), Parameter) and not (value is None or _learns(value)):
            raise TypeError(
                f"{type(self).__name__}: {name} is a Parameter, and {type(value).__name__} in its place would not be "
                f"learned; write self.{name} = Parameter(...) for a new one, self.{name}.data[...] = ... for new "
                f"numbers, or first del self.{name}"
            )
        object.__setattr__(self, name, value)

    def __call__(self, *inputs: Any, **options: Any) -> Any:
        """What ``forward`` computes; a tape that records learns which module was at work, and hooks are called."""
        watcher, hooks = watching(), self._hooks
        if watcher is None and hooks is None:
            return self.forward(*inputs, **options)
        forward = self.forward if hooks is None else partial(call_with_hooks, self, hooks)
        if watcher is None:
            return forward(*inputs, **options)
        watcher.enter(self)  # a tape names what happens inside by the module's path
        try:
            return forward(*inputs, **options)
        finally:
            watcher.leave(self)

    def forward(self, *inputs: Any, **options: Any) -> Any:
        """What the module computes: to be written by each subclass."""
        raise TypeError(f"{type(self).__name__} can't be called: it has no forward; write def forward(self, x)")

    # ---------------------------------------------------------------- the tree

    def _attributes(self) -> Iterator[tuple[str, Any]]:
        """(name, value) of each attribute: what a module has, by the names under which it is listed."""
        return iter(vars(self).items())

    def _values(self) -> Iterator[tuple[str, Any]]:
        """The same with lists, tuples and dictionaries opened, and without plain values.

        Raises TypeError for modules and parameters in what isn't opened.
        """
        for name, value in self._attributes():
            if type(value) in PLAIN:
                continue
            for path, item in leaves(name, value):
                if not isinstance(item, (Tensor, Module)) and any(map(_learns, closed_items(item))):
                    raise TypeError(
                        f"{type(self).__name__}: {path} is a {type(item).__name__}, so the modules or parameters in it "
                        "wouldn't be found; keep them in a list or a dictionary"
                    )
                yield path, item

    def _children(self) -> Iterator[tuple[str, Module]]:
        return ((name, value) for name, value in self._values() if isinstance(value, Module))

    def _walk(
        self, path: str, seen: set[int] | None = None, above: tuple[tuple[str, Module], ...] = ()
    ) -> Iterator[tuple[str, Module, list[tuple[str, Any]]]]:
        """(path, module, its values) of this one and all below, parents first; with ``seen``, each module once."""
        for place, module in above:
            if module is self:
                raise ValueError(
                    f"{type(above[0][1]).__name__}: {path} is {place or 'the net'} again, which holds it: modules are "
                    "a tree, and a child can't hold its parent; keep weakref.ref(parent), or pass to the child's "
                    "forward what it needs"
                )
        if seen is not None:
            if id(self) in seen:
                return
            seen.add(id(self))
        values = list(self._values())
        yield path, self, values
        for name, value in values:
            if isinstance(value, Module):
                yield from value._walk(joined(path, name), seen, (*above, (path, self)))

    def _named_values(self) -> Iterator[tuple[str, Any]]:
        """(path, value) of every parameter and all state; what is shared comes under each of its paths."""
        taken: set[str] = set()
        for path, module, values in self._walk(""):
            for name, value in values:
                if not (isinstance(value, Parameter) or is_state(value)):
                    if name not in vars(module):  # an attribute may well be a result; an item of a container is kept
                        _refuse_lost(module, joined(path, name), value)
                    continue
                place = joined(path, name)
                if place in taken:
                    raise ValueError(
                        f"{type(self).__name__}: two values would have the name {place}; rename one of the attributes "
                        "or keys that lead to them"
                    )
                taken.add(place)
                yield place, value

    def named_children(self) -> Iterator[tuple[str, Module]]:
        """(name, module) of each direct child, each once; those in a list are named ``list.0``, ``list.1``, ..."""
        return _once(self._children())

    def named_modules(self, prefix: str = "") -> Iterator[tuple[str, Module]]:
        """(path, module) of this module and all below it, each once, parents first; this one's path is ``prefix``."""
        return ((path, module) for path, module, _ in self._walk(prefix, set()))

    def modules(self) -> Iterator[Module]:
        """This module and all below it, each once, parents first."""
        return (module for _, module in self.named_modules())

    def named_parameters(self) -> Iterator[tuple[str, Parameter]]:
        """(path, parameter) of all parameters, each once, in order of definition."""
        return _once((path, value) for path, value in self._named_values() if isinstance(value, Parameter))

    def parameters(self) -> Iterator[Parameter]:
        """All parameters, each once, in order of definition."""
        return (parameter for _, parameter in self.named_parameters())

    def named_buffers(self) -> Iterator[tuple[str, Array]]:
        """(path, array) of all state, each once: arrays that aren't learned, such as running statistics."""
        return _once((path, value) for path, value in self._named_values() if not isinstance(value, Parameter))

    # ---------------------------------------------------------------- modes

    def train(self, training: bool = True) -> Module:
        """Set ``training`` for this module and, through their own ``train``, for its children. Returns the module.

        A module that shall never train (a frozen batch norm) is put into evaluation mode afterwards, or overrides
        ``train``. Raises TypeError for anything but True and False.
        """
        if not isinstance(training, (bool, np.bool_)):
            raise TypeError(f"train: expected True or False, got {training!r}; train(False) is evaluation mode")
        for _ in self.modules():
            pass  # raises, before anything is set, where a child holds its parent
        self.training = bool(training)
        for _, child in self.named_children():
            child.train(training)
        return self

    def eval(self) -> Module:
        """Evaluation mode: :meth:`train` with False. Returns the module."""
        return self.train(False)

    @contextmanager
    def keep_modes(self) -> Iterator[Module]:
        """Whatever mode the block puts modules into: afterwards each one is in its own again.

        >>> with net.keep_modes(), minires.no_grad():
        ...     logits = net.eval()(images)
        """
        before = [(module, module.training) for module in self.modules()]
        try:
            yield self
        finally:
            for module, training in before:
                module.training = training

    def zero_grad(self) -> None:
        """Forget the gradients of all parameters."""
        for parameter in self.parameters():
            parameter.grad = None

    def astype(self, dtype: Any) -> Module:
        """Convert all floating-point parameters and state to ``dtype``, in place. Returns the module.

        Raises TypeError for anything but float32 and float64.
        """
        dtype = checked_dtype(dtype, "astype")
        if dtype.kind != "f":
            raise TypeError(f"astype: weights are float32 or float64, and {dtype} would cut off their fractions")
        return self._convert(lambda array: array.astype(dtype, copy=False) if array.dtype.kind == "f" else array)

    def to(self, device: str) -> Module:
        """Move all parameters and state to ``"cpu"`` or ``"cuda"``, in place. Returns the module."""
        checked_device(device)
        return self._convert(lambda array: on_device(array, device))

    def _convert(self, convert: Callable[[Array], Array]) -> Module:
        converted: dict[int, tuple[Array, Array]] = {}  # by the old one's id: an array in two places stays one

        def change(value: Any) -> Any:
            if isinstance(value, Parameter):
                data = change(value.data)
                if data is not value.data:  # what stays as it is keeps its gradient, and hasn't changed
                    value.data, value.grad = data, None
            elif is_state(value):
                if id(value) not in converted:
                    converted[id(value)] = value, convert(value)
                return converted[id(value)][1]
            return value

        for module in self.modules():
            for name, value in list(vars(module).items()):
                if (new := replaced(value, change)) is not value:
                    setattr(module, name, new)
        return self

    # ---------------------------------------------------------------- state

    def state_dict(self) -> dict[str, Array]:
        """Path -> array, a copy of every parameter and all state, with torchvision's names for torchvision's nets."""
        return {path: array.copy() for path, array in self._named_arrays()}

    def load_state_dict(self, state: Mapping[str, Any], *, strict: bool = True) -> None:
        """Copy ``state`` (path -> array) into this module's parameters and state, cast to their dtypes.

        Everything is checked before anything is written. Raises ValueError that lists all missing and unexpected names
        (unless ``strict`` is False), each unexpected one with the nearest name that the module has, and (always) all
        wrong shapes, all values that aren't numbers, all that whole numbers can't hold, and all arrays of the module
        that can't be written; TypeError for a state that is no dictionary.
        """
        if not isinstance(state, Mapping):
            raise TypeError(
                f"load_state_dict: expected a dictionary as state_dict gives it, got {type(state).__name__}; from a "
                "file: load_checkpoint(path).state"
            )
        state = {name: value.data if isinstance(value, Tensor) else value for name, value in state.items()}
        own = dict(self._named_arrays())
        problems = _problems(own, state, strict)
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
        return ((path, value.data if isinstance(value, Parameter) else value) for path, value in self._named_values())

    # ---------------------------------------------------------------- hooks

    def register_forward_pre_hook(self, hook: Callable[[Module, tuple[Any, ...]], Any]) -> HookHandle:
        """Have ``hook(module, inputs)`` called before each forward pass; what it returns, if not None, are the inputs.

        ``inputs`` are the positional arguments. ``handle.remove()`` ends it.
        """
        return self._hook("before", hook)

    def register_forward_hook(self, hook: Callable[[Module, tuple[Any, ...], Any], Any]) -> HookHandle:
        """Have ``hook(module, inputs, output)`` called after each forward pass; a result but None is the output.

        >>> seen = {}
        >>> handle = net.layer1.register_forward_hook(lambda module, inputs, output: seen.update(y=output.data))
        >>> logits = net(images)
        >>> handle.remove()
        >>> seen["y"].shape
        (1, 2, 8, 8)
        """
        return self._hook("after", hook)

    def register_full_backward_hook(
        self, hook: Callable[[Module, tuple[Array | None, ...], tuple[Array | None, ...]], Any]
    ) -> HookHandle:
        """Have ``hook(module, grad_input, grad_output)`` called when a backward pass has come through the module.

        ``grad_input`` has one array per positional input, None where it has no gradient; ``grad_output`` one per tensor
        of the output. What the hook returns, if not None, are the input's gradients from there on: a tuple like
        ``grad_input``. Backward raises ValueError when it isn't. Arrays are values: don't write into them.
        """
        return self._hook("backward", hook)

    def _hook(self, moment: str, hook: Callable[..., Any]) -> HookHandle:
        if not callable(hook):
            raise TypeError(f"{type(self).__name__}: a hook is a function, got {type(hook).__name__}")
        if self._hooks is None:
            self._hooks = Hooks()
        return self._hooks.add(moment, hook)

    def __getstate__(self) -> dict[str, Any]:
        """Its attributes, for copy and pickle. Raises RuntimeError for one that is a tensor with a graph."""
        for name, value in self._values():
            if isinstance(value, Tensor) and not value.is_leaf:
                raise RuntimeError(
                    f"copy, pickle: {type(self).__name__}.{name} is a tensor of shape {value.shape} made by "
                    f"{value.creator!r}, and a graph can't be copied; keep its numbers alone: .detach()"
                )
        return vars(self)

    # ---------------------------------------------------------------- text

    def configuration(self) -> str:
        """What stands in the parentheses of its repr: the settings that aren't arrays, parameters or children."""
        return ", ".join(
            f"{name}={value!r}"
            for name, value in vars(self).items()
            if name != "training" and name[0] != "_" and isinstance(value, (bool, int, float, str, tuple))
            if not any(leaves(name, value))
        )

    def __repr__(self) -> str:
        return tree_text(self)

    def _repr_html_(self) -> str:
        return tree_html(self)


def _learns(value: Any) -> bool:
    """Whether ``value`` is a parameter or module, or a container with one."""
    return any(isinstance(item, (Parameter, Module)) for _, item in leaves("", value))


def _refuse_lost(module: Module, path: str, value: Any) -> None:
    """Raise TypeError for a leaf with a gradient that is no Parameter: in a container, it once was one, or should be.

    What a Function made is an activation that somebody collects, to look at it.
    """
    if isinstance(value, Tensor) and value.requires_grad and value.creator is None:
        raise TypeError(
            f"{type(module).__name__}: {path} is a Tensor of shape {value.shape} that requires a gradient, but would "
            "not be learned; write Parameter(...) for what shall be, .data[...] = ... for new numbers of a Parameter, "
            ".detach() for a constant"
        )


def _once(named: Iterator[tuple[str, Any]]) -> Iterator[tuple[str, Any]]:
    """Of each object the first (name, object)."""
    seen: set[int] = set()
    for name, item in named:
        if id(item) not in seen:
            seen.add(id(item))
            yield name, item


def _problems(own: Mapping[str, Array], state: Mapping[str, Any], strict: bool) -> list[str]:
    """All that keeps ``state`` from being copied into the arrays ``own``, in words."""
    missing = [name for name in own if name not in state]
    unexpected = [name for name in state if name not in own]
    shared = {name: array for name, array in own.items() if name in state}
    numbers = {name: _as_numbers(state[name]) for name in shared}
    wrong = [
        f"{name}: {given.shape} instead of {shared[name].shape}"
        for name, given in numbers.items()
        if given is not None and given.shape != shared[name].shape
    ]
    strange = [f"{name} ({type(state[name]).__name__})" for name, given in numbers.items() if given is None]
    broken = [
        f"{name}: {given.dtype} into {shared[name].dtype}"
        for name, given in numbers.items()
        if given is not None and given.shape == shared[name].shape and not _holds(shared[name], given)
    ]
    fixed = [f"{name} {reason}" for name, array in shared.items() if (reason := unwritable(array))]
    problems = []
    if strict and missing:
        problems.append(f"missing: {', '.join(missing)}")
    if strict and unexpected:
        known = missing or list(own)
        problems.append("unexpected: " + ", ".join(f"{name}{_hint(str(name), known)}" for name in unexpected))
    for what, names in (("wrong shape", wrong), ("not numbers", strange), ("not whole numbers", broken)):
        if names:
            problems.append(f"{what}: {', '.join(names)}")
    if fixed:
        problems.append(f"can't be written: {', '.join(fixed)}; give the module a copy of it, array.copy()")
    return problems


def _as_numbers(value: Any) -> Array | None:
    """``value`` as an array, or None when it doesn't hold numbers."""
    try:
        array = value if is_array(value) else np.asarray(value)
    except (TypeError, ValueError, RuntimeError):  # lists of unequal lengths, another library's tensors
        return None
    return array if is_state(array) else None


def _holds(array: Array, given: Array) -> bool:
    """Whether the dtype of ``array`` can hold ``given``: fractions and NaN don't fit into integers."""
    if array.dtype.kind == "f" or given.dtype.kind != "f":
        return True
    return bool((abs(given) < 2**63).all() and (given == given.round()).all())


def _hint(name: str, known: list[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1)
    return f" (did you mean {close[0]}?)" if close else ""
