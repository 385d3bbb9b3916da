"""Is it the gradient that is wrong, or the differences? One derivative's quotients at every step of the ladder.

The step of a check is fitted along one direction. Where the function bends within every such step (truncation), or its
values move in grains that swallow the differences (rounding), what was measured is no derivative. So before a gradient
is called wrong for one of the other reasons, it must be convicted: three neighbouring steps must agree with each other
ten times better than with it. A derivative does that, for the quotients settle on it; noise and curvature don't.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from minires.checking.diagnosis import Diagnosis
from minires.checking.measuring import Direction, Meter
from minires.checking.numerical import LADDER, fitted_slope
from minires.checking.report import Comparison, Point
from minires_kernels.arrays import Array

TRIED = 8
"""How many wrong points of a variable are looked at, the worst first, until one is convicted."""
SETTLED = 0.1
"""Three neighbouring quotients that differ by less than this part of themselves may have settled."""
LONG = 1e4
"""How many times as noisy as a single rounding of the result a long computation may be."""


@dataclass(frozen=True)
class Sweep:
    """The quotients of one derivative along ``steps``, coarse to fine; NaN where they say nothing."""

    point: Point
    steps: Array
    quotients: Array
    noise: float
    """What float64 itself does at least to the quotient with step 1; with step h, ``noise / h``."""
    grainy: bool
    """Whether the finest steps are NaN because the values come in grains that are larger."""

    @property
    def convicts(self) -> bool:
        """Whether three neighbouring steps agree with each other, ten times better than with the gradient.

        They agree when they differ little beside themselves; or, where the derivative is 0, beside what a long
        computation's rounding may do to it. (Comparisons with NaN are false.)
        """
        triples = np.lib.stride_tricks.sliding_window_view(self.quotients, 3)
        spread, size = np.ptp(triples, axis=1), np.abs(triples).max(1)
        mismatch = np.abs(triples[:, 1] - self.point.analytic)
        settled = (spread <= SETTLED * size) & (mismatch > 10 * (spread + self.noise / self.steps[1:-1]))
        rounding = LONG * self.noise / self.steps[2:]
        return bool((settled | ((spread <= rounding) & (mismatch > 10 * rounding))).any())

    @property
    def changes(self) -> Array:
        """How far each quotient lies from the next finer one."""
        return np.abs(np.diff(self.quotients))

    @property
    def parts(self) -> Array:
        """The changes as a part of what changes; infinite where one of the two says nothing."""
        size = np.maximum(np.abs(self.quotients[:-1]), np.abs(self.quotients[1:]))
        parts = self.changes / np.maximum(size, np.finfo(np.float64).tiny)
        return np.where(np.isfinite(parts), parts, np.inf)

    @property
    def best(self) -> int:
        """The coarser of the two neighbouring steps whose quotients differ least, as a part of themselves."""
        return int(np.argmin(self.parts))

    @property
    def cause(self) -> str:
        """ "truncation" where the step that was used is too large, "rounding" where it is too small."""
        moved = np.abs(self.quotients * self.steps)
        if self.parts[self.best] > SETTLED:  # it settles nowhere: does the finest step still move the whole function?
            return "truncation" if moved[-1] > 1e-3 * np.nanmax(moved) else "rounding"
        used = self.point.numeric.step
        if used != self.steps[self.best]:
            return "truncation" if used > self.steps[self.best] else "rounding"
        coarser, finer = self.changes[max(self.best - 1, 0)], self.changes[min(self.best + 1, len(self.changes) - 1)]
        return "truncation" if coarser > finer else "rounding"

    def sentence(self) -> str:
        """What was seen, and what cures it."""
        best, changes = self.best, self.changes
        seen = "no two neighbouring steps tell anything"
        if np.isfinite(self.parts[best]):
            part = f"{self.parts[best]:.0e} of themselves"
            seen = f"at the best one, {self.steps[best]:.0e}, quotients still change by {part}"
        slopes = (fitted_slope(self.steps[:-1][part], changes[part]) for part in (slice(None, best), slice(best, None)))
        shapes = [f"like h^{slope:.1f} {side} it" for slope, side in zip(slopes, ("above", "below"), strict=True)
                  if np.isfinite(slope)]  # fmt: skip
        fine = f"; those below {self.steps[np.isfinite(self.quotients)][-1]:.0e} change nothing" if self.grainy else ""
        why, cure = {
            "truncation": ("truncation: the function bends within the step", "check it at smaller inputs"),
            "rounding": (
                "rounding: the values are too large or too coarse for what changes",
                "compute in float64, leave out what is large and constant",
            ),
        }[self.cause]
        return (
            f"the differences prove nothing, by {why}. The relative step was {self.point.numeric.step:.0e}; {seen}"
            f"{', ' + ' and '.join(shapes) if shapes else ''}{fine}. Cure: {cure}, or take check_arrays with "
            "method='complex' where the function is analytic"
        )

    @property
    def unexplained(self) -> float:
        """Which part of the mismatch the best step leaves."""
        left = float(np.nanmin(np.abs(self.quotients - self.point.analytic)))
        return min(left / self.point.error, 1.0)


def sweep(meter: Meter, point: Point) -> Sweep:
    """The quotients along ``point``'s direction; NaN where a step crosses a kink or the values' grain swallows it."""
    direction = point.direction
    measured = [meter.central([direction], step) for step in LADDER]
    quotients = np.array([value if not crossed and np.isfinite(value) else np.nan for value, crossed in measured])
    still = len(LADDER) - int(np.argmax(quotients[::-1] != 0))  # from here on no step changes anything; NaN isn't 0
    moving = np.flatnonzero(np.nan_to_num(quotients))
    grainy = bool(len(moving)) and still < len(LADDER) and _is_grainy(meter, direction, int(moving[0]), still)
    if grainy:
        quotients[still:] = np.nan
    return Sweep(point, np.array(LADDER), quotients, meter.least_noise / meter.scales[direction.variable], grainy)


def _is_grainy(meter: Meter, direction: Direction, moves: int, still: int) -> bool:
    """Whether steps from ``LADDER[still]`` on change nothing because values come in grains, not by being flat here.

    Flat functions (a ReLU's left side) respond to a fine step somewhere else: ``LADDER[moves]`` away. Grainy ones do so
    by chance: a step that is 8^4 times finer than the grain meets the edge of one in one output of 4,000.
    """
    shift, fine = LADDER[moves], LADDER[min(still + 4, len(LADDER) - 1)]
    above, below = (meter.changed(direction, middle, fine) for middle in (shift, -shift))
    moved = meter.changed(direction, 0.0, shift)
    return bool((above | below)[moved].mean() < 0.1) if moved.any() else False


def unsettled(meter: Meter, comparison: Comparison) -> Sweep | None:
    """The sweep at the worst point of a wrong gradient if it convicts that gradient at no point; else None."""
    if meter.is_exact:
        return None
    worst = sorted(comparison.wrong, key=lambda point: -point.error / point.tolerance)[:TRIED]
    sweeps = []
    for point in worst:
        found = sweep(meter, point)
        if found.convicts or not (found.grainy or np.isfinite(found.changes).any()):
            return None  # or kinks are in the way of every step
        sweeps.append(found)
    return sweeps[0] if sweeps else None


def numerical_causes(found: Sequence[tuple[str, Sweep]]) -> tuple[Diagnosis, ...]:
    """A diagnosis for each of "truncation" and "rounding" that accounts for some of the named variables."""
    causes: dict[str, list[tuple[str, Sweep]]] = {}
    for name, each in found:
        causes.setdefault(each.cause, []).append((name, each))
    return tuple(
        Diagnosis(
            cause,
            max((each for _, each in members), key=lambda each: each.point.error / each.point.tolerance).sentence(),
            tuple(name for name, _ in members),
            max(each.unexplained for _, each in members),
        )
        for cause, members in causes.items()
    )
