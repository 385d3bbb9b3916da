"""Hooks: functions of the user's that a module calls before and after its forward pass, and in the backward pass."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from minires.function import Function
from minires.graph import HookHandle, tracking
from minires.nn.tree import leaves, replaced
from minires.tensor import Tensor, apply
from minires_kernels.arrays import Array, array_module

if TYPE_CHECKING:
    from minires.nn.module import Module

Grads = tuple[Array | None, ...]


class Hooks:
    """The hooks of one module, in the order of their registration."""

    def __init__(self) -> None:
        self.before: dict[int, Callable[..., Any]] = {}
        self.after: dict[int, Callable[..., Any]] = {}
        self.backward: dict[int, Callable[..., Any]] = {}

    def add(self, moment: str, hook: Callable[..., Any]) -> HookHandle:
        """Register ``hook`` for ``moment``: before, after or backward."""
        return HookHandle(getattr(self, moment), hook)


def call_with_hooks(module: Module, hooks: Hooks, *inputs: Any, **options: Any) -> Any:
    """What ``module.forward`` computes, with ``hooks`` called around it (a copy: a hook may remove itself)."""
    for hook in tuple(hooks.before.values()):
        changed = hook(module, inputs)
        if changed is not None:
            inputs = changed if isinstance(changed, tuple) else (changed,)
    backward = _BackwardHooks(module, hooks) if hooks.backward and tracking() else None
    if backward is not None:
        inputs = backward.watch_inputs(inputs)
    output = module.forward(*inputs, **options)
    for hook in tuple(hooks.after.values()):
        changed = hook(module, inputs, output)
        if changed is not None:
            output = changed
    return output if backward is None else backward.watch_output(output)


class _BackwardHooks:
    """The backward hooks of one call of a module: first its outputs' gradients come together, later its inputs'."""

    def __init__(self, module: Module, hooks: Hooks) -> None:
        self._module, self._hooks = module, hooks
        self._grad_output: Grads = ()

    def watch_inputs(self, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        self._count = len(inputs)
        self._slots = [slot for slot, x in enumerate(inputs) if _is_watched(x)]
        passed = list(inputs)
        for slot, tensor in zip(self._slots, _together([inputs[i] for i in self._slots], self._at_inputs), strict=True):
            passed[slot] = tensor
        return tuple(passed)

    def watch_output(self, output: Any) -> Any:
        tensors = [item for _, item in leaves("", output) if isinstance(item, Tensor)]
        self._output_slots = [slot for slot, tensor in enumerate(tensors) if _is_watched(tensor)]
        self._output_count = len(tensors)
        passed = iter(_together([tensors[slot] for slot in self._output_slots], self._at_outputs))
        return replaced(output, lambda item: next(passed) if _is_watched(item) else item)

    def _at_outputs(self, grads: Grads) -> Grads:
        self._grad_output = _spread(grads, self._output_slots, self._output_count)
        if not self._slots:  # only parameters are behind: nothing will come back to the inputs
            self._call((None,) * self._count)
        return grads

    def _at_inputs(self, grads: Grads) -> Grads:
        changed = self._call(_spread(grads, self._slots, self._count))
        return tuple(changed[slot] for slot in self._slots)

    def _call(self, grad_input: Grads) -> Grads:
        for hook in tuple(self._hooks.backward.values()):
            changed = hook(self._module, grad_input, self._grad_output)
            if changed is not None:
                self._check(changed, grad_input)
                grad_input = changed
        return grad_input

    def _check(self, changed: Any, grad_input: Grads) -> None:
        wanted = tuple(None if grad is None else (grad.shape, grad.dtype) for grad in grad_input)
        if isinstance(changed, tuple):
            got = tuple((getattr(grad, "shape", None), getattr(grad, "dtype", None)) for grad in changed)
            if len(got) == len(wanted) and all(w in (None, g) for w, g in zip(wanted, got, strict=True)):
                return
        name = type(self._module).__name__
        raise ValueError(
            f"{name}: a backward hook must return None, or a tuple like grad_input, which is "
            f"{_listing(grad_input)}; it returned {_listing(changed)}"
        )


def _is_watched(value: Any) -> bool:
    return isinstance(value, Tensor) and value.requires_grad


def _spread(grads: Grads, slots: list[int], count: int) -> Grads:
    """``grads`` at their ``slots`` among ``count``, and None elsewhere."""
    at = dict(zip(slots, grads, strict=True))
    return tuple(at.get(slot) for slot in range(count))


def _listing(grads: Any) -> str:
    if not isinstance(grads, tuple):
        return type(grads).__name__
    each = (f"{type(g).__name__} {g.shape} {g.dtype}" if hasattr(g, "dtype") else repr(g) for g in grads)
    return f"({', '.join(each)})"


class Gather(Function):
    """Where the gradients of several tensors meet, so that ``on_grads`` sees all of them and may change them.

    A Function has one output, so each tensor travels through a :class:`Pass` of its own; the number that this one
    computes from them only ties the passes to it. As it is made before them, backward reaches it after them.
    """

    def __init__(self, on_grads: Callable[[Grads], Grads]) -> None:
        self._on_grads = on_grads
        self.arrived: dict[int, Array] = {}

    def forward(self, *arrays: Array) -> Array:
        """A zero: the tie."""
        return array_module(arrays[0]).zeros((), arrays[0].dtype)

    def backward(self, grad_output: Array) -> Grads:
        """What ``on_grads`` makes of the gradients that arrived."""
        arrived, self.arrived = self.arrived, {}
        return self._on_grads(tuple(arrived.get(slot) for slot in range(len(self.needs_input_grad))))


class Pass(Function):
    """One tensor on its way past a module's border: unchanged forward; its gradient goes to ``gather``."""

    def __init__(self, gather: Gather, slot: int, array: Array) -> None:
        self._gather, self._slot = gather, slot
        self._array: Array = array

    def forward(self, tie: Array) -> Array:
        """The tensor's own array."""
        array, self._array = self._array, None
        return array

    def backward(self, grad_output: Array) -> Grads:
        """Nothing for the tie; the gradient waits in ``gather``."""
        self._gather.arrived[self._slot] = grad_output
        return (array_module(grad_output).zeros((), grad_output.dtype),)


def _together(tensors: list[Tensor], on_grads: Callable[[Grads], Grads]) -> list[Tensor]:
    """The same tensors, but in a backward pass ``on_grads`` gets all their gradients at once, and returns them."""
    if not tensors:
        return []
    gather = Gather(on_grads)
    tie = apply(gather, *tensors)
    return [apply(Pass(gather, slot, tensor.data), tie) for slot, tensor in enumerate(tensors)]
