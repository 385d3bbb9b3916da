"""``minires.gradcheck``: is this backward pass the derivative of this forward pass?

The question asked is <v, J d> = <J^T v, d>: the left side by differences of the forward pass, the right side by the
backward pass, for a random upstream gradient v and directions d. v is random because a constant one forgives too much:
with all ones, a backward pass that reverses the batch is right, and so is any gradient of a batch norm, which sums to
zero whatever one does. Everything runs in float64 on copies.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal

import numpy as np

from minires.checking.diagnosis import NUMERICAL, Diagnosis, diagnose
from minires.checking.evidence import gather
from minires.checking.measuring import Direction, Measurement, Meter
from minires.checking.numerical import RATIO, Plateau
from minires.checking.politeness import changed, impoliteness, require_finite
from minires.checking.repeating import repeating
from minires.checking.report import Comparison, GradReport, Point
from minires.checking.steps import numerical_causes, unsettled
from minires.checking.subject import DamageError, Evaluation, MisshapenError, Subject, TensorSubject
from minires.nn import Module
from minires.tensor import Tensor
from minires_kernels.arrays import Array

Mode = Literal["auto", "full", "fast"]

FEW_ELEMENTS = 2000
"""Up to so many elements in all, ``auto`` compares each of them."""
SAMPLES = 128
"""How many single elements are sampled, over all variables, where there are more."""
FEW_VARIABLES = 8
"""Up to so many variables, each gets a step of its own and two random directions; else one step, one direction."""
DIAGNOSED, DIAGNOSED_ELEMENTS = 6, 1200
"""How many wrong variables are diagnosed, each by the derivatives of how many elements; of whole nets much fewer."""
SAFETY = 10.0
"""How many times the expected noise a difference may be: the fitted noise is typical, not a bound."""
RESOLUTION = 1e-3
"""A derivative whose noise exceeds this part of the variable's typical derivative doesn't tell right from wrong."""


def gradcheck(
    fn: Callable[..., Any],
    *inputs: Any,
    parameters: Module | Mapping[str, Tensor] | Iterable[Tensor] = (),
    mode: Mode = "auto",
    rtol: float = 1e-6,
    seed: int = 0,
) -> GradReport:
    """Compare the gradients that backward computes with differences of the forward pass.

    ``fn``: a callable of tensors that returns a tensor, a Module, or a Function class. ``inputs``: each floating-point
    Tensor or array is checked, as a float64 copy; anything else is passed on as it is. The parameters of a Module are
    checked too, and those in ``parameters`` (a Module, a mapping of names, or tensors) when ``fn`` is a closure;
    meanwhile they and the module's state are float64, and afterwards exactly what they were.

    ``mode``: "full" compares every element, "fast" random directions and a sample of elements, borders always among
    them; "auto" takes "full" up to 2,000 elements in all. ``rtol``: the relative error that is forgiven, on top of the
    measured noise of the differences. ``seed`` draws the upstream gradient, the directions and the sample.

    Also checked: the same call gives the same bits twice, inputs and upstream gradient stay untouched, gradients have
    their variables' shapes and share no memory, a second backward agrees with the first. Elements on a kink (ReLU at 0,
    a tie of max) are left out, counted and named.

    Returns a :class:`GradReport`, truthy when all is right; ``print(report)`` explains. Raises TypeError for arguments
    that can't be checked, ValueError for ones that aren't finite.
    """
    if mode not in ("auto", "full", "fast"):
        raise ValueError(f"gradcheck: mode must be 'auto', 'full' or 'fast', got {mode!r}")
    subject = TensorSubject(fn, inputs, parameters)
    try:
        line = repeating(gradcheck, {"fn": fn}, inputs, parameters=parameters, mode=mode, rtol=rtol, seed=seed)
        return check(subject, mode=mode, rtol=rtol, seed=seed, repeat=line)
    finally:
        subject.close()


def check(
    subject: Subject,
    *,
    mode: Mode = "auto",
    rtol: float = 1e-6,
    seed: int = 0,
    meter_kind: Callable[..., Meter] = Meter,
    repeat: str = "",
) -> GradReport:
    """:func:`gradcheck` for any :class:`Subject`; ``meter_kind`` makes what measures its derivatives.

    ``repeat``: the line that repeats this check, for the report.
    """
    for variable in subject.variables:
        require_finite(variable.name, variable.array)

    def failed(problem: str, cause: str) -> GradReport:
        return GradReport(
            subject.name, seed, problem=problem, problem_cause=cause, source=subject.source(), repeat=repeat
        )

    before = [variable.array.copy() for variable in subject.variables]
    base = subject.evaluate()
    again = subject.evaluate()
    touched = changed(subject, before)
    if touched:
        return failed(f"forward changes its input {touched}: inputs are values, work on a copy", "in place")
    if base.output.shape != again.output.shape:
        return failed(
            f"two calls with the same input return shapes {base.output.shape} and {again.output.shape}", "randomness"
        )
    if not np.isfinite(base.output).all():
        bad = np.argwhere(~np.isfinite(base.output))[0].tolist()
        return failed(
            f"forward returns {base.output[tuple(bad)]} at {bad}: there is no derivative to check", "not finite"
        )
    if not np.array_equal(base.output, again.output):
        return failed("two calls with the same input return different values: pass a generator with a fixed seed, "
                      "or reset what the function keeps between calls", "randomness")  # fmt: skip
    # Entropy of our own: default_rng(seed) alone draws the very numbers that so many inputs are made of.
    rng = np.random.default_rng((seed, 2015, 2016))
    upstream = rng.standard_normal(base.output.shape)
    kept = upstream.copy()
    try:
        gradients = subject.gradients(upstream)
    except DamageError as damage:
        return failed(str(damage), "in place")
    except MisshapenError as misshapen:
        return failed(
            f"{misshapen}{_broadcast_hint(subject, misshapen, upstream, base, rtol)}",
            "broadcast" if misshapen.summed else "shape",
        )
    problem = impoliteness(subject, before, gradients, upstream, kept)
    if problem:
        return failed(problem, "in place")
    meter = meter_kind(subject, upstream, base.choices, base.output)
    elements = sum(variable.array.size for variable in subject.variables)
    every = mode == "full" or (mode == "auto" and elements <= FEW_ELEMENTS)
    comparisons = tuple(
        _compare(subject, meter, position, gradient, every, rtol, rng) for position, gradient in enumerate(gradients)
    )
    diagnoses = _explain(subject, meter, comparisons, upstream, base.output, rng)
    return GradReport(
        subject.name,
        seed,
        comparisons,
        source=subject.source(),
        evaluations=meter.evaluations,
        diagnoses=diagnoses,
        notes=_notes(meter, comparisons, diagnoses, upstream),
        repeat=repeat,
    )


def _explain(
    subject: Subject, meter: Meter, comparisons: tuple[Comparison, ...], upstream: Array, output: Array, rng: Any
) -> tuple[Diagnosis, ...]:
    """Diagnose the wrong variables: the first few, for one fault often spoils all that lies behind it."""
    wrong = [position for position, comparison in enumerate(comparisons) if not comparison.ok]
    if not wrong:
        return ()
    contributions = subject.contributions(upstream)
    small = len(comparisons) <= 2 * FEW_VARIABLES and all(comparisons[position].every_element for position in wrong)
    cases, doubtful = [], []
    for position in wrong[: DIAGNOSED if small else 2]:
        comparison = comparisons[position]
        doubt = unsettled(meter, comparison)
        if doubt is not None:
            doubtful.append((comparison.name, doubt))
            continue
        plateau = meter.plateau(position, rng)
        cases.append(
            gather(
                subject,
                meter,
                position,
                np.zeros(comparison.shape) if comparison.analytic is None else comparison.analytic,
                plateau.step,
                plateau.noise(plateau.step) / meter.scales[position],
                {int(p.direction.elements[0]) for p in comparison.points if p.is_element and p.numeric.excluded},
                upstream,
                output,
                {other.name: other.numeric() for other in comparisons if other is not comparison},
                contributions[position],
                DIAGNOSED_ELEMENTS if small else DIAGNOSED_ELEMENTS // 16,
                rng,
            )
        )
    return (*diagnose(cases), *numerical_causes(doubtful))


def _notes(
    meter: Meter, comparisons: tuple[Comparison, ...], diagnoses: tuple[Diagnosis, ...], upstream: Array
) -> tuple[str, ...]:
    """What else there is to say: what the differences can't tell, or where to look in a whole net."""
    if len(comparisons) > FEW_VARIABLES and not all(comparison.ok for comparison in comparisons):
        return ("minires.checking.blame(loss, model) says which node of the net computes a wrong gradient",)
    notes = []
    unproved = [c for c, scale in zip(comparisons, meter.scales, strict=True) if c.ok and _drowns(c, scale, upstream)]
    if unproved:
        names = " and ".join(comparison.name for comparison in unproved)
        notes.append(
            f"nothing is proved of the gradient of {names}: it is smaller than the noise of the differences, for the "
            "values are large and hardly change; leave out what is constant, or scale"
        )
    grain = max((plateau.rounding for plateau in meter.plateaus()), default=0.0) / max(meter.least_noise, 1e-300)
    if grain > 1e6 and not any(diagnosis.cause in NUMERICAL for diagnosis in diagnoses):
        notes.append(f"values are {grain:.0e} times as grainy as float64's: a part is computed in less precision")
    return tuple(notes)


def _drowns(comparison: Comparison, scale: float, upstream: Array) -> bool:
    """Whether a gradient that isn't 0 is smaller than what is forgiven it, so that any other one would pass as well.

    A gradient that is 0 but for its rounding (a bias before a batch norm) is proved to be just that.
    """
    points = [point for point in comparison.points if not point.numeric.excluded]
    if not points:
        return False
    size = float(np.sqrt(np.mean([point.analytic**2 for point in points])))
    forgiven = float(np.median([point.tolerance for point in points]))
    return forgiven > size > 1e-9 * float(np.linalg.norm(upstream)) / scale


def _broadcast_hint(subject: Subject, misshapen: MisshapenError, upstream: Array, base: Evaluation, rtol: float) -> str:
    """Whether the gradients of the wrong shape, summed over the axes that are too many, are right."""
    if misshapen.summed is None:
        return ""
    meter, rng = Meter(subject, upstream, base.choices, base.output), np.random.default_rng(0)
    right = all(
        _compare(subject, meter, position, gradient, True, rtol, rng).ok
        for position, gradient in enumerate(misshapen.summed)
    )
    axes = f"summed over {misshapen.axes}, it "
    return f"; {axes}is right: the sum over the broadcast axes is missing" if right else f"; even {axes}is wrong"


def _compare(
    subject: Subject, meter: Meter, position: int, gradient: Array | None, every: bool, rtol: float, rng: Any
) -> Comparison:
    variable = subject.variables[position]
    analytic = np.zeros(variable.array.shape) if gradient is None else gradient
    few = len(subject.variables) <= FEW_VARIABLES
    plateau = meter.plateau(position, rng) if few else meter.joint_plateau(rng)
    worth = RESOLUTION * float(np.sqrt(np.mean(np.square(analytic)))) if analytic.size else 0.0
    points: list[Point] = []
    if every:
        chosen: Iterable[int] = range(analytic.size)
    else:
        chosen = sample_elements(analytic.shape, max(2, SAMPLES // len(subject.variables)), rng)
        for _ in range(2 if few else 1):
            points.extend(_along(meter, meter.random_direction(position, rng), plateau, analytic, worth, rtol))
    for element in chosen:
        direction = Direction(position, np.array([element]), np.ones(1))
        points.append(_point(meter, direction, plateau, analytic, worth, rtol))
    return Comparison(variable.name, analytic.shape, variable.given_dtype, gradient, tuple(points))


def _along(
    meter: Meter, direction: Direction, plateau: Plateau, analytic: Array, worth: float, rtol: float
) -> list[Point]:
    """A direction of many elements; halved, and halved again, around the elements that lie on kinks."""
    points, waiting, patience = [], [direction], 64
    while waiting:
        part = waiting.pop()
        if not len(part.elements):
            continue
        point = _point(meter, part, plateau, analytic, worth * len(part.elements) ** 0.5, rtol)
        if point.numeric.excluded and len(part.elements) > 1 and patience:
            patience -= 1
            waiting.extend(part.halves())
        else:
            points.append(point)
    return points


def _point(meter: Meter, direction: Direction, plateau: Plateau, analytic: Array, worth: float, rtol: float) -> Point:
    derivative = float(np.sum(analytic.flat[direction.elements] * direction.weights))
    # What backward itself may have rounded: a few units in the last place of what it added up.
    own = 64 * np.finfo(np.float64).eps * float(np.abs(analytic.flat[direction.elements]).sum())

    def point(numeric: Measurement) -> Point:
        tolerance = rtol * max(abs(derivative), abs(numeric.value)) + SAFETY * numeric.noise + own
        return Point(direction, derivative, numeric, tolerance)

    first = point(meter.measure(direction, plateau, worth))
    if not first.wrong:
        return first
    return _second_look(meter, direction, plateau, worth, first, point)


def _second_look(
    meter: Meter,
    direction: Direction,
    plateau: Plateau,
    worth: float,
    first: Point,
    point: Callable[[Measurement], Point],
) -> Point:
    """Before an element counts as wrong: a kink that no node reports, or a step too large for this very element?

    Smaller steps are tried; two that agree with the gradient acquit it. A jump of the slope at the point itself, with
    the gradient between the two slopes, is a kink: any slope between is a valid subgradient there.
    """
    scale = meter.scales[direction.variable]
    step, acquittals = first.numeric.step, 0
    gaps: list[tuple[float, float, float, float]] = []
    while acquittals < 2 and len(gaps) < 8:
        step /= RATIO
        noise = plateau.noise(step) / scale
        if noise > max(worth, 1e-4 * abs(first.numeric.value)):
            break
        value, left, right, crossed = meter.slopes([direction], step)
        if crossed:
            break
        if max(abs(value - first.numeric.value), abs(right - left)) < first.error / 100:
            break  # the slope is the same at all steps and on both sides: it is the gradient that is wrong
        gaps.append((abs(right - left), left, right, noise))
        attempt = point(Measurement(value, noise, step))
        acquittals = 0 if attempt.wrong else acquittals + 1
    if acquittals == 2:
        return attempt
    if len(gaps) >= 2:
        (before, *_), (after, left, right, noise) = gaps[-2:]
        jumps = after > before / 2 and after > 100 * noise
        margin = 0.01 * after
        if jumps and min(left, right) - margin <= first.analytic <= max(left, right) + margin:
            kink = Counter({"a kink that no node reports": 1})
            return point(Measurement(float("nan"), float("nan"), step, kink))
    return first


def sample_elements(shape: tuple[int, ...], count: int, rng: np.random.Generator) -> list[int]:
    """``count`` distinct flat indices: the first and the last element, borders of random axes, and random ones."""
    size = int(np.prod(shape, dtype=int))
    if size <= count:
        return list(range(size))
    chosen, on_border = {0, size - 1}, False
    while len(chosen) < count:
        index = [int(rng.integers(length)) for length in shape]
        on_border = not on_border
        if on_border:
            axis = int(rng.integers(len(shape)))
            index[axis] = int(rng.choice((0, shape[axis] - 1)))
        chosen.add(int(np.ravel_multi_index(index, shape)))
    return sorted(chosen)
