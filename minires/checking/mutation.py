"""A score for gradient checks: how many of the planted mistakes do they notice?

``minires mutate`` prints our own check's beside those of the ways in which teaching engines check. How
``minires mutate tests/`` scores somebody's test suite: :mod:`minires.checking.suite`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import combinations
from typing import Any

import numpy as np

from minires.checking.cases import Case, cases_for
from minires.checking.gradcheck import gradcheck
from minires.checking.mutants import MUTANTS, Mutant, named, planted
from minires.checking.numerical import RATIO, richardson
from minires.checking.report import GradReport
from minires.graph import BackwardResultError
from minires.tensor import Tensor
from minires_kernels.arrays import Array

Checker = Callable[[Case], Any]
"""Accepts a case (what it returns is truthy) or refuses it."""


@dataclass(frozen=True)
class Score:
    """Which mistakes a checker or a test suite noticed.

    ``noticed``: name of the mutant -> what the checker returned, or the name of the test that failed. ``survived``: the
    names of the others.
    """

    name: str
    noticed: Mapping[str, Any]
    survived: tuple[str, ...]

    @property
    def killed(self) -> tuple[str, ...]:
        """The names of those that were noticed."""
        return tuple(self.noticed)

    @property
    def total(self) -> int:
        """How many mistakes there were."""
        return len(self.noticed) + len(self.survived)

    def __str__(self) -> str:
        return f"{self.name}: {len(self.noticed)} of {self.total} killed"


def score(name: str, checker: Checker, mutants: Iterable[Mutant] = tuple(MUTANTS.values())) -> Score:
    """Try ``checker`` on the cases of each mutant with the mistake planted; refusing one case is noticing.

    Raises ValueError when it refuses a case that is right: then its kills prove nothing.
    """
    mutants = tuple(mutants)
    for case in {case.name: case for mutant in mutants for case in cases_for(mutant)}.values():
        if not checker(case):
            raise ValueError(f"score: {name} refuses {case.name}, which is right")
    noticed: dict[str, Any] = {}
    for mutant in mutants:
        with planted(mutant):
            for case in cases_for(mutant):
                verdict = _verdict(checker, case)
                if not verdict:
                    noticed[mutant.name] = verdict
                    break
    return Score(name, noticed, tuple(mutant.name for mutant in mutants if mutant.name not in noticed))


def _verdict(checker: Checker, case: Case) -> Any:
    try:
        return checker(case)
    except BackwardResultError:  # the engine itself refused what backward returned
        return False


# ---------------------------------------------------------------- ways to check


def ours(case: Case) -> GradReport:
    """:func:`minires.gradcheck`."""
    return gradcheck(case.fn, *case.arrays)


def dezero_settings(case: Case) -> bool:
    """Every element of the first input, upstream gradient of ones, step 1e-4, rtol 1e-4, atol 1e-5: DeZero's check."""
    return _Backward(case, np.ones).agrees(_central(1e-4), rtol=1e-4, atol=1e-5, first_only=True)


def all_ones(case: Case) -> bool:
    """Every element of every input in float64, tight tolerances, but an upstream gradient of ones."""
    return _Backward(case, np.ones).agrees(_central(1e-6), rtol=1e-5, atol=1e-7)


def one_element(case: Case) -> bool:
    """One random element per input, upstream gradient of ones, step 1e-6, rtol and atol 1e-2: minitorch's check."""
    return _Backward(case, np.ones).agrees(_central(1e-6), rtol=1e-2, atol=1e-2, elements=1)


def mygrad_settings(case: Case) -> bool:
    """Every element of every input, a random upstream gradient, rtol and atol 1e-8, and politeness: MyGrad's own tests.

    ``backprop_test_factory`` in tests/wrappers/uber.py of github.com/rsokl/MyGrad; the package itself has nothing to
    check gradients with. Its derivatives are complex steps (tests/utils/numerical_gradient.py), exact to rounding; our
    kernels compute with real numbers, so Richardson's combination of differences stands in, close enough for 1e-8.
    """
    rng = np.random.default_rng(2)
    backward = _Backward(case, lambda shape: rng.uniform(-10, 10, shape))

    def derivative(value: Callable[[float], float]) -> float:
        return richardson(_central(1e-3)(value), _central(1e-3 / RATIO)(value))

    return backward.agrees(derivative, rtol=1e-8, atol=1e-8) and backward.is_polite()


def not_none(case: Case) -> bool:
    """Only that a gradient arrives: what a popular course tested until 2026."""
    return all(tensor.grad is not None for tensor in _Backward(case, np.ones).tensors)


Derivative = Callable[[Callable[[float], float]], float]
"""The derivative at 0 of a function of one number."""


def _central(step: float) -> Derivative:
    return lambda value: (value(step) - value(-step)) / (2 * step)


class _Backward:
    """The gradients of a case's inputs, for ``upstream(shape)``, and two questions about them."""

    def __init__(self, case: Case, upstream: Callable[[tuple[int, ...]], Array]) -> None:
        self._case = case
        self._arrays = [array.copy() for array in case.arrays]
        self.tensors = [Tensor(array, requires_grad=True) for array in self._arrays]
        output = case.fn(*self.tensors)
        self._upstream = upstream(output.shape)
        self._kept = self._upstream.copy()
        output.backward(self._upstream)

    def agrees(
        self, derivative: Derivative, *, rtol: float, atol: float, elements: int | None = None, first_only: bool = False
    ) -> bool:
        """Whether each element's gradient is close to ``derivative``: of all, or of ``elements`` random ones."""
        rng = np.random.default_rng(1)
        for array, tensor in list(zip(self._arrays, self.tensors, strict=True))[: 1 if first_only else None]:
            grad = np.zeros(array.shape) if tensor.grad is None else tensor.grad
            chosen = range(array.size) if elements is None else rng.integers(array.size, size=elements)
            for element in chosen:
                numeric = derivative(partial(self._moved, array.reshape(-1), element))
                if not np.isclose(grad.flat[element], numeric, rtol, atol):
                    return False
        return True

    def _moved(self, flat: Array, element: int, step: float) -> float:
        """The sum of upstream * output with one element of an input ``step`` away from where it is."""
        kept = flat[element]
        flat[element] = kept + step
        output = self._case.fn(*map(Tensor, self._arrays)).data
        flat[element] = kept
        return float((output * self._upstream).sum())

    def is_polite(self) -> bool:
        """Whether inputs and upstream gradient are what they were, and no gradients share memory with it or others."""
        arrays = [self._upstream, *(tensor.grad for tensor in self.tensors if tensor.grad is not None)]
        return (
            np.array_equal(self._upstream, self._kept)
            and all(map(np.array_equal, self._arrays, self._case.arrays))
            and not any(np.shares_memory(one, other) for one, other in combinations(arrays, 2))
        )


CHECKERS: dict[str, Checker] = {
    "minires.gradcheck": ours,
    "an all-ones upstream": all_ones,
    "DeZero's settings": dezero_settings,
    "MyGrad's tests' settings": mygrad_settings,
    "one element (minitorch)": one_element,
    "a gradient is there": not_none,
}


# ---------------------------------------------------------------- the command


def compare(names: Iterable[str] = tuple(MUTANTS)) -> Score:
    """Print how many mistakes each of ``CHECKERS`` notices, and how well ours names their causes; returns our score.

    Raises ValueError for an unknown name of a mistake.
    """
    scores = [score(name, checker, named(names, "mutate")) for name, checker in CHECKERS.items()]
    for result in scores:
        print(f"{result.name:26s} {len(result.killed):3d} of {result.total} killed")
    print(f"\n{confusion(scores[0])}")
    return scores[0]


def confusion(ours: Score) -> str:
    """The table of diagnoses: for each true cause, what our check named first."""
    causes = {name: report.cause or "no known pattern" for name, report in ours.noticed.items()}
    causes |= dict.fromkeys(ours.survived, "not noticed")
    found: dict[str, dict[str, list[str]]] = {}
    for mutant in named(causes, "confusion"):
        found.setdefault(mutant.cause, {}).setdefault(causes[mutant.name], []).append(mutant.name)
    right = sum(len(row.get(cause, [])) for cause, row in found.items())
    lines = [f"{'true cause':22s} named first"]
    for cause, row in sorted(found.items()):
        parts = [f"{len(names)} {first}" + ("" if first == cause else f" ({', '.join(names)})")
                 for first, names in sorted(row.items(), key=lambda item: item[0] != cause)]  # fmt: skip
        lines.append(f"{cause:22s} {'; '.join(parts)}")
    return "\n".join([*lines, f"the first diagnosis is right for {right} of {ours.total}"])
