"""float32 against float64, in units of the rounding that is to be expected: no magic 1e-3.

How far may a float32 gradient lie from the float64 one? The answer is measured: the same float64 computation is
repeated with every input and the upstream gradient moved by half a unit in the last place of float32, up or down at
random, several times. How much the result moves is what rounding alone, at the entrance, does to it. The rounding
inside (sums of many terms) adds its share, so right code stays below some tens of such units, at any shape and scale;
a wrong border pixel exceeds thousands. What it can't see is cancellation inside, as in a saturated softmax.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from minires.checking.subject import TensorSubject
from minires.display import few_lines
from minires.nn import Module
from minires.tensor import Tensor
from minires_kernels.arrays import Array

LIMIT = 64.0
"""In units of expected rounding. Over 1,000 random right cases the largest was below 20."""
TRIALS = 4


@dataclass(frozen=True)
class Deviation:
    """The float32 value or gradient of one thing against float64."""

    name: str
    units: float
    """The largest deviation, in units of its expected rounding."""
    index: tuple[int, ...]
    float32: float
    float64: float


@dataclass(frozen=True)
class PrecisionReport:
    """What :func:`check_float32` found; truthy when nothing leaves its rounding bound."""

    function: str
    seed: int
    deviations: tuple[Deviation, ...]

    def __bool__(self) -> bool:
        return all(deviation.units <= LIMIT for deviation in self.deviations)

    def __str__(self) -> str:
        lines = [f"float32 {'agrees' if self else 'DISAGREES'} with float64  {self.function}  seed {self.seed}"]
        for each in self.deviations:
            verdict = "ok   " if each.units <= LIMIT else "WRONG"
            place = f"[{', '.join(map(str, each.index))}]" if each.index else ""
            lines.append(
                f"  {verdict} {each.name}: at most {each.units:.3g} units of rounding, at {each.name}{place}: "
                f"{each.float32:+.7e} and {each.float64:+.7e}"
            )
        return "\n".join(lines)

    def __repr__(self) -> str:
        return few_lines(str(self), "print(report)")


def check_float32(
    fn: Callable[..., Any],
    *inputs: Any,
    parameters: Module | Mapping[str, Tensor] | Iterable[Tensor] = (),
    reference: Callable[..., Any] | None = None,
    seed: int = 0,
) -> PrecisionReport:
    """Whether ``fn`` in float32 computes what it computes in float64, value and gradients, up to rounding.

    ``inputs`` and ``parameters`` as for :func:`minires.gradcheck`, which is to be asked first whether float64 is right.
    ``reference``: another function to compute float64 with, where ``fn`` (a kernel for float32 alone) can't.
    Elements whose float32 and float64 evaluations take different sides of a kink make the comparison meaningless: place
    the inputs away from kinks.
    """
    rng = np.random.default_rng((seed, 32))
    single = _rounded(inputs)
    narrow = _results(fn, single, parameters, np.float32, None, seed)
    exact = reference or fn
    wide = _results(exact, single, parameters, np.float64, None, seed)
    moved = [_results(exact, single, parameters, np.float64, rng, seed) for _ in range(TRIALS)]
    deviations = []
    for position, (name, value) in enumerate(wide.items()):
        spread = np.sqrt(np.mean([np.square(list(other.values())[position] - value) for other in moved], axis=0))
        # An element that no input moves still rounds itself; and neighbours share the rounding of their sums.
        unit = np.maximum(spread, np.finfo(np.float32).eps / 2 * np.maximum(np.abs(value), _typical(value)))
        units = np.abs(narrow[name] - value) / np.maximum(unit, 1e-300)
        if not units.size:
            continue
        worst = np.unravel_index(int(np.argmax(np.where(np.isnan(units), np.inf, units))), units.shape)
        index = tuple(int(i) for i in worst)
        at = float(np.nan_to_num(units[worst], nan=np.inf))
        deviations.append(Deviation(name, at, index, float(narrow[name][worst]), float(value[worst])))
    return PrecisionReport(getattr(fn, "__name__", type(fn).__name__), seed, tuple(deviations))


def _typical(value: Array) -> float:
    return float(np.sqrt(np.mean(np.square(value)))) if value.size else 0.0


def _rounded(inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    """Inputs that float32 can hold, so that both precisions start from the same numbers."""

    def rounded(value: Any) -> Any:
        array = value.data if isinstance(value, Tensor) else value
        return array.astype(np.float32) if hasattr(array, "dtype") and array.dtype.kind == "f" else value

    return tuple(rounded(value) for value in inputs)


def _results(
    fn: Callable[..., Any], inputs: tuple[Any, ...], parameters: Any, dtype: Any, moved: Any, seed: int
) -> dict[str, Array]:
    """Output and gradients by name, as float64 arrays; with ``moved``, a generator, from inputs half an ulp away."""
    subject = TensorSubject(fn, inputs, parameters, dtype)
    try:
        if moved is not None:
            for variable in subject.variables:
                _move(variable.array, moved)
        output = subject.evaluate().output
        upstream = np.random.default_rng((seed, 64)).standard_normal(output.shape).astype(np.float32).astype(dtype)
        if moved is not None:
            _move(upstream, moved)
        results = {"the output": output.astype(np.float64)}
        for variable, gradient in zip(subject.variables, subject.gradients(upstream), strict=True):
            if gradient is not None:
                results[f"the gradient of {variable.name}"] = gradient.astype(np.float64)
        return results
    finally:
        subject.close()


def _move(array: Array, rng: np.random.Generator) -> None:
    array *= 1 + rng.choice((-0.5, 0.5), array.shape) * np.finfo(np.float32).eps
