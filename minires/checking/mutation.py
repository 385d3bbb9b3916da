"""A score for gradient tests: how many of the planted mistakes do they notice?

``python -m minires.checking.mutation`` scores our own check beside the ways in which teaching engines check.
``python -m minires.checking.mutation tests/`` (or ``minires mutate tests/``) runs somebody's pytest suite once per
mistake: a mistake that no test notices survives, and is a hole in the suite.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from minires.checking.cases import Case, cases_for
from minires.checking.gradcheck import gradcheck
from minires.checking.mutants import MUTANTS, Mutant, planted
from minires.tensor import Tensor

Checker = Callable[[Case], bool]
"""Accepts a case (True) or refuses it."""


@dataclass(frozen=True)
class Score:
    """Which mistakes a checker or a test suite noticed."""

    name: str
    killed: tuple[str, ...]
    survived: tuple[str, ...]

    @property
    def total(self) -> int:
        """How many mistakes there were."""
        return len(self.killed) + len(self.survived)

    def __str__(self) -> str:
        return f"{self.name}: {len(self.killed)} of {self.total} killed"


def score(name: str, checker: Checker, mutants: Iterable[Mutant] = tuple(MUTANTS.values())) -> Score:
    """Try ``checker`` on the cases of each mutant with the mistake planted; refusing one case is noticing.

    Raises ValueError when it refuses a case that is right: then its kills prove nothing.
    """
    mutants = tuple(mutants)
    for case in {case.name: case for mutant in mutants for case in cases_for(mutant)}.values():
        if not checker(case):
            raise ValueError(f"score: {name} refuses {case.name}, which is right")
    killed: list[str] = []
    survived: list[str] = []
    for mutant in mutants:
        with planted(mutant):
            noticed = any(not _accepts(checker, case) for case in cases_for(mutant))
        (killed if noticed else survived).append(mutant.name)
    return Score(name, tuple(killed), tuple(survived))


def _accepts(checker: Checker, case: Case) -> bool:
    try:
        return checker(case)
    except RuntimeError:  # the engine itself refused what backward returned
        return False


# ---------------------------------------------------------------- ways to check


def ours(case: Case) -> bool:
    """:func:`minires.gradcheck`."""
    return bool(gradcheck(case.fn, *case.arrays))


def dezero_settings(case: Case) -> bool:
    """Every element of the first input, upstream gradient of ones, step 1e-4, rtol 1e-4, atol 1e-5: DeZero's check."""
    return _plain_check(case, ones=True, step=1e-4, rtol=1e-4, atol=1e-5, first_only=True)


def all_ones(case: Case) -> bool:
    """Every element of every input in float64, tight tolerances, but an upstream gradient of ones."""
    return _plain_check(case, ones=True, step=1e-6, rtol=1e-5, atol=1e-7)


def one_element(case: Case) -> bool:
    """One random element per input, upstream gradient of ones, step 1e-6, rtol and atol 1e-2: minitorch's check."""
    return _plain_check(case, ones=True, step=1e-6, rtol=1e-2, atol=1e-2, elements=1)


def not_none(case: Case) -> bool:
    """Only that a gradient arrives: what a popular course tested until 2026."""
    tensors = [Tensor(array.copy(), requires_grad=True) for array in case.arrays]
    output = case.fn(*tensors)
    output.backward(np.ones(output.shape))
    return all(tensor.grad is not None for tensor in tensors)


def _plain_check(
    case: Case,
    *,
    ones: bool,
    step: float,
    rtol: float,
    atol: float,
    elements: int | None = None,
    first_only: bool = False,
) -> bool:
    rng = np.random.default_rng(1)
    arrays = [array.copy() for array in case.arrays]
    tensors = [Tensor(array, requires_grad=True) for array in arrays]
    output = case.fn(*tensors)
    upstream = np.ones(output.shape) if ones else rng.standard_normal(output.shape)
    output.backward(upstream)

    def value() -> float:
        return float((case.fn(*map(Tensor, arrays)).data * upstream).sum())

    for array, tensor in list(zip(arrays, tensors, strict=True))[: 1 if first_only else None]:
        grad = np.zeros(array.shape) if tensor.grad is None else tensor.grad
        chosen = range(array.size) if elements is None else rng.integers(array.size, size=elements)
        for element in chosen:
            kept = array.flat[element]
            array.flat[element] = kept + step
            above = value()
            array.flat[element] = kept - step
            below = value()
            array.flat[element] = kept
            if not np.isclose(grad.flat[element], (above - below) / (2 * step), rtol, atol):
                return False
    return True


CHECKERS: dict[str, Checker] = {
    "minires.gradcheck": ours,
    "an all-ones upstream": all_ones,
    "DeZero's settings": dezero_settings,
    "one element (minitorch)": one_element,
    "a gradient is there": not_none,
}


# ---------------------------------------------------------------- somebody's test suite


def score_suite(
    arguments: Sequence[str], names: Iterable[str] = tuple(MUTANTS), *, report: Callable[[str], None] = print
) -> Score:
    """Run ``pytest *arguments`` once per mistake, in a process of its own with the mistake planted.

    ``report`` gets a line per mistake. Raises RuntimeError, with pytest's last lines, when the suite doesn't pass
    without any; ValueError for an unknown name.
    """
    names = tuple(names)
    unknown = [name for name in names if name not in MUTANTS]
    if unknown:
        raise ValueError(f"mutate: there is no mutant {unknown[0]!r}; there are: {', '.join(MUTANTS)}")
    code, output = _pytest(arguments)
    if code:
        raise RuntimeError(f"mutate: the suite must pass before mistakes are planted, but pytest says:\n{output}")
    killed: list[str] = []
    survived: list[str] = []
    for name in names:
        code, _ = _pytest([*arguments, f"--gradcheck-mutant={name}"])
        (killed if code else survived).append(name)
        report(f"{'killed  ' if code else 'SURVIVED'}  {name}: {MUTANTS[name].sentence}")
    return Score("pytest " + " ".join(arguments), tuple(killed), tuple(survived))


def _pytest(arguments: Sequence[str]) -> tuple[int, str]:
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *arguments]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    return result.returncode, "\n".join(result.stdout.splitlines()[-15:])


def confusion(mutants: Sequence[Mutant]) -> str:
    """The table of diagnoses: for each true cause, what our check named first."""
    named: dict[str, dict[str, list[str]]] = {}
    for mutant in mutants:
        with planted(mutant):
            reports = [gradcheck(case.fn, *case.arrays) for case in cases_for(mutant)]
        cause = next((report.cause for report in reports if not report), "not noticed") or "no known pattern"
        named.setdefault(mutant.cause, {}).setdefault(cause, []).append(mutant.name)
    right = sum(len(row.get(cause, [])) for cause, row in named.items())
    lines = [f"{'true cause':22s} named first"]
    for cause, row in sorted(named.items()):
        parts = [f"{len(names)} {found}" + ("" if found == cause else f" ({', '.join(names)})")
                 for found, names in sorted(row.items(), key=lambda item: item[0] != cause)]  # fmt: skip
        lines.append(f"{cause:22s} {'; '.join(parts)}")
    return "\n".join([*lines, f"the first diagnosis is right for {right} of {len(mutants)}"])


def run(tests: Sequence[str], only: Sequence[str]) -> int:
    """``minires mutate``: score the suite ``tests``, or our own check; 1 when a mistake survived, else 0."""
    if tests:
        result = score_suite(tests, only or tuple(MUTANTS))
        print(result)
        return int(bool(result.survived))
    chosen = [MUTANTS[name] for name in only] or list(MUTANTS.values())
    scores = [score(name, checker, chosen) for name, checker in CHECKERS.items()]
    for result in scores:
        print(f"{result.name:26s} {len(result.killed):3d} of {result.total} killed")
    print(f"\n{confusion(chosen)}")
    return int(bool(scores[0].survived))


def main() -> int:
    """The command line of this file."""
    parser = argparse.ArgumentParser(prog="minires mutate", description=__doc__)
    parser.add_argument("tests", nargs="*", help="what to pass on to pytest; nothing: score our own check")
    parser.add_argument("--only", action="append", default=[], help="a mistake's name; may be repeated")
    options = parser.parse_args()
    return run(options.tests, options.only)


if __name__ == "__main__":
    sys.exit(main())
