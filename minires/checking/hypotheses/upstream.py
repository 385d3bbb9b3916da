"""Hypotheses about the upstream gradient v: the wrong result is right for another v."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from minires.checking.evidence import Evidence
from minires.checking.hypotheses.candidate import Candidate, axis_name, rearrangements
from minires_kernels.arrays import Array


def other_upstream(e: Evidence) -> Iterator[Candidate]:
    """The wrong result is right for another upstream gradient."""
    if e.detached:
        return
    for cause, text, rank, changed in upstreams(e):
        left = e.unexplained(e.analytic - e.pull_back(changed))
        yield Candidate(cause, f"the result is right for an upstream gradient that was {text}", left, rank)


def upstreams(e: Evidence) -> Iterator[tuple[str, str, int, Array]]:
    """(cause, text, rank, v) for each plausible confusion about the upstream gradient."""
    v, y, ndim = e.upstream, e.output, e.upstream.ndim
    yield "upstream", "replaced by ones", 3, np.ones(v.shape)
    yield "mask", "cut to its positive part (the mask was taken from the gradient)", 3, v * (v > 0)
    yield "mask", "gated where the output is positive", 4, v * (y > 0)
    yield "mask", "gated where the output is not positive", 4, v * (y <= 0)
    yield "upstream", "multiplied by the output", 4, v * y
    for cause, text, moved in rearrangements(v):
        yield cause, text, 3, moved
    for axis in range(ndim):
        length = v.shape[axis]
        if length < 2:
            continue
        name = axis_name(axis, ndim)
        yield "mean term", f"freed of its mean along {name}", 5, v - v.mean(axis, keepdims=True)
        yield "factor", f"averaged along {name}", 5, np.broadcast_to(v.mean(axis, keepdims=True), v.shape)
        for k in (0, length - 1):
            only = np.zeros(v.shape)
            place = tuple(slice(None) if i != axis else k for i in range(ndim))
            only[place] = v[place]
            yield "partial", f"zero but at index {k} of {name}: a sum over it is missing, or overwritten", 3, only
            yield "partial", f"zero at index {k} of {name}: one term of the sum is missing", 5, v - only


def overwritten_by_windows(e: Evidence) -> Iterator[Candidate]:
    """Each element got the gradient of only one of the places that it takes part in: = where += belongs."""
    by_output = e.jacobian * e.upstream.reshape(-1)  # (elements, outputs)
    groupings = [by_output]
    if e.output.ndim == 4:  # the places of an image, all its channels together
        N, O, OH, OW = e.output.shape
        groupings.append(by_output.reshape(-1, N, O, OH * OW).sum(2).reshape(len(by_output), -1))
    for parts in groupings:
        used = np.abs(parts) > 1e-7 * np.abs(parts).max(initial=0.0)
        if not (used.sum(1) > 1).any():
            continue
        rows = np.arange(len(parts))
        last = used.shape[1] - 1 - used[:, ::-1].argmax(1)
        for which, column in (("last", last), ("first", used.argmax(1))):
            left = e.unexplained(e.analytic - np.where(used.any(1), parts[rows, column], 0))
            sentence = f"each element has the gradient of the {which} place that uses it alone: overwritten, not added"
            yield Candidate("overwritten", sentence, left, 3)


def other_at_the_border(e: Evidence) -> Iterator[Candidate]:
    """The result is right for an upstream gradient that differs at the border of the image only."""
    if e.output.ndim != 4 or min(e.output.shape[2:]) < 3:
        return
    border = np.ones(e.output.shape, bool)
    border[:, :, 1:-1, 1:-1] = False
    border = border.reshape(-1)
    if border.sum() * 2 > len(e.elements):
        return
    change, *_ = np.linalg.lstsq(e.jacobian[:, border], e.analytic - e.numeric, rcond=None)
    left = e.unexplained(e.analytic - e.numeric - e.jacobian[:, border] @ change)
    yield Candidate("border", "the result is wrong in the windows at the border only: how padding is counted", left, 5)


def unweighted_windows(e: Evidence) -> Iterator[Candidate]:
    """Every output's gradient went, whole or in equal parts, to all elements of its window, instead of to one."""
    used = np.abs(e.jacobian) > 1e-7
    if e.x.ndim != 4 or not e.complete or used.sum(0).max(initial=0) != 1:
        return
    where = used.argmax(0)  # each output takes one element: a maximum
    values = e.x.reshape(-1)[e.elements]
    if not np.allclose(values[where], e.output.reshape(-1)):
        return
    total, given = float(e.upstream.sum()), float(e.analytic.sum())
    moved = abs(total - given) <= 1e-6 * float(np.abs(e.upstream).sum())
    sentence = "each output is the largest of its window, but the gradient doesn't go to that element"
    yield Candidate("argmax", sentence + (" (its sum is right)" if moved else ""), 0.0, 7)
