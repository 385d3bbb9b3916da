"""Gradient checks of code that isn't ours: NumPy functions with a backward by hand, functions of torch tensors.

Both give what :func:`minires.gradcheck` gives: the same report, the same diagnosis. Kinks are found by their slopes,
since foreign code doesn't tell its choices.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any, Literal

import numpy as np

from minires.checking.complex_step import meter_for
from minires.checking.gradcheck import Mode, check
from minires.checking.kinks import Choices
from minires.checking.repeating import repeating
from minires.checking.report import GradReport
from minires.checking.subject import DamageError, Evaluation, Variable, input_name, name_of, source_of
from minires_kernels.arrays import Array

Backward = Callable[..., Any]
Method = Literal["differences", "complex"]


class ArraySubject:
    """A function of NumPy arrays and its hand-written backward."""

    def __init__(
        self,
        forward: Callable[..., Array],
        backward: Backward,
        arrays: tuple[Any, ...],
        named_by: Callable[..., Any] | None = None,
    ) -> None:
        named_by = named_by or forward
        self._forward, self._backward = forward, backward
        self.name = name_of(named_by)
        self.variables = []
        self._arguments: list[Any] = []
        for position, given in enumerate(arrays):
            array = np.asarray(given)
            if array.dtype.kind == "c":
                raise TypeError(f"check_arrays: input {position} is {array.dtype}; only real numbers can be checked")
            if array.dtype.kind == "f":
                array = array.astype(np.float64)
                self.variables.append(Variable(input_name(named_by, position), array, np.asarray(given).dtype))
            self._arguments.append(array)
        if not self.variables:
            raise TypeError("check_arrays: none of the inputs is a floating-point array: nothing to check")

    def evaluate(self) -> Evaluation:
        """See :class:`minires.checking.subject.Subject`."""
        output = self._forward(*self._arguments)
        if not isinstance(output, (np.ndarray, np.generic, float)):
            raise TypeError(f"check_arrays: {self.name} must return one array, got {type(output).__name__}")
        array = np.array(output)
        if array.dtype.kind != "f":
            raise TypeError(f"check_arrays: {self.name} returned {array.dtype}; only real results have a gradient")
        return Evaluation(array, Choices())

    def evaluate_at(self, arrays: list[Array]) -> Any:
        """See :class:`minires.checking.complex_step.ComplexSubject`."""
        waiting = iter(arrays)
        return self._forward(*(next(waiting) if value.dtype.kind == "f" else value for value in self._arguments))

    def gradients(self, upstream: Array) -> list[Array | None]:
        """See :class:`minires.checking.subject.Subject`."""
        first, second = self._call(upstream), self._call(upstream)
        for variable, one, two in zip(self.variables, first, second, strict=True):
            if one is not None and two is not None and not np.array_equal(one, two, equal_nan=True):
                raise DamageError(f"backward gives another gradient of {variable.name} when it is called again")
        return first

    def _call(self, upstream: Array) -> list[Array | None]:
        result = self._backward(upstream, *self._arguments)
        grads = result if isinstance(result, (tuple, list)) else (result,)
        if len(grads) not in (len(self._arguments), len(self.variables)):
            raise TypeError(
                f"check_arrays: backward must return {len(self._arguments)} gradients, one per input, got {len(grads)}"
            )
        if len(grads) == len(self._arguments):
            grads = [grad for grad, value in zip(grads, self._arguments, strict=True) if value.dtype.kind == "f"]
        return [None if grad is None else np.asarray(grad) for grad in grads]

    def contributions(self, upstream: Array) -> list[list[Array]]:
        """Nothing is known of the uses of a NumPy array."""
        return [[] for _ in self.variables]

    def source(self) -> str:
        """Where backward is written."""
        return source_of(self._backward)

    def close(self) -> None:
        """Nothing was changed."""


class TorchSubject(ArraySubject):
    """A function of torch tensors; the gradient is torch's."""

    def __init__(self, fn: Callable[..., Any], tensors: tuple[Any, ...]) -> None:
        torch = sys.modules["torch"]

        def differentiable(arrays: tuple[Array, ...]) -> list[Any]:
            return [
                torch.from_numpy(array.copy()).requires_grad_() if array.dtype.kind == "f" else torch.from_numpy(array)
                for array in arrays
            ]

        def forward(*arrays: Array) -> Array:
            output = fn(*differentiable(arrays))
            if not isinstance(output, torch.Tensor):
                raise TypeError(f"check_torch: {name_of(fn)} must return one tensor, got {type(output).__name__}")
            return output.detach().numpy()

        def backward(upstream: Array, *arrays: Array) -> list[Array | None]:
            leaves = differentiable(arrays)
            output = fn(*leaves)
            if output.requires_grad:
                output.backward(torch.from_numpy(upstream.copy()))
            return [None if leaf.grad is None else leaf.grad.numpy() for leaf in leaves]

        super().__init__(forward, backward, tuple(tensor.detach().numpy() for tensor in tensors), named_by=fn)
        self._fn = fn

    def source(self) -> str:
        """Where the function is written."""
        return source_of(self._fn)


def check_arrays(
    forward: Callable[..., Array],
    backward: Backward,
    *arrays: Any,
    mode: Mode = "auto",
    rtol: float = 1e-6,
    seed: int = 0,
    method: Method = "differences",
) -> GradReport:
    """:func:`minires.gradcheck` for plain NumPy code.

    ``forward(*arrays)`` returns an array; ``backward(grad_output, *arrays)`` its gradients, one per array, or one alone
    (None where there is none). Floating-point arrays are passed as float64 copies, others as they are.
    ``method="complex"`` measures by the complex step, to the last digits, where forward is analytic and computes with
    complex numbers too (see :mod:`minires.checking.complex_step`); ``rtol`` may then be as small as 1e-12.

    Raises TypeError for complex inputs and results, for a result that isn't an array, for the wrong number of
    gradients, and for the complex step of a function that isn't analytic; ValueError for an unknown method.
    """
    functions = {"forward": forward, "backward": backward}
    line = repeating(check_arrays, functions, arrays, mode=mode, rtol=rtol, seed=seed, method=method)
    meter_kind = meter_for(method, "check_arrays")
    subject = ArraySubject(forward, backward, arrays)
    return check(subject, mode=mode, rtol=rtol, seed=seed, meter_kind=meter_kind, repeat=line)


def check_torch(
    fn: Callable[..., Any],
    *tensors: Any,
    mode: Mode = "auto",
    rtol: float = 1e-6,
    seed: int = 0,
    method: Method = "differences",
) -> GradReport:
    """:func:`minires.gradcheck` for a function of torch tensors on the CPU, such as a ``torch.autograd.Function``.

    The tensors that it is given are float64 copies; ``method`` is as in :func:`check_arrays`. Raises TypeError for
    inputs that aren't torch tensors.
    """
    torch = sys.modules.get("torch")
    if torch is None or not all(isinstance(tensor, torch.Tensor) for tensor in tensors):
        raise TypeError("check_torch: every input must be a torch tensor; for NumPy arrays there is check_arrays")
    line = repeating(check_torch, {"fn": fn}, tensors, mode=mode, rtol=rtol, seed=seed, method=method)
    meter_kind = meter_for(method, "check_torch")
    subject = TorchSubject(fn, tensors)
    return check(subject, mode=mode, rtol=rtol, seed=seed, meter_kind=meter_kind, repeat=line)
