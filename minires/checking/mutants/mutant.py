"""A planted mistake: what it is, how it gets into the engine and out again.

It serves twice: to score a test suite (a suite that doesn't notice it has a hole) and as an exercise.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import wraps
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


def named(names: Iterable[str], op: str) -> tuple[Mutant, ...]:
    """The mutants of these names. Raises ValueError, in the name of ``op``, for one that doesn't exist."""
    names = tuple(names)
    for name in names:
        if name not in MUTANTS:
            raise ValueError(f"{op}: there is no mutant {name!r}; there are: {', '.join(MUTANTS)}")
    return tuple(MUTANTS[name] for name in names)


@contextmanager
def planted(mutant: Mutant) -> Iterator[None]:
    """Within the block, the engine makes this mistake."""

    def wrong(right: Wrong) -> Wrong:
        if mutant.target is Tensor:
            return mutant.backward

        def backward(node: Function, grad_output: Array) -> Gradients:
            return mutant.backward(node, grad_output, lambda upstream: right(node, upstream))  # type: ignore[no-any-return]

        return backward

    with _exchanged(mutant.target, wrong):
        yield


@contextmanager
def watched(note: Callable[[str], None]) -> Iterator[None]:
    """Within the block, ``note`` gets the name of a mutant's target whenever what the mutant would replace is run."""

    def noting(target: type) -> Callable[[Wrong], Wrong]:
        def change(right: Wrong) -> Wrong:
            @wraps(right)
            def noted(*arguments: Any) -> Any:
                note(target.__name__)
                return right(*arguments)

            return noted

        return change

    with ExitStack() as stack:
        for target in {mutant.target for mutant in MUTANTS.values()}:
            stack.enter_context(_exchanged(target, noting(target)))
        yield


@contextmanager
def _exchanged(target: type, change: Callable[[Wrong], Wrong]) -> Iterator[None]:
    """Within the block, what computes gradients for ``target`` is what ``change`` makes of it: the one way to plant."""
    owner: Any = target
    attribute = "backward"
    if target is Tensor:
        owner, attribute = graph, "activation"
    own, before = attribute in vars(owner), getattr(owner, attribute)
    setattr(owner, attribute, SimpleNamespace(add=change(before.add)) if target is Tensor else change(before))
    try:
        yield
    finally:
        if own:
            setattr(owner, attribute, before)
        else:
            delattr(owner, attribute)


def replaced(gradients: Gradients, slot: int, change: Callable[[Array], Array]) -> Gradients:
    """``gradients`` with one of them changed, if it is there."""
    return tuple(
        np.ascontiguousarray(change(gradient)) if position == slot and gradient is not None else gradient
        for position, gradient in enumerate(gradients)
    )
