"""Why a gradient is wrong: the likeliest of the named hypotheses, with how well it fits."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

from minires.checking.evidence import Evidence
from minires.checking.hypotheses import HYPOTHESES, Candidate
from minires.checking.hypotheses.candidate import GOOD

NUMERICAL = ("truncation", "rounding")
"""The causes that lie in the differences: they leave open whether the gradient is right."""


@dataclass(frozen=True)
class Diagnosis:
    """A likely cause. ``unexplained``: the part of the mismatch that it leaves, 0 for a perfect fit."""

    cause: str
    sentence: str
    variables: tuple[str, ...]
    unexplained: float

    def __str__(self) -> str:
        fit = "fits to the last digit" if self.unexplained < 1e-9 else f"leaves {self.unexplained:.0e} of the mismatch"
        return f"{self.sentence} ({', '.join(self.variables)}; {fit})"


def diagnose(cases: list[Evidence]) -> tuple[Diagnosis, ...]:
    """The causes that fit, likeliest first: those that explain most variables, then the simplest, then the best fit.

    Empty when nothing fits: an honest "no known pattern".
    """
    found: dict[str, list[tuple[Evidence, Candidate]]] = defaultdict(list)
    for case in cases:
        best: dict[str, Candidate] = {}
        for hypothesis in HYPOTHESES:
            for candidate in hypothesis(case):
                known = best.get(candidate.cause)
                if candidate.unexplained < GOOD and (known is None or _order(candidate) < _order(known)):
                    best[candidate.cause] = candidate
        for candidate in best.values():
            found[candidate.cause].append((case, candidate))

    def likeliness(item: tuple[str, list[tuple[Evidence, Candidate]]]) -> tuple[int, int, float]:
        fits = [candidate for _, candidate in item[1]]
        return (-len(fits), min(fit.rank for fit in fits), max(fit.unexplained for fit in fits))

    return tuple(
        Diagnosis(
            cause,
            min((candidate for _, candidate in fits), key=_order).sentence,
            tuple(case.name for case, _ in fits),
            max(candidate.unexplained for _, candidate in fits),
        )
        for cause, fits in sorted(found.items(), key=likeliness)
    )


def _order(candidate: Candidate) -> tuple[int, float]:
    return candidate.rank, candidate.unexplained
