"""What a gradient check found: truthy when the gradient is right, readable when it isn't."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from minires.checking.diagnosis import NUMERICAL, Diagnosis
from minires.checking.measuring import Direction, Measurement
from minires.display import brief_fields, escaped, few_lines
from minires_kernels.arrays import Array


@dataclass(frozen=True)
class Point:
    """One derivative, of both kinds, along a direction of one variable (a single element, or many at once)."""

    direction: Direction
    analytic: float
    numeric: Measurement
    tolerance: float

    __repr__ = brief_fields

    @property
    def is_element(self) -> bool:
        """Whether the direction moves one element only."""
        return len(self.direction.elements) == 1

    @property
    def error(self) -> float:
        """How far the two lie apart; NaN where a kink left nothing to compare."""
        return abs(self.analytic - self.numeric.value)

    @property
    def wrong(self) -> bool:
        """Whether they lie further apart than numerical noise explains."""
        return not self.numeric.excluded and not self.error <= self.tolerance

    @property
    def relative(self) -> float:
        """The error as a part of the larger of the two: what ``rtol`` forgives."""
        return self.error / self._larger

    @property
    def ulps(self) -> float:
        """The error in units in the last place of the larger of the two."""
        return self.error / float(np.spacing(self._larger))

    @property
    def noises(self) -> float:
        """The error in units of the numeric derivative's own noise; infinite where that has none."""
        return self.error / self.numeric.noise if self.numeric.noise else float("inf")

    @property
    def _larger(self) -> float:
        return max(abs(self.analytic), abs(self.numeric.value), float(np.finfo(np.float64).tiny))


@dataclass(frozen=True, eq=False)
class Comparison:
    """The check of one input or parameter."""

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    """As it was given; the check itself ran in float64."""
    analytic: Array | None
    """The gradient that backward computed; None where none arrived (which counts as zero)."""
    points: tuple[Point, ...]

    __repr__ = brief_fields

    @property
    def wrong(self) -> list[Point]:
        """The points where the gradient is wrong."""
        return [point for point in self.points if point.wrong]

    @property
    def ok(self) -> bool:
        """Whether no point is wrong."""
        return not any(point.wrong for point in self.points)

    @property
    def every_element(self) -> bool:
        """Whether each element was compared, rather than directions and a sample."""
        return len(self.points) == math.prod(self.shape) and all(point.is_element for point in self.points)

    @property
    def excluded(self) -> int:
        """How many elements lie on a kink and have no derivative there."""
        elements = [point.direction.elements for point in self.points if point.numeric.excluded]
        return len(np.unique(np.concatenate(elements))) if elements else 0

    @property
    def kinks(self) -> Counter[str]:
        """Node -> how many excluded elements it excludes: the first one that they cross; others follow from it."""
        elements: dict[str, set[int]] = defaultdict(set)
        for point in self.points:
            if point.numeric.excluded:
                elements[next(iter(point.numeric.kinks))].update(point.direction.elements.tolist())
        return Counter({node: len(indices) for node, indices in elements.items()})

    def numeric(self) -> Array:
        """The numeric gradient, in the variable's shape, where single elements were measured; NaN elsewhere."""
        gradient = np.full(self.shape, np.nan)
        for point in self.points:
            if point.is_element:
                gradient.flat[point.direction.elements] = point.numeric.value * point.direction.weights
        return gradient

    def agreement(self) -> tuple[float, float]:
        """(cosine, relative L2 error) of the analytic and the numeric derivatives, over all points compared.

        A derivative of 0 has no direction (NaN), and every error is infinitely large beside it.
        """
        pairs = np.array([(p.analytic, p.numeric.value) for p in self.points if not p.numeric.excluded]).reshape(-1, 2)
        one, two = pairs[:, 0], pairs[:, 1]
        length, error, true = (float(np.linalg.norm(vector)) for vector in (one, one - two, two))
        cosine = float(one @ two) / (length * true) if length * true else float("nan")
        return cosine, error / true if true else float("inf") if error else 0.0

    @property
    def worst(self) -> Point | None:
        """The wrong point that is furthest off, in tolerances; a single element if there is one."""
        return max(self.wrong, key=lambda point: (point.is_element, point.error / point.tolerance), default=None)


@dataclass(frozen=True)
class GradReport:
    """The result of :func:`minires.gradcheck`. ``bool(report)`` says whether the gradient is right."""

    function: str
    seed: int
    comparisons: tuple[Comparison, ...] = ()
    problem: str = ""
    """What made a comparison impossible or pointless, in one sentence; empty otherwise."""
    problem_cause: str = ""
    """The family of that problem: "in place", "randomness", "broadcast", "shape" or "not finite"."""
    source: str = ""
    """``file:line`` of the code that was checked."""
    evaluations: int = 0
    diagnoses: tuple[Diagnosis, ...] = ()
    """Likely causes, the likeliest first; empty when the gradient is right, or wrong in no known way."""
    notes: tuple[str, ...] = ()
    repeat: str = ""
    """The line that repeats the check, where the function and its inputs have their names."""

    def __bool__(self) -> bool:
        return not self.problem and all(comparison.ok for comparison in self.comparisons)

    @property
    def ok(self) -> bool:
        """``bool(report)``."""
        return bool(self)

    @property
    def cause(self) -> str:
        """The family of the likeliest cause; empty when the gradient is right, or wrong in no known way."""
        return self.problem_cause or (self.diagnoses[0].cause if self.diagnoses else "")

    @property
    def excluded(self) -> int:
        """How many elements of all variables lie on kinks."""
        return sum(comparison.excluded for comparison in self.comparisons)

    @property
    def kinks(self) -> Counter[str]:
        """Node -> how many excluded elements it excludes, over all variables."""
        return sum((comparison.kinks for comparison in self.comparisons), Counter())

    def raise_if_wrong(self) -> GradReport:
        """Raise AssertionError with the whole explanation unless the gradient is right. Returns the report itself."""
        if not self:
            raise AssertionError(str(self))
        return self

    # ---------------------------------------------------------------- text

    def __str__(self) -> str:
        return "\n".join(self._lines())

    def __repr__(self) -> str:
        return few_lines(str(self), "print(report)")

    def _lines(self) -> Iterator[str]:
        verdict = "passed" if self else "FAILED"
        where = f"  {self.source}" if self.source else ""
        yield f"gradcheck {verdict}  {self.function}{where}  seed {self.seed}"
        if self.problem:
            yield f"  {self.problem}"
        quiet = [c for c in self.comparisons if c.ok and not c.excluded] if len(self.comparisons) > 12 else []
        doubtful = {name for each in self.diagnoses if each.cause in NUMERICAL for name in each.variables}
        for comparison in self.comparisons:
            if comparison not in quiet:
                yield from _comparison_lines(comparison, comparison.name in doubtful)
        if quiet:
            points = [point for comparison in quiet for point in comparison.points]
            elements = sum(point.is_element for point in points)
            yield f"  ok    {len(quiet)} others: {len(points) - elements} directions, {elements} elements"
        if self.diagnoses:
            yield f"  LIKELY CAUSE  {self.diagnoses[0]}"
            yield from (f"       or maybe  {other}" for other in self.diagnoses[1:3])
        elif any(not comparison.ok for comparison in self.comparisons):
            yield "  no known pattern: the mismatch fits none of the causes that are tried"
        yield from (f"  note: {note}" for note in self.notes)
        if not self and self.repeat:
            yield f"  to repeat it: {self.repeat}"

    # ---------------------------------------------------------------- other forms

    def to_dict(self) -> dict[str, Any]:
        """The report as plain Python values, for JSON."""
        return {
            "ok": bool(self),
            "function": self.function,
            "source": self.source,
            "seed": self.seed,
            "problem": self.problem,
            "cause": self.cause,
            "evaluations": self.evaluations,
            "excluded": self.excluded,
            "kinks": dict(self.kinks),
            "diagnoses": [
                {"cause": d.cause, "sentence": d.sentence, "variables": list(d.variables), "unexplained": d.unexplained}
                for d in self.diagnoses
            ],
            "notes": list(self.notes),
            "repeat": self.repeat,
            "comparisons": [_comparison_dict(comparison) for comparison in self.comparisons],
        }

    def _repr_html_(self) -> str:
        """What a notebook shows: the text, with a green or a red edge."""
        colour = "#0a7d33" if self else "#b3261e"
        return f'<pre style="border-left:4px solid {colour};padding-left:.8em">{escaped(repr(self))}</pre>'


def _comparison_lines(comparison: Comparison, doubtful: bool) -> Iterator[str]:
    elements = sum(point.is_element for point in comparison.points)
    how = (
        f"every element ({elements})"
        if comparison.every_element
        else f"{len(comparison.points) - elements} directions, {elements} elements"
    )
    state = "ok   " if comparison.ok else "WRONG"
    kinks = f"; {comparison.excluded} on kinks of {_listing(comparison.kinks)}" if comparison.excluded else ""
    nothing = "; no gradient arrives" if comparison.analytic is None else ""
    yield f"  {state} {comparison.name} {comparison.shape}: {how}{kinks}{nothing}"
    worst = comparison.worst
    if worst is None:
        return
    cosine, relative = comparison.agreement()
    yield (
        f"        {len(comparison.wrong)} of {len(comparison.points)} wrong   cosine {cosine:+.3f}   "
        f"relative L2 error {relative:.2g}   numeric noise {worst.numeric.noise:.0e}: "
        + ("if the step is right" if doubtful else "this isn't rounding")
    )
    yield (
        f"        worst {_place(worst, comparison)}   analytic {worst.analytic:+.6e}   "
        f"numeric {worst.numeric.value:+.6e}   relative error {worst.relative:.2g}: {worst.ulps:.1e} ulp, "
        f"{worst.noises:.1e} x noise"
    )
    if _has_map(comparison):
        yield f"        wrong where #: {_map(comparison)}"


def _has_map(comparison: Comparison) -> bool:
    return comparison.every_element and len(comparison.shape) >= 1


def _map(comparison: Comparison, most: int = 64) -> str:
    """Right (.), wrong (#) and excluded (o) elements, in rows of the last axis."""
    marks = "".join("#" if p.wrong else "o" if p.numeric.excluded else "." for p in comparison.points)
    width = comparison.shape[-1]
    rows = [marks[i : i + width] for i in range(0, min(len(marks), most), width)]
    return " ".join(rows) + (" ..." if len(marks) > most else "")


def _place(point: Point, comparison: Comparison) -> str:
    if not point.is_element:
        return f"along a random direction of {len(point.direction.elements)} elements"
    index = np.unravel_index(int(point.direction.elements[0]), comparison.shape)
    return f"{comparison.name}[{', '.join(str(int(i)) for i in index)}]"


def _listing(kinks: Counter[str], most: int = 4) -> str:
    names = [f"{name} ({count})" for name, count in kinks.most_common(most)]
    return ", ".join(names) + (f" and {len(kinks) - most} more nodes" if len(kinks) > most else "")


def _comparison_dict(comparison: Comparison) -> dict[str, Any]:
    worst, (cosine, relative) = comparison.worst, comparison.agreement()
    return {
        "name": comparison.name,
        "shape": list(comparison.shape),
        "dtype": str(comparison.dtype),
        "ok": comparison.ok,
        "points": len(comparison.points),
        "wrong": len(comparison.wrong),
        "every_element": comparison.every_element,
        "gradient_arrives": comparison.analytic is not None,
        "excluded": comparison.excluded,
        "kinks": dict(comparison.kinks),
        "cosine": _finite(cosine),
        "relative_error": _finite(relative),
        "worst": None
        if worst is None
        else {
            "place": _place(worst, comparison),
            "analytic": worst.analytic,
            "numeric": worst.numeric.value,
            "noise": worst.numeric.noise,
            "tolerance": worst.tolerance,
            "error": worst.error,
            "relative_error": worst.relative,
            "ulps": worst.ulps,
            "noises": _finite(worst.noises),
        },
        "map": _map(comparison) if worst is not None and _has_map(comparison) else None,
    }


def _finite(value: float) -> float | None:
    return value if np.isfinite(value) else None  # JSON knows neither NaN nor infinity
