"""Hypotheses about the result: the right gradient is the wrong one, changed."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from minires.checking.evidence import Evidence
from minires.checking.hypotheses.candidate import Candidate, axis_name, rearrangements
from minires_kernels.arrays import Array


def nothing_arrives(e: Evidence) -> Iterator[Candidate]:
    """The gradient is 0 throughout."""
    if e.detached:
        yield Candidate("detached", f"the gradient of {e.name} is zero: its path is missing from backward", 0.0, 0)


def constant_factor(e: Evidence) -> Iterator[Candidate]:
    """numeric = c analytic, with one c for all."""
    square = float(e.analytic @ e.analytic)
    if not square or len(e.elements) < 2:
        return
    factor = float(e.analytic @ e.numeric) / square
    left = e.unexplained(e.numeric - factor * e.analytic)
    known = _known_factors(e)
    name = next((text for value, text in known if abs(factor / value - 1) < 1e-4), "a constant factor is wrong")
    cause = "sign" if name == "the sign is wrong" else "factor"
    yield Candidate(cause, f"numeric = {factor:.6g} x analytic everywhere: {name}", left, 1)


def _known_factors(e: Evidence) -> list[tuple[float, str]]:
    known = [(-1.0, "the sign is wrong"), (2.0, "a factor 2 is missing"), (0.5, "a factor 2 too many")]
    lengths: dict[int, str] = {}
    for what, shape in (("the output", e.output.shape), (e.name, e.shape)):
        if shape and shape[0] > 1:
            lengths.setdefault(shape[0], f"the batch size {shape[0]}" if what != e.name else f"{e.name}.shape[0]")
        if len(shape) == 4:
            lengths.setdefault(shape[2] * shape[3], f"{what}'s rows x columns = {shape[2] * shape[3]}")
            lengths.setdefault(shape[0] * shape[2] * shape[3], f"{what}'s batch x rows x columns")
        for axis, length in enumerate(shape):
            lengths.setdefault(length, f"the length {length} of {axis_name(axis, len(shape))} of {what}")
        lengths.setdefault(int(np.prod(shape, dtype=int)), f"the size of {what}")
    for length, text in lengths.items():
        if length > 1:
            known.append((float(length), f"it was divided by {text} once too often"))
            known.append((1.0 / length, f"it should be divided by {text}"))
    for length, text in lengths.items():
        known.append((-float(length), f"it was divided by {text} once too often, and the sign is wrong"))
    return known


def factor_per_slice(e: Evidence) -> Iterator[Candidate]:
    """numeric = c[k] analytic, with another c for each channel (or sample)."""
    for axis, length in enumerate(e.shape):
        if len(e.elements) < 3 * length or length < 2:
            continue
        where = e.index[axis]
        square = np.bincount(where, e.analytic**2, length)
        factors = np.bincount(where, e.analytic * e.numeric, length) / np.where(square, square, 1)
        left = e.unexplained(e.numeric - factors[where] * e.analytic)
        if np.isclose(factors, 1).sum() * 2 >= length or np.ptp(factors) < 1e-6 * np.abs(factors).max():
            continue  # most slices are right, or all are wrong by the same factor: other hypotheses say that better
        owner = next(
            (f"{name} is missing" for name, other in e.others.items() if _parallel(factors, other.reshape(-1))),
            "a scale per slice (weight, 1 / std) is missing, or applied twice",
        )
        yield Candidate(
            "factor", f"numeric = analytic x another factor along {axis_name(axis, e.x.ndim)}: {owner}", left, 4
        )


def _parallel(one: Array, two: Array) -> bool:
    return one.shape == two.shape and bool(np.allclose(one, two, rtol=1e-4))


def skip_path(e: Evidence) -> Iterator[Candidate]:
    """numeric - analytic is the upstream gradient itself: an identity path that was forgotten, or taken twice."""
    if e.shape != e.upstream.shape:
        return
    for gate, words in ((np.ones(e.output.shape), ""), ((e.output > 0) * 1.0, ", gated by the last ReLU")):
        through = (e.upstream * gate).reshape(-1)[e.elements]
        for times, cause, text in ((1, "skip missing", "is missing from"), (-1, "skip doubled", "is counted twice in")):
            left = e.unexplained(e.numeric - e.analytic - times * through)
            sign = "-" if times < 0 else ""
            sentence = (
                f"numeric - analytic = {sign}the upstream gradient{words}: the identity (skip) path {text} backward"
            )
            yield Candidate(cause, sentence, left, 2)


def overwritten_at_fan_out(e: Evidence) -> Iterator[Candidate]:
    """Several uses of the variable, of which only one counts (or one counts twice)."""
    if len(e.contributions) < 2:
        return
    total = np.sum(e.contributions, axis=0)
    if e.unexplained(total - e.numeric) > 1e-3:
        return
    for part in e.contributions:
        left = e.unexplained(e.analytic - part)
        sentence = (
            f"{e.name} is used {len(e.contributions)} times, but one use's gradient is there: overwritten, not added"
        )
        yield Candidate("overwritten", sentence, left, 0)
        left = e.unexplained(e.analytic - total - part)
        yield Candidate("skip doubled", f"of {len(e.contributions)} uses of {e.name}, one is counted twice", left, 0)


def swapped_gradients(e: Evidence) -> Iterator[Candidate]:
    """The gradient of another variable of the same shape."""
    for name, other in e.numeric_others.items():
        if other.shape == e.shape and np.isfinite(other.reshape(-1)[e.elements]).all():
            left = e.unexplained(e.analytic - other.reshape(-1)[e.elements])
            yield Candidate("swapped", f"this is the gradient of {name}: the order of the results is wrong", left, 1)


def other_order(e: Evidence) -> Iterator[Candidate]:
    """The right numbers in the wrong places: transposed, flipped, reversed, rolled or permuted."""
    if not e.complete or e.x.ndim < 1:
        return
    analytic, ndim = e.grid(e.analytic), e.x.ndim
    for cause, text, moved in rearrangements(analytic):
        left = e.unexplained(e.numeric - moved.reshape(-1)[e.elements])
        yield Candidate(cause, f"the gradient is right after being {text}", left, 3)
    for axis in range(min(ndim, 2)):
        order = _matching(analytic, e.grid(e.numeric), axis)
        if order is not None:
            moved = analytic.take(order, axis)
            left = e.unexplained(e.numeric - moved.reshape(-1)[e.elements])
            yield Candidate("permuted", f"the slices along {axis_name(axis, ndim)} are in another order", left, 4)


def _matching(analytic: Array, numeric: Array, axis: int) -> list[int] | None:
    """The order of analytic's slices along ``axis`` that resembles numeric's, if it is a permutation."""
    one = np.moveaxis(analytic, axis, 0).reshape(analytic.shape[axis], -1)
    two = np.moveaxis(numeric, axis, 0).reshape(numeric.shape[axis], -1)
    if one.shape[1] < 2 or one.shape[0] < 2:
        return None
    distances = ((two[:, None, :] - one[None]) ** 2).sum(2)
    order = [int(k) for k in distances.argmin(1)]
    return order if sorted(order) == list(range(len(order))) else None


def shifted_without_wrapping(e: Evidence) -> Iterator[Candidate]:
    """The gradient moved by one pixel, the rest fallen off the border."""
    if not e.complete or e.x.ndim != 4:
        return
    analytic, numeric = e.grid(e.analytic), e.grid(e.numeric)
    for axis in (2, 3):
        length = e.shape[axis]
        if length < 3:
            continue
        for by in (1, -1):
            inner = slice(1, None) if by > 0 else slice(None, -1)
            source = slice(None, -1) if by > 0 else slice(1, None)
            cut = np.moveaxis(numeric, axis, 0)[source] - np.moveaxis(analytic, axis, 0)[inner]
            left = e.unexplained(cut.reshape(-1))
            sentence = f"the gradient lies {by:+d} off along {axis_name(axis, 4)}: a padding or stride off by one"
            yield Candidate("shifted", sentence, left, 5)


def only_somewhere(e: Evidence) -> Iterator[Candidate]:
    """All wrong elements share something: a border, one slice, one sign."""
    residual = np.abs(e.numeric - e.analytic)
    wrong = residual > max(1e-4 * float(np.abs(e.numeric).max()), 10 * e.noise)
    if not wrong.any() or wrong.mean() > 0.9:
        return
    for axis, length in enumerate(e.shape):
        where = set(e.index[axis][wrong].tolist())
        name = axis_name(axis, e.x.ndim)
        if len(where) == 1 and length > 2:
            k = where.pop()
            cause = "border" if k in (0, length - 1) and axis >= 2 else "partial"
            yield Candidate(cause, f"every wrong element has index {k} on {name}", 0.0, 6)
        elif where and where <= {0, length - 1} and length > 3:
            yield Candidate("border", f"every wrong element lies on the border of {name}: padding or stride", 0.0, 6)
    if e.x.ndim == 4 and min(e.shape[2:]) > 2:
        inner = np.ones(len(e.elements), bool)
        for axis in (2, 3):
            inner &= (e.index[axis] > 0) & (e.index[axis] < e.shape[axis] - 1)
        if inner.any() and not (wrong & inner).any():
            yield Candidate("border", "every wrong element lies on the border of the image: padding", 0.0, 6)
    sides = ((f"{e.name} = 0", e.values == 0), (f"{e.name} <= 0", e.values <= 0), (f"{e.name} > 0", e.values > 0))
    for text, side in sides:
        if side.any() and not (wrong & ~side).any() and wrong[side].mean() > 0.6:
            yield Candidate("mask", f"the gradient is wrong exactly where {text}: the mask of a kink", 0.0, 5)


def passes_where_it_must_not(e: Evidence) -> Iterator[Candidate]:
    """The gradient is right except where the right one is 0; or it is 0 exactly where the right one isn't."""
    zero = np.abs(e.jacobian).max(1, initial=0.0) < 1e-9 * np.abs(e.jacobian).max(initial=0.0)
    if not zero.any() or zero.all():
        return
    left = e.unexplained(np.where(zero, 0.0, e.numeric - e.analytic))
    text = f"{e.name} gets a gradient where the result doesn't depend on it: a mask is missing, or spread too far"
    yield Candidate("mask", text, left, 2)
    if not e.analytic[~zero].any() and e.analytic.any():
        text = f"the gradient of {e.name} is 0 exactly where it shouldn't be: a mask is inverted, or an index is off"
        yield Candidate("mask", text, 0.0, 2)
