"""The graph: who watches it, whether it is built at all, and how backward walks through it.

Everything here works on tensors, but makes none: tensors are made in :mod:`minires.tensor`.
"""

from __future__ import annotations

import heapq
import itertools
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from minires.dtypes import admit
from minires.function import Function
from minires_kernels import activation
from minires_kernels.arrays import Array
from minires_kernels.notes import add_note_once
from minires_kernels.scope import scope

if TYPE_CHECKING:
    from minires.tensor import Tensor

BackwardHook = Callable[[Array], Array | None]
"""What :meth:`minires.Tensor.register_hook` takes: called with a complete gradient, may return another."""

_tracking: ContextVar[bool] = ContextVar("minires.tracking", default=True)
_watcher: ContextVar[Watcher | None] = ContextVar("minires.watcher", default=None)


class BackwardResultError(RuntimeError):
    """What a Function's backward returned isn't one array like each of its inputs: the engine refuses it."""


class Watcher(Protocol):
    """What the core reports to while a tape records: see :func:`minires.record`. All arrays are values: don't write."""

    def on_forward(self, function: Function, inputs: tuple[Tensor | None, ...], output: Tensor) -> None:
        """``function`` has computed ``output`` from ``inputs``."""

    def on_contribution(self, tensor: Tensor, consumer: Function | None, slot: int, grad: Array) -> None:
        """``consumer``, of which ``tensor`` is input ``slot``, has sent it ``grad``: not yet added to the others.

        ``consumer`` is None for the gradient that backward starts from.
        """

    def on_gradient(self, tensor: Tensor, grad: Array) -> None:
        """``grad``, the sum of all contributions to ``tensor``, is complete."""

    def on_release(self, function: Function) -> None:
        """``function`` is about to forget its saved arrays and inputs."""

    def enter(self, module: Any) -> None:
        """``module`` (of ``minires.nn``) begins its forward pass."""

    def leave(self, module: Any) -> None:
        """``module`` has ended its forward pass, normally or not."""


def tracking() -> bool:
    """Whether graphs are built in this context: True outside of :func:`no_grad`."""
    return _tracking.get()


def watching() -> Watcher | None:
    """The tape that records in this context, or None."""
    return _watcher.get()


@contextmanager
def watch(watcher: Watcher) -> Iterator[None]:
    """Within the block, ``apply`` and ``backward`` report to ``watcher``. People call :func:`minires.record`."""
    token = _watcher.set(watcher)
    try:
        yield
    finally:
        _watcher.reset(token)


@scope
def no_grad() -> Iterator[None]:
    """Within the block no graph is built: results don't require gradients and keep nothing for a backward pass.

    ``@no_grad()`` decorates a function, a generator function or a coroutine, all of which then runs without a graph.

    >>> with minires.no_grad():
    ...     logits = net(images)
    """
    token = _tracking.set(False)
    try:
        yield
    finally:
        _tracking.reset(token)


_keys = itertools.count()


class HookHandle:
    """What registering a hook returns: ``remove()`` ends the hook, as does the end of a ``with``."""

    def __init__(self, hooks: dict[int, Any], hook: Callable[..., Any]) -> None:
        self._hooks, self._key = hooks, next(_keys)
        hooks[self._key] = hook

    def remove(self) -> None:
        """The hook isn't called any more; a second time does nothing."""
        self._hooks.pop(self._key, None)

    def __enter__(self) -> HookHandle:
        return self

    def __exit__(self, *exception: object) -> None:
        self.remove()


def walk(root: Tensor, upstream: Array, *, retain_graph: bool) -> None:
    """The backward pass from ``root`` with the gradient ``upstream``: what :meth:`minires.Tensor.backward` promises."""
    watcher = _watcher.get()
    finished: list[tuple[Tensor, Array]] = []
    # Contributions are summed here, per tensor; the heap holds each tensor once, the latest made on top.
    pending: dict[Tensor, Array] = {root: upstream}
    heap = [(-root.creator.number, 0, root)] if root.creator else []
    ticket = itertools.count(1)  # tuples never compare tensors
    if watcher is not None:
        watcher.on_contribution(root, None, 0, upstream)
    while heap:
        tensor = heapq.heappop(heap)[2]
        grad_output = pending.pop(tensor)
        if tensor._hooks:
            grad_output = _hooked(tensor, grad_output)
        if watcher is not None:
            watcher.on_gradient(tensor, grad_output)
        if tensor.retains_grad:
            finished.append((tensor, grad_output))
        function = tensor.creator
        assert function is not None
        inputs = function.inputs
        for slot, contribution in enumerate(_gradients(tensor, function, inputs, grad_output)):
            if contribution is None:
                continue
            source = inputs[slot]
            assert source is not None
            if watcher is not None:
                watcher.on_contribution(source, function, slot, contribution)
            if source in pending:
                pending[source] = activation.add(pending[source], contribution)
                continue
            pending[source] = contribution
            if source.creator is not None:
                heapq.heappush(heap, (-source.creator.number, next(ticket), source))
        if not retain_graph:
            if watcher is not None:
                watcher.on_release(function)
            function.release()
    for leaf, total in pending.items():
        if leaf._hooks:
            total = _hooked(leaf, total)
        if watcher is not None:
            watcher.on_gradient(leaf, total)
        finished.append((leaf, total))
    _store(finished, upstream)


def _gradients(
    output: Tensor, function: Function, inputs: tuple[Tensor | None, ...], grad_output: Array
) -> list[Array | None]:
    """What ``function.backward`` returns, checked: one array of the right shape and dtype per input that needs one."""
    number = function.number
    if function.released:
        raise _freed(function)
    if output.version > number and _keeps(function, output.data):
        raise _changed(function, "the output", output)
    for slot, source in enumerate(inputs):
        if source is None:
            continue
        if source.version > number:
            raise _changed(function, f"input {slot}", source)
        if source._shares is not None and source._shares.version > number:
            raise _changed(function, f"input {slot}", source._shares)
    try:
        grads = function.backward(grad_output)
    except Exception as error:
        if function.released:  # by a backward pass in another thread, in the midst of this one
            raise _freed(function) from error
        add_note_once(error, f"in the backward pass of {function!r}{function.where()}")
        raise
    if not isinstance(grads, tuple) or len(grads) != len(inputs):
        got = f"{len(grads)} gradients" if isinstance(grads, tuple) else type(grads).__name__
        raise BackwardResultError(
            f"{type(function).__name__}.backward must return a tuple of {len(inputs)} gradients, one per input "
            f"(None where not needed), but returned {got}{function.where()}"
        )
    checked: list[Array | None] = []
    for slot, needed in enumerate(function.needs_input_grad):
        grad = grads[slot]
        if grad is None or not needed:
            checked.append(None)
            continue
        source = inputs[slot]
        assert source is not None
        data = source.data
        is_like = type(grad) is np.ndarray and grad.shape == data.shape and grad.dtype == data.dtype
        checked.append(grad if is_like and grad.flags.aligned else _admitted(function, slot, data, grad))
    return checked


def _admitted(function: Function, slot: int, data: Array, grad: Any) -> Array:
    """What ``function.backward`` returned for the input ``data``, if it can be converted to an array like that."""
    shape, dtype = getattr(grad, "shape", None), getattr(grad, "dtype", None)
    if shape == data.shape and dtype is not None and not hasattr(grad, "creator"):
        try:
            array = admit(grad, f"{type(function).__name__}.backward")
        except TypeError as error:
            raise BackwardResultError(f"{error}{function.where()}") from error
        if array.dtype == data.dtype:
            return array
    raise BackwardResultError(
        f"{type(function).__name__}.backward must return arrays like its inputs, but returned {type(grad).__name__} "
        f"{shape} {dtype} for input {slot}, which is {data.shape} {data.dtype}{function.where()}"
    )


def _freed(function: Function) -> RuntimeError:
    return RuntimeError(
        f"backward: the graph was freed by an earlier backward, at {function!r}{function.where()}; "
        "pass retain_graph=True to the first call, or compute the loss again"
    )


def _changed(function: Function, which: str, tensor: Tensor) -> RuntimeError:
    return RuntimeError(
        f"backward: {which} of {function!r}{function.where()}, a {type(tensor).__name__} of shape {tensor.shape}, was "
        f"changed since{tensor.changed_at()}, so that its gradient would mix old numbers and new ones; "
        "call backward before the change (before optimizer.step()), or compute the loss again after it"
    )


def _keeps(function: Function, array: Array) -> bool:
    """Whether ``function`` has saved an array in the memory of ``array``."""
    owner = _owner(array)
    return any(_owner(saved) is owner for saved in function.saved_arrays().values())


def _hooked(tensor: Tensor, grad: Array) -> Array:
    """What the hooks of ``tensor`` make of its complete gradient."""
    assert tensor._hooks is not None
    for hook in tuple(tensor._hooks.values()):
        shown = grad
        if isinstance(grad, np.ndarray):
            shown = grad.view()
            shown.flags.writeable = False  # others may look at the same memory
        try:
            replacement = hook(shown)
        except Exception as error:
            cure = "; a hook doesn't write to its gradient, it returns a new one: grad * 2"
            add_note_once(
                error,
                f"in the hook {getattr(hook, '__qualname__', type(hook).__name__)} of a {type(tensor).__name__} of "
                f"shape {tensor.shape}{cure if 'read-only' in str(error) else ''}",
            )
            raise
        if replacement is not None and replacement is not shown:
            grad = tensor._gradient("backward: the gradient that a hook returned", replacement).copy()
    return grad


_storing = threading.RLock()  # the collector may come in the midst of anything


def _store(finished: list[tuple[Tensor, Array]], upstream: Array) -> None:
    """Add each gradient to its tensor's ``grad``, so that none shares memory with another, with data or upstream.

    One thread at a time: what several backward passes send to one leaf adds up. All or nothing is stored.
    """
    seen = {id(_owner(upstream)), *(id(_owner(tensor.data)) for tensor, _ in finished)}
    with _storing:
        totals = [_total(tensor, grad, seen) for tensor, grad in finished]
        for (tensor, _), total in zip(finished, totals, strict=True):
            tensor._grad = total


def _total(tensor: Tensor, grad: Array, seen: set[int]) -> Array:
    """``grad`` added to what ``tensor`` has, in memory of its own; ``seen`` are the owners of memory that is taken."""
    if tensor._grad is not None:
        if (tensor._grad.shape, tensor._grad.dtype) != (grad.shape, grad.dtype):
            raise RuntimeError(
                f"backward: a tensor has a gradient {tensor._grad.shape} {tensor._grad.dtype} from before its data was "
                f"replaced, and the new one is {grad.shape} {grad.dtype}; set tensor.grad = None first"
            )
        return as_array(tensor._grad + grad)
    owner = id(_owner(grad))
    is_own = owner not in seen and not tensor.retains_grad and 0 not in grad.strides
    seen.add(owner)
    return grad if is_own and getattr(grad.flags, "writeable", True) else grad.copy()


def _owner(array: Array) -> Any:
    """The object that owns the memory that ``array`` is a view of."""
    while getattr(array, "base", None) is not None:
        array = array.base
    return array


def as_array(value: Any) -> Array:
    """``value``; a NumPy scalar, which NumPy's arithmetic makes of 0-d arrays, as a 0-d array again."""
    return np.asarray(value) if isinstance(value, np.generic) else value
