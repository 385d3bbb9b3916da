"""The graph: who watches it, whether it is built at all, and how backward walks through it.

Everything here works on tensors, but makes none: tensors are made in :mod:`minires.tensor`.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from minires.function import Function
from minires_kernels import activation
from minires_kernels.arrays import Array
from minires_kernels.scope import scope

if TYPE_CHECKING:
    from minires.tensor import Tensor

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
        if watcher is not None:
            watcher.on_gradient(tensor, grad_output)
        if tensor.retains_grad:
            finished.append((tensor, grad_output))
        function = tensor.creator
        assert function is not None
        inputs = function.inputs
        for slot, contribution in enumerate(_gradients(function, grad_output)):
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
        if watcher is not None:
            watcher.on_gradient(leaf, total)
        finished.append((leaf, total))
    _store(finished, upstream)


def _gradients(function: Function, grad_output: Array) -> tuple[Array | None, ...]:
    """What ``function.backward`` returns, checked: one array of the right shape and dtype per input that needs one."""
    if function.released:
        raise RuntimeError(
            f"backward: the graph was freed by an earlier backward, at {function!r}{function.where()}; "
            "pass retain_graph=True to the first call, or compute the loss again"
        )
    try:
        grads = function.backward(grad_output)
    except Exception as error:
        error.add_note(f"in the backward pass of {function!r}{function.where()}")
        raise
    name = type(function).__name__
    if not isinstance(grads, tuple) or len(grads) != len(function.inputs):
        got = f"{len(grads)} gradients" if isinstance(grads, tuple) else type(grads).__name__
        raise BackwardResultError(
            f"{name}.backward must return a tuple of {len(function.inputs)} gradients, one per input "
            f"(None where not needed), but returned {got}{function.where()}"
        )
    for slot, (grad, source, needed) in enumerate(zip(grads, function.inputs, function.needs_input_grad, strict=True)):
        if grad is None or not needed:
            continue
        assert source is not None
        shape, dtype = getattr(grad, "shape", None), getattr(grad, "dtype", None)
        if shape != source.shape or dtype != source.dtype or hasattr(grad, "creator"):
            raise BackwardResultError(
                f"{name}.backward must return arrays like its inputs, but returned {type(grad).__name__} "
                f"{shape} {dtype} for input {slot}, which is {source.shape} {source.dtype}{function.where()}"
            )
    return tuple(
        as_array(grad) if needed else None for grad, needed in zip(grads, function.needs_input_grad, strict=True)
    )


def _store(finished: list[tuple[Tensor, Array]], upstream: Array) -> None:
    """Add each gradient to its tensor's ``grad``, so that none shares memory with another, with data or upstream."""
    seen = {id(_owner(upstream)), *(id(_owner(tensor.data)) for tensor, _ in finished)}
    for tensor, grad in finished:
        if tensor.grad is not None:
            tensor.grad = as_array(tensor.grad + grad)
            continue
        owner = _owner(grad)
        shared = id(owner) in seen or tensor.retains_grad
        seen.add(id(owner))
        tensor.grad = grad.copy() if shared else grad


def _owner(array: Array) -> Any:
    """The object that owns the memory that ``array`` is a view of."""
    while getattr(array, "base", None) is not None:
        array = array.base
    return array


def as_array(value: Any) -> Array:
    """``value``; a NumPy scalar, which NumPy's arithmetic makes of 0-d arrays, as a 0-d array again."""
    return np.asarray(value) if isinstance(value, np.generic) else value
