"""An explanation of a mismatch, and the confusions that several hypotheses try."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from minires_kernels.arrays import Array

GOOD = 1e-3
"""An explanation counts if it leaves less than this part of the mismatch unexplained."""


@dataclass(frozen=True)
class Candidate:
    """One explanation. ``cause`` is its family; ``rank`` orders equally good ones, the simplest (lowest) first."""

    cause: str
    sentence: str
    unexplained: float
    rank: int = 5


def axis_name(axis: int, ndim: int) -> str:
    """What the field calls an axis of an array of ``ndim`` axes."""
    names = {4: ("batch", "channel", "row", "column"), 2: ("batch", "feature")}.get(ndim)
    return f"the {names[axis]} axis" if names else f"axis {axis}"


def rearrangements(array: Array) -> Iterator[tuple[str, str, Array]]:
    """(cause, text, array) for each plausible confusion of axes and directions."""
    ndim = array.ndim
    for one, two in itertools.combinations(range(ndim), 2):
        if array.shape[one] == array.shape[two] > 1:
            names = f"{axis_name(one, ndim)} and {axis_name(two, ndim)}"
            yield "transposed", f"transposed ({names} exchanged)", array.swapaxes(one, two)
    if ndim == 4 and max(array.shape[2:]) > 1:
        yield "flipped", "flipped along rows and columns", array[:, :, ::-1, ::-1]
    for axis in range(ndim):
        if array.shape[axis] < 2:
            continue
        cause = "permuted" if axis < 2 and ndim in (2, 4) else "flipped"
        yield cause, f"reversed along {axis_name(axis, ndim)}", np.flip(array, axis)
        if array.shape[axis] > 2:
            for by in range(1, min(array.shape[axis], 8)):
                cause = "permuted" if axis == 0 or (axis == 1 and ndim == 4) else "shifted"
                yield cause, f"shifted by {by} along {axis_name(axis, ndim)} (wrapping)", np.roll(array, by, axis)
