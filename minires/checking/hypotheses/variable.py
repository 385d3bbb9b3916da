"""Hypotheses about the variables: the wrong result is right for another value of one of them."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from minires.checking.evidence import Evidence
from minires.checking.hypotheses.candidate import GOOD, Candidate, rearrangements
from minires_kernels.arrays import Array


def other_variable(e: Evidence) -> Iterator[Candidate]:
    """The wrong result is right for another value of one of the variables."""
    if e.detached or len(e.others) > 4:  # each replacement is measured anew: not for whole nets
        return
    for name, value in (*e.others.items(), (e.name, e.x)):
        for cause, text, rank, changed in replacements(name, value, e):
            left = e.unexplained_with(name, changed, GOOD)
            yield Candidate(cause, f"the result is right if {name} were {text}", left, rank)


def replacements(name: str, value: Array, e: Evidence) -> Iterator[tuple[str, str, int, Array]]:
    """(cause, text, rank, value) for each plausible confusion about a variable."""
    yield "factor", "all ones: it was left out", 3, np.ones(value.shape)
    if name != e.name and value.shape == e.shape:
        yield "swapped", f"{e.name}: the operands are confused", 4, e.x
    if value.ndim in (2, 4) and value.size <= 4096:
        for cause, text, moved in rearrangements(value):
            yield cause, text, 4, np.ascontiguousarray(moved)
    if value.ndim >= 1 and value.shape[0] > 1:
        yield "partial", "the mean of itself", 6, np.full(value.shape, value.mean())
