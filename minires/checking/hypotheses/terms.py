"""Hypotheses about terms that are missing: of a batch's statistics, of a softmax's sum, of a target."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from minires.checking.evidence import Evidence
from minires.checking.hypotheses.candidate import Candidate, axis_name


def missing_terms(e: Evidence) -> Iterator[Candidate]:
    """numeric - analytic is, within each channel (or row), constant, or parallel to x - mean, or both."""
    residual = e.numeric - e.analytic
    if e.x.ndim not in (2, 4) or not e.complete:
        return
    channel = e.index[1]
    count, channels = len(e.elements) // e.shape[1], e.shape[1]
    if count < 4:
        return
    mean = np.bincount(channel, e.values, channels) / count
    centred = e.values - mean[channel]
    spread = np.bincount(channel, centred**2, channels)
    level = (np.bincount(channel, residual, channels) / count)[channel]
    slope = (np.bincount(channel, residual * centred, channels) / np.where(spread, spread, 1))[channel] * centred
    about = "of the batch's statistics is missing from (or wrong in) backward"
    for cause, text, explained, rank in (
        ("mean term", f"constant within each channel: the mean term {about}", level, 3),
        ("variance term", f"parallel to x - mean within each channel: the variance term {about}", slope, 3),
        ("constant statistics", f"a x + b within each channel: both the mean and the variance term {about}",
         level + slope, 4),
    ):  # fmt: skip
        yield Candidate(cause, f"numeric - analytic is {text}", e.unexplained(residual - explained), rank)


def missing_softmax_term(e: Evidence) -> Iterator[Candidate]:
    """numeric - analytic is, in each row, a multiple of the output (or of its exponential): a softmax's sum term."""
    if e.shape != e.output.shape or not e.complete:
        return
    residual = e.grid(e.numeric - e.analytic)
    for axis in range(e.x.ndim):
        if e.shape[axis] < 3 or e.x.size == e.shape[axis]:
            continue
        if np.ptp(residual, axis).max() < 1e-6 * np.abs(residual).max():
            continue  # a constant in each slice: that is a missing mean, no softmax
        for basis in (e.output, np.exp(np.minimum(e.output, 50.0))):
            level = residual.mean(axis, keepdims=True) if e.shape[axis] >= 5 else 0.0
            centred = basis - basis.mean(axis, keepdims=True) if e.shape[axis] >= 5 else basis
            square = (centred**2).sum(axis, keepdims=True)
            explained = level + centred * (residual * centred).sum(axis, keepdims=True) / np.where(square, square, 1)
            left = e.unexplained((residual - explained).reshape(-1))
            sentence = f"numeric - analytic is the output times a number per slice of {axis_name(axis, e.x.ndim)}: " \
                       "the sum term of a softmax is missing or wrong"  # fmt: skip
            yield Candidate("sum term", sentence, left, 2)


def diagonal_only(e: Evidence) -> Iterator[Candidate]:
    """analytic = the diagonal of the Jacobian times the upstream gradient: the other elements' part is missing."""
    if e.shape != e.output.shape:
        return
    diagonal = e.jacobian[np.arange(len(e.elements)), e.elements]
    left = e.unexplained(e.analytic - diagonal * e.upstream.reshape(-1)[e.elements])
    sentence = "each output depends on several elements, but each element got the gradient of its own output alone"
    yield Candidate("sum term", sentence, left, 2)


def one_hot(e: Evidence) -> Iterator[Candidate]:
    """numeric - analytic is one number per row in one place, or two opposite ones: a target forgotten or misplaced."""
    if e.x.ndim != 2 or not e.complete or e.shape[1] < 3:
        return
    residual = e.grid(e.numeric - e.analytic)
    there = np.abs(residual) > max(1e-6 * float(np.abs(residual).max()), 10 * e.noise)
    counts = set(there.sum(1).tolist())
    size = np.abs(residual[there])
    if not size.size or np.ptp(size) > 1e-6 * size.max():
        return
    if counts == {1}:
        yield Candidate("target", "one element of each row is off by the same amount: no target subtracted", 0.0, 1)
    elif counts == {2} and np.abs(residual.sum(1)).max() < 1e-6 * size.max():
        yield Candidate("target", "two elements of each row are off, oppositely: the target's index is off", 0.0, 1)


def raw_input(e: Evidence) -> Iterator[Candidate]:
    """A scale's gradient, summed over the input as it is instead of over the normalized one."""
    for name, other in e.others.items():
        if e.x.ndim == 1 and other.shape == e.output.shape and other.ndim in (2, 4) and other.shape[1] == e.x.size:
            axes = tuple(axis for axis in range(other.ndim) if axis != 1)
            left = e.unexplained(e.analytic - (e.upstream * other).sum(axes)[e.elements])
            sentence = f"this is the sum of the upstream gradient times {name} itself: {name} was not normalized"
            yield Candidate("stale", sentence, left, 1)


def other_statistics(e: Evidence) -> Iterator[Candidate]:
    """Within each channel analytic = a v + b x + c, as in a batch norm, with other numbers than the right ones."""
    if e.x.ndim not in (2, 4) or not e.complete or e.shape != e.output.shape or len(e.elements) < 8 * e.shape[1]:
        return
    residual = np.empty(len(e.elements))
    upstream = e.upstream.reshape(-1)[e.elements]
    for channel in range(e.shape[1]):
        here = e.index[1] == channel
        basis = np.stack([upstream[here], e.values[here], np.ones(here.sum())], axis=1)
        coefficients, *_ = np.linalg.lstsq(basis, e.analytic[here], rcond=None)
        residual[here] = e.analytic[here] - basis @ coefficients
    sentence = "within each channel the gradient is a v + b x + c with other numbers than the batch's: stale statistics"
    yield Candidate("stale", sentence, e.unexplained(residual), 5)
