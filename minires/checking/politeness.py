"""What a function under check may not do to its surroundings, whatever numbers it returns."""

from __future__ import annotations

import numpy as np

from minires.checking.subject import Subject
from minires_kernels.arrays import Array


def require_finite(name: str, array: Array) -> None:
    """Raise ValueError, with the first bad element, unless all of ``array`` is finite."""
    if not np.isfinite(array).all():
        bad = np.argwhere(~np.isfinite(array))[0].tolist()
        raise ValueError(f"gradcheck: {name}{bad} is {array[tuple(bad)]}; only finite values can be checked")


def changed(subject: Subject, before: list[Array]) -> str:
    """The name of the first variable that isn't what it was, or nothing."""
    for variable, copy in zip(subject.variables, before, strict=True):
        if not np.array_equal(variable.array, copy):
            return variable.name
    return ""


def impoliteness(
    subject: Subject, before: list[Array], gradients: list[Array | None], upstream: Array, kept: Array
) -> str:
    """What backward did to its surroundings, in one sentence, or nothing."""
    touched = changed(subject, before)
    if touched:
        return f"backward changes the input {touched}: it may read what forward was given, not write it"
    if not np.array_equal(upstream, kept):
        return "backward writes into its upstream gradient: other nodes may need it, work on a copy"
    owned: list[tuple[str, Array]] = [("the upstream gradient", upstream)]
    for variable, gradient in zip(subject.variables, gradients, strict=True):
        if gradient is None:
            continue
        if gradient.shape != variable.array.shape:
            return (f"the gradient of {variable.name} has shape {gradient.shape}, "
                    f"but {variable.name} is {variable.array.shape}")  # fmt: skip
        if gradient.dtype != variable.array.dtype:
            return f"the gradient of {variable.name} is {gradient.dtype}, but {variable.name} is {variable.array.dtype}"
        if not np.isfinite(gradient).all():
            bad = np.argwhere(~np.isfinite(gradient))[0].tolist()
            return f"the gradient of {variable.name} is {gradient[tuple(bad)]} at {bad}"
        for name, other in (*owned, (variable.name, variable.array)):
            if np.shares_memory(gradient, other):
                return f"the gradient of {variable.name} shares memory with {name}: writing to one changes the other"
        owned.append((f"the gradient of {variable.name}", gradient))
    return ""
