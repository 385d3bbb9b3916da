"""Where two results differ, in words: for whoever looks for the mistake in a kernel.

A flat index says nothing to a reader. ``(n, o, oh, ow) = (0, 2, 4, 1)`` does, and so does "all at oh = 4, the last": a
border that was forgotten, one image of the batch, one channel.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

Floats = np.ndarray[Any, Any]

FEW = 3
"""Elements that are named one by one."""


def difference(found: Floats, expected: Floats, limit: float, name: str = "result") -> str:
    """What is wrong with ``found``, or an empty string where each element is within ``limit`` of ``expected``.

    ``limit`` is absolute; infinities and NaN must stand where they are expected. ``name`` is the result's, followed by
    those of its axes if they have any, as in a contract's ``KERNELS``: ``"y n o oh ow"``.

    >>> found = np.zeros((1, 2, 3, 4))
    >>> found[0, 1, 2, 0] = 0.5
    >>> difference(found, np.zeros((1, 2, 3, 4)), 1e-6, "y n o oh ow")
    'y: 1 of 24 elements is wrong; (n, o, oh, ow) = (0, 1, 2, 0): 0.5 where 0 is expected; 1e-06 is allowed'
    """
    name, *axes = name.split()
    if found.shape != expected.shape:
        return f"{name}: the shape is {found.shape}, but {expected.shape} is expected"
    with np.errstate(invalid="ignore"):  # inf - inf
        apart = np.abs(np.subtract(found, expected, dtype=np.result_type(found, expected, np.float64)))
    same = (found == expected) | (np.isnan(found) & np.isnan(expected))
    wrong = ~(same | (np.isfinite(found) & (apart <= limit)))
    if not wrong.any():
        return ""
    places = np.argwhere(wrong)
    worst_first = np.argsort(-np.nan_to_num(apart[wrong], nan=np.inf), kind="stable")[:FEW]
    listing = [_element(tuple(map(int, places[i])), found, expected) for i in worst_first]
    more = "" if len(places) <= FEW else f"; and {len(places) - FEW} more"
    letters = f"({', '.join(axes)}) = " if axes else "at "
    verb = "is" if len(places) == 1 else "are"
    return (
        f"{name}: {len(places)} of {found.size} elements {verb} wrong{_pattern(places, found.shape, axes)}; "
        f"{letters}{'; '.join(listing)}{more}; {limit:.2g} is allowed"
    )


def _element(place: tuple[int, ...], found: Floats, expected: Floats) -> str:
    return f"{place}: {found[place]:.7g} where {expected[place]:.7g} is expected"


def _pattern(places: Floats, shape: Sequence[int], axes: Sequence[str]) -> str:
    """The axes along which all wrong ``places`` share one of several indices: ``, all at oh = 4 (the last)``."""
    shared = []
    for axis, length in enumerate(shape):
        indices = np.unique(places[:, axis])
        if length > 1 and len(indices) == 1:
            end = " (the last)" if indices[0] == length - 1 else ""
            shared.append(f"{axes[axis] if axes else f'axis {axis}'} = {indices[0]}{end}")
    return f", all at {', '.join(shared)}" if shared and len(places) > 1 else ""
