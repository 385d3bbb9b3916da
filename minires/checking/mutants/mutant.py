"""A planted mistake: what it is, how it gets into the engine and out again.

It serves twice: to score a test suite (a suite that doesn't notice it has a hole) and as an exercise.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np

from minires import graph
from minires.function import Function
from minires.tensor import Tensor
from minires_kernels.arrays import Array

Gradients = tuple[Array | None, ...]
Right = Callable[[Array], Gradients]
Wrong = Callable[..., Any]


@dataclass(frozen=True)
class Mutant:
    """One planted mistake. ``cause`` is the family that a diagnosis should name; ``target`` the class it sits in."""

    name: str
    target: type
    cause: str
    sentence: str
    backward: Wrong

    def __repr__(self) -> str:
        return f"Mutant({self.name})"


MUTANTS: dict[str, Mutant] = {}


def mutant(target: type, cause: str) -> Callable[[Wrong], Wrong]:
    """Register the decorated function, with its docstring, as a mistake in ``target.backward``.

    It takes (node, upstream gradient, right backward) and returns the gradients. For ``Tensor`` the mistake is where
    gradients meet at a fan-out: it takes (what was there, what arrives) and returns the sum.
    """

    def register(wrong: Wrong) -> Wrong:
        MUTANTS[wrong.__name__] = Mutant(wrong.__name__, target, cause, (wrong.__doc__ or "").rstrip("."), wrong)
        return wrong

    return register


@contextmanager
def planted(mutant: Mutant) -> Iterator[None]:
    """Within the block, the engine makes this mistake."""
    owner: Any = mutant.target
    attribute, wrong = "backward", _wrong_backward(owner, mutant)
    if owner is Tensor:
        owner, attribute, wrong = graph, "activation", SimpleNamespace(add=mutant.backward)
    own, right = attribute in vars(owner), getattr(owner, attribute)
    setattr(owner, attribute, wrong)
    try:
        yield
    finally:
        if own:
            setattr(owner, attribute, right)
        else:
            delattr(owner, attribute)


def _wrong_backward(owner: Any, mutant: Mutant) -> Any:
    right = owner.backward

    def backward(node: Function, grad_output: Array) -> Gradients:
        return mutant.backward(node, grad_output, lambda upstream: right(node, upstream))  # type: ignore[no-any-return]

    return backward


def replaced(gradients: Gradients, slot: int, change: Callable[[Array], Array]) -> Gradients:
    """``gradients`` with one of them changed, if it is there."""
    return tuple(
        np.ascontiguousarray(change(gradient)) if position == slot and gradient is not None else gradient
        for position, gradient in enumerate(gradients)
    )
