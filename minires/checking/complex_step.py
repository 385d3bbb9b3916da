"""Derivatives by the complex step: Im f(x + i h d) / h, exact to rounding for every small h, as nothing is subtracted.

Squire and Trapp 1998, "Using Complex Variables to Estimate Derivatives of Real Functions". It asks much of the code: f
must be computed by operations that are analytic and go on with the imaginary part. ``abs``, ``max``, comparisons,
``conj`` and kernels for real numbers aren't, and most of them give a wrong number without a word. So what the complex
step says of each variable is compared with differences first.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import numpy as np

from minires.checking.measuring import Direction, Measurement, Meter
from minires.checking.numerical import Plateau
from minires.checking.report import Point
from minires.checking.steps import sweep
from minires.checking.subject import Subject
from minires_kernels.arrays import Array

STEP = 2.0**-300
"""Relative step: its square vanishes beside 1, so that no truncation is left, and it is far from underflow."""
AGREEMENT = 100.0
"""How many times the noise of a difference the complex step may be away from it before f isn't called analytic."""


class ComplexSubject(Subject, Protocol):
    """A subject that can also be evaluated at complex arguments."""

    def evaluate_at(self, arrays: list[Array]) -> Any:
        """What the function returns with ``arrays`` (complex) in place of its variables."""


class ComplexMeter(Meter):
    """A Meter that measures by the complex step. Steps, and what the diagnosis asks for, still come from differences.

    Raises TypeError when the function refuses complex numbers, or isn't analytic at the given point.
    """

    is_exact = True

    def __init__(self, subject: ComplexSubject, *arguments: Any) -> None:
        super().__init__(subject, *arguments)
        self._complex_subject = subject
        self._trusted: set[int] = set()

    def measure(self, direction: Direction, plateau: Plateau, worth: float) -> Measurement:
        """The derivative along ``direction``; there is no step to choose, and no kink that could be crossed."""
        if direction.variable not in self._trusted:
            self._compare_with_differences(direction.variable, plateau, worth)
            self._trusted.add(direction.variable)
        return self._along(direction)

    def _along(self, direction: Direction) -> Measurement:
        self.evaluations += 1
        step = STEP * self.scales[direction.variable]
        arrays = [variable.array.astype(np.complex128) for variable in self._subject.variables]
        arrays[direction.variable].flat[direction.elements] += 1j * (step * direction.weights)
        terms = self._upstream * (self._output_at(arrays).imag / step)
        noise = np.finfo(np.float64).eps * float(np.abs(terms).sum())
        return Measurement(float(terms.sum()), noise, STEP)

    def _output_at(self, arrays: list[Array]) -> Array:
        name = self._subject.name
        try:
            output = np.asarray(self._complex_subject.evaluate_at(arrays))
        except Exception as error:
            raise TypeError(
                f"method='complex': {name} doesn't take complex numbers ({type(error).__name__}: {error}); "
                "leave method out to use differences"
            ) from error
        if output.dtype.kind != "c":
            raise TypeError(
                f"method='complex': {name} returned {output.dtype} for complex inputs: a part of it (abs, real, a "
                "cast) drops the imaginary part; leave method out to use differences"
            )
        return output

    def _compare_with_differences(self, variable: int, plateau: Plateau, worth: float) -> None:
        direction = self.random_direction(variable, np.random.default_rng((variable, 1998)))
        numeric = super().measure(direction, plateau, worth)
        if numeric.excluded:
            return  # on a kink of f there is no derivative; differences would exclude it too
        value = self._along(direction).value
        tolerance = AGREEMENT * numeric.noise + 1e-6 * abs(numeric.value)
        if abs(value - numeric.value) <= tolerance:
            return
        steps = sweep(self, Point(direction, value, numeric, tolerance))
        if steps.convicts or steps.unexplained > 0.01:  # else it's the differences that are wrong: see steps.py
            raise TypeError(
                f"method='complex': {self._subject.name} isn't analytic in {self._subject.variables[variable].name}: "
                f"along one direction the complex step gives {value:.6g}, differences {numeric.value:.6g}; a part "
                "of it (abs, max, a comparison, conj) doesn't continue into the complex plane; leave method out"
            )


METERS: dict[str, Callable[..., Meter]] = {"differences": Meter, "complex": ComplexMeter}
"""How derivatives can be measured, by name."""


def meter_for(method: str, op: str) -> Callable[..., Meter]:
    """The Meter of that name. Raises ValueError, in the name of ``op``, for a method that doesn't exist."""
    if method not in METERS:
        raise ValueError(f"{op}: method must be {' or '.join(map(repr, METERS))}, got {method!r}")
    return METERS[method]
