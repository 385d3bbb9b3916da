"""Measuring a function's derivative along a direction: the step, the kinks on the way, the noise of the result."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field

import numpy as np

from minires.checking.kinks import Choices
from minires.checking.numerical import LADDER, RATIO, Plateau, find_plateau, richardson
from minires.checking.subject import Subject
from minires.display import brief_fields
from minires_kernels.arrays import Array


@dataclass(frozen=True)
class Direction:
    """A way to move one variable: ``weights`` (one per element of ``elements``, flat indices) times the step."""

    variable: int
    elements: Array  # (count,) integers
    weights: Array  # (count,) around +1 or -1

    __repr__ = brief_fields

    def halves(self) -> tuple[Direction, Direction]:
        """The same direction, as two of half as many elements."""
        middle = len(self.elements) // 2
        first, second = slice(None, middle), slice(middle, None)
        return (
            Direction(self.variable, self.elements[first], self.weights[first]),
            Direction(self.variable, self.elements[second], self.weights[second]),
        )


@dataclass(frozen=True)
class Measurement:
    """The numeric derivative along a direction and its expected error; or the kinks that stand in the way."""

    value: float
    noise: float
    step: float
    kinks: Counter[str] = field(default_factory=Counter)

    @property
    def excluded(self) -> bool:
        """Whether a kink lies within every usable step, so that there is no derivative to compare with."""
        return math.isnan(self.value)


class Meter:
    """Derivatives of sum(upstream * f) at the variables' present values, by differences."""

    is_exact = False
    """Whether there is no step to doubt."""

    def __init__(self, subject: Subject, upstream: Array, base: Choices, output: Array) -> None:
        self._subject, self._upstream, self._base = subject, upstream, base
        self.scales = [_scale(variable.array) for variable in subject.variables]
        unit = np.finfo(np.float64).eps / 2
        self.least_noise = unit * float(np.linalg.norm(upstream * output)) if output.size else 0.0
        self.evaluations = 0
        self._plateaus: dict[int, Plateau] = {}
        self._joint: Plateau | None = None

    # ---------------------------------------------------------------- quotients

    def slopes(self, moves: list[Direction], step: float) -> tuple[float, float, float, Counter[str]]:
        """(central, left, right) difference quotients with a relative ``step``, and the kinks crossed on the way."""
        middle, _ = self._at([], 0.0)
        plus, crossed_plus = self._at(moves, step)
        minus, crossed_minus = self._at(moves, -step)
        left = float(np.sum(self._upstream * (middle - minus))) / self._length(moves, step)
        right = float(np.sum(self._upstream * (plus - middle))) / self._length(moves, step)
        return (left + right) / 2, left, right, crossed_plus | crossed_minus

    def central(self, moves: list[Direction], step: float) -> tuple[float, Counter[str]]:
        """The central difference quotient with a relative ``step``, and the kinks crossed on the way."""
        plus, crossed_plus = self._at(moves, step)
        minus, crossed_minus = self._at(moves, -step)
        # Subtracting before summing: what the move doesn't reach cancels exactly and adds no noise.
        difference = float(np.sum(self._upstream * (plus - minus)))
        return difference / (2 * self._length(moves, step)), crossed_plus | crossed_minus

    def changed(self, direction: Direction, middle: float, step: float) -> Array:
        """Which outputs differ between ``middle`` - ``step`` and ``middle`` + ``step`` along ``direction``."""
        plus, minus = (self._at([direction], middle + side * step)[0] for side in (1, -1))
        return np.asarray(plus != minus)

    def jacobian_row(self, direction: Direction, step: float, watch_kinks: bool = True) -> Array:
        """The derivative of every output along ``direction``, flat; the step shrinks where a kink is crossed."""
        for _ in range(8):
            rows = []
            for each in (step, step / RATIO):
                plus, crossed_plus = self._at([direction], each)
                minus, crossed_minus = self._at([direction], -each)
                rows.append((plus - minus) / (2 * self._length([direction], each)))
            if not (watch_kinks and (crossed_plus or crossed_minus)):
                break
            step /= RATIO
        return richardson(*rows).reshape(-1)

    def _length(self, moves: list[Direction], step: float) -> float:
        """The step in the unit of the derivative: of the one variable moved, or relative when several are."""
        return step * (self.scales[moves[0].variable] if len(moves) == 1 else 1.0)

    def _at(self, moves: list[Direction], step: float) -> tuple[Array, Counter[str]]:
        self.evaluations += 1
        kept = []
        for move in moves:
            flat = self._subject.variables[move.variable].array.flat
            values = flat[move.elements]
            kept.append((flat, move.elements, values))
            flat[move.elements] = values + move.weights * (step * self.scales[move.variable])
        try:
            with np.errstate(all="ignore"):  # a large trial step may leave the domain: the result is then not finite
                evaluation = self._subject.evaluate()
        finally:
            for flat, elements, values in kept:
                flat[elements] = values
        if evaluation.output.shape != self._upstream.shape:
            return np.full(self._upstream.shape, np.nan), Counter()
        return evaluation.output, evaluation.choices.crossed(self._base)

    # ---------------------------------------------------------------- steps

    def plateau(self, variable: int, rng: np.random.Generator) -> Plateau:
        """The best step for ``variable``: measured along a random direction of it, once."""
        if variable not in self._plateaus:
            self._plateaus[variable] = self._find([self.random_direction(variable, rng)])
        return self._plateaus[variable]

    def joint_plateau(self, rng: np.random.Generator) -> Plateau:
        """One step for all variables together, for functions of many: measured once."""
        if self._joint is None:
            count = len(self._subject.variables)
            self._joint = self._find([self.random_direction(i, rng) for i in range(count)])
        return self._joint

    def plateaus(self) -> list[Plateau]:
        """Every step that was measured."""
        return [*self._plateaus.values(), *([self._joint] if self._joint else [])]

    def _find(self, moves: list[Direction]) -> Plateau:
        _, always = self.central(moves, LADDER[-1])  # kinks at the very point are crossed by every step

        def quotient(step: float) -> float:
            value, crossed = self.central(moves, step)
            return value * self._length(moves, step) / step if crossed == always else math.nan

        try:
            return find_plateau(quotient, self.least_noise)
        except ArithmeticError:
            return Plateau(LADDER[8], self.least_noise, 0.0, math.nan, math.nan)

    def random_direction(self, variable: int, rng: np.random.Generator) -> Direction:
        """All elements of a variable, each one way or the other, by unequal amounts.

        Unequal, since many functions don't change when all elements move alike (softmax, batch norm): such a direction
        would say that every step is fine.
        """
        size = self._subject.variables[variable].array.size
        return Direction(variable, np.arange(size), rng.choice((-1.0, 1.0), size) * rng.uniform(0.5, 1.5, size))

    # ---------------------------------------------------------------- measuring

    def measure(self, direction: Direction, plateau: Plateau, worth: float) -> Measurement:
        """The derivative along ``direction``; the step shrinks until no kink is crossed.

        ``worth``: the noise at which a derivative stops telling anything, an absolute number.
        """
        scale = self.scales[direction.variable]
        steps = [plateau.step]
        while (finer := steps[-1] / RATIO) >= LADDER[-1] and plateau.noise(finer) / scale <= worth:
            steps.append(finer)
        kinks = Counter[str]()
        for step in steps:
            value, crossed = self.central([direction], step / RATIO)
            if not crossed and not plateau.plain:
                coarse, crossed = self.central([direction], step)
                value = richardson(coarse, value)
            if not crossed and math.isfinite(value):
                return Measurement(value, plateau.noise(step) / scale, step)
            if crossed and not kinks:
                _, always = self.central([direction], steps[-1] / RATIO)
                if always:  # even the smallest step crosses: the point lies on the kink itself
                    return Measurement(math.nan, math.nan, steps[-1], always)
            kinks = crossed or kinks
        return Measurement(math.nan, math.nan, steps[-1], kinks or Counter({"values that are not finite": 1}))


def _scale(array: Array) -> float:
    """The power of two next to the typical size of ``array``'s elements; 1 where all are 0."""
    if not array.size:
        return 1.0
    typical = float(np.sqrt(np.mean(np.square(array, dtype=np.float64))))
    return 2.0 ** round(math.log2(typical)) if typical > 0 else 1.0
