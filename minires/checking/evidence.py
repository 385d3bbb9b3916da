"""What a diagnosis works on: one wrong gradient with everything measured about it."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from minires.checking.measuring import Direction, Meter
from minires.checking.subject import Subject
from minires_kernels.arrays import Array

PROBES = 6
"""Elements for which the derivative is measured again with another variable changed."""


@dataclass(eq=False)
class Evidence:
    """A variable whose gradient is wrong. All vectors run over ``elements``, flat indices into the variable."""

    name: str
    x: Array
    """The variable's values, in its shape."""
    elements: Array
    analytic: Array
    jacobian: Array
    """(elements, outputs): the derivative of each output with respect to each element, measured."""
    upstream: Array
    output: Array
    noise: float
    """The expected error of one element of :attr:`numeric`."""
    others: dict[str, Array]
    """The values of the other variables, by name."""
    numeric_others: dict[str, Array]
    """The measured gradients of the other variables; NaN where they weren't."""
    contributions: list[Array]
    """What each use of the variable sent back, over ``elements``; empty where that can't be known."""
    _subject: Subject
    _meter: Meter
    _position: int
    _step: float
    _probes: Array = field(init=False)

    def __post_init__(self) -> None:
        order = np.argsort(-np.abs(self.analytic - self.numeric), kind="stable")  # the most telling elements first
        self._probes = np.sort(order[:PROBES])

    @cached_property
    def numeric(self) -> Array:
        """The right gradient, as measured."""
        return self.pull_back(self.upstream)

    @property
    def detached(self) -> bool:
        """Whether the gradient is zero throughout."""
        return not self.analytic.any()

    @property
    def shape(self) -> tuple[int, ...]:
        """The variable's shape."""
        return self.x.shape  # type: ignore[no-any-return]

    @property
    def complete(self) -> bool:
        """Whether every element was measured, so that the vectors can be seen in the variable's shape."""
        return bool(len(self.elements) == self.x.size)

    @cached_property
    def index(self) -> tuple[Array, ...]:
        """The multi-index of each element, one array per axis."""
        return np.unravel_index(self.elements, self.shape)

    @cached_property
    def values(self) -> Array:
        """The variable's values at ``elements``."""
        return self.x.reshape(-1)[self.elements]

    def pull_back(self, upstream: Array) -> Array:
        """The right gradient for another upstream gradient."""
        return self.jacobian @ upstream.reshape(-1)

    def grid(self, vector: Array) -> Array:
        """``vector`` in the variable's shape; only when ``complete``."""
        full = np.empty(self.x.size)
        full[self.elements] = vector
        return full.reshape(self.shape)

    @cached_property
    def mismatch(self) -> float:
        """The norm of numeric - analytic: what there is to explain."""
        return float(np.linalg.norm(self.numeric - self.analytic))

    def unexplained(self, residual: Array) -> float:
        """Which part of the mismatch ``residual`` is, noise not counted: 0 for a perfect explanation."""
        floor = 3 * self.noise * residual.size**0.5
        size = max(float(np.linalg.norm(residual)) - floor, 0.0)
        share = float(np.sqrt(residual.size / len(self.elements)))
        return float(size / max(self.mismatch * share, 1e-300))

    def unexplained_with(self, name: str, replacement: Array, enough: float) -> float:
        """How badly the gradient fits the function in which variable ``name`` has another value (a few elements).

        Measuring is dear: it ends with the first element by which more than ``enough`` is unexplained.
        """
        wrong = self.analytic[self._probes]
        scale = max(float(np.linalg.norm(wrong - self.numeric[self._probes])), 1e-300)
        floor = 3 * self.noise * len(self._probes) ** 0.5
        square = 0.0
        variable = next(v for v in self._subject.variables if v.name == name)
        kept = variable.array.copy()
        variable.array[...] = replacement
        try:
            for probe, element in zip(wrong, self.elements[self._probes], strict=True):
                (row,) = _rows(self._meter, self._position, np.array([element]), self._step, watch_kinks=False)
                square += float(probe - row @ self.upstream.reshape(-1)) ** 2
                if not square**0.5 <= floor + enough * scale:
                    break
        finally:
            variable.array[...] = kept
        return float(max(square**0.5 - floor, 0.0) / scale)


def _rows(meter: Meter, position: int, elements: Array, step: float, watch_kinks: bool = True) -> Array:
    moves = (Direction(position, np.array([element]), np.ones(1)) for element in elements)
    return np.array([meter.jacobian_row(move, step, watch_kinks) for move in moves])


def gather(
    subject: Subject,
    meter: Meter,
    position: int,
    analytic: Array,
    step: float,
    noise: float,
    kinked: set[int],
    upstream: Array,
    output: Array,
    numeric_others: dict[str, Array],
    contributions: list[Array],
    most: int,
    rng: np.random.Generator,
) -> Evidence:
    """Measure what a diagnosis of variable number ``position`` needs, at ``most`` so many elements.

    ``kinked`` elements are left out.
    """
    variable = subject.variables[position]
    candidates = np.array([i for i in range(variable.array.size) if i not in kinked], int)
    if len(candidates) > most:
        candidates = np.sort(rng.choice(candidates, most, replace=False))
    return Evidence(
        name=variable.name,
        x=variable.array.copy(),
        elements=candidates,
        analytic=analytic.reshape(-1)[candidates],
        jacobian=_rows(meter, position, candidates, step).reshape(len(candidates), output.size),
        upstream=upstream,
        output=output,
        noise=noise,
        others={v.name: v.array.copy() for i, v in enumerate(subject.variables) if i != position},
        numeric_others=numeric_others,
        contributions=[part.reshape(-1)[candidates] for part in contributions],
        _subject=subject,
        _meter=meter,
        _position=position,
        _step=step,
    )
