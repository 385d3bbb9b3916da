"""Derivatives by finite differences that know how wrong they are.

The central difference D(h) = (f(x + h) - f(x - h)) / 2h errs by a h^2 + ... (truncation) and by b / h (rounding).
Richardson's combination R(h) = (64 D(h / 8) - D(h)) / 63 leaves a h^4. Nobody can know the best h beforehand, so it is
measured: a sweep over twelve decades shows both slopes, the two lines are fitted, and the step where their sum is
smallest is taken. The same fit says how much noise is left, and that is what a gradient is compared against.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

from minires_kernels.arrays import Array

Number = TypeVar("Number", float, "np.ndarray[Any, Any]")

RATIO = 8.0
"""Between one step of the ladder and the next: a power of two, so that x + h keeps its last digits."""
LADDER = tuple(0.25 / RATIO**k for k in range(15))  # 0.25 ... 6e-14


@dataclass(frozen=True)
class Plateau:
    """Where a difference quotient is best, and how good it is there; all steps are relative to the variable's scale."""

    step: float
    rounding: float
    """b: the rounding error of one central difference with step h is about b / h."""
    truncation: float
    """a: the truncation error of Richardson's combination with steps h and h / 8 is about a h^4."""
    rounding_slope: float
    """Fitted d log(error) / d log(h) left of the plateau; theory says -1. NaN when there is nothing to fit."""
    truncation_slope: float
    """The same right of it; theory says 4. NaN for functions without truncation error (linear ones)."""
    plain: bool = False
    """Whether one central difference with step h / 8 is as good: its h^2 term lies below the rounding."""

    def noise(self, step: float) -> float:
        """The error to expect from :func:`richardson` with ``step``."""
        return self.truncation * step**4 + self.rounding * RATIO / step


def richardson(coarse: Number, fine: Number) -> Number:
    """Central differences with steps h and h / 8, combined so that their h^2 terms cancel."""
    return (RATIO**2 * fine - coarse) / (RATIO**2 - 1)  # type: ignore[no-any-return]


def find_plateau(quotient: Callable[[float], float], least_noise: float) -> Plateau:
    """The best step for ``quotient``, a central difference as a function of the relative step (NaN where unusable).

    ``least_noise``: rounding can't be below this (the unit roundoff times the size of what is subtracted).
    Raises ArithmeticError when no two neighbouring steps can be used.
    """
    steps = np.array(LADDER)
    differences = np.array([quotient(step) for step in LADDER])
    estimates = richardson(differences[:-1], differences[1:])
    errors = np.abs(np.diff(estimates))  # of estimate k + 1 where rounding rules, of estimate k where truncation does
    coarse, fine = steps[:-2], steps[1:-1]
    usable = np.isfinite(errors)
    if not np.isfinite(estimates).any():
        raise ArithmeticError("no step is small enough to stay between two kinks and large enough to rise above noise")
    tail = usable & (fine <= 2e-8)  # far below every sensible step: pure rounding
    scaled = (errors * fine / RATIO)[tail if tail.any() else usable]
    rounding = max(float(np.sqrt(np.mean(scaled**2))) if scaled.size else 0.0, least_noise)
    rises = usable & (errors > 30 * rounding * RATIO / fine)  # clearly above rounding: truncation
    truncation = float(np.median((errors / coarse**4)[rises])) if rises.sum() >= 2 else 0.0
    if rises.sum() == 1:
        truncation = float((errors / coarse**4)[rises][0])
    candidates = [k for k, estimate in enumerate(estimates) if math.isfinite(estimate)]
    best = min(candidates, key=lambda k: truncation * steps[k] ** 4 + rounding * RATIO / steps[k])
    return Plateau(
        step=float(steps[best]),
        rounding=rounding,
        truncation=truncation,
        rounding_slope=fitted_slope(fine[tail], errors[tail]),
        truncation_slope=fitted_slope(coarse[rises], errors[rises]),
        plain=bool(abs(estimates[best] - differences[best + 1]) <= rounding * RATIO / steps[best]),
    )


def fitted_slope(steps: Array, errors: Array) -> float:
    """d log(error) / d log(step) of the errors that aren't 0 or NaN; NaN for fewer than three."""
    chosen = errors > 0
    if chosen.sum() < 3:
        return math.nan
    return float(np.polyfit(np.log(steps[chosen]), np.log(errors[chosen]), 1)[0])
