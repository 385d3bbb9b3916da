"""Bad inputs by the thousand: ``python -m tests.bad_inputs.judging FIRST COUNT`` judges some of them.

Each case takes one call that is right, does one thing to one of its arguments (another rank, shape, dtype, byte order,
layout, value or type) and judges what comes of it:

- *right*: results and gradients are those of the specification (``using("reference")``) on a plain copy of the same
  values, in the same dtype: nothing has widened;
- *refused*: a ValueError, TypeError, IndexError or RuntimeError in our own words, which begins with the operation;
- anything else is a fault: a wrong number, another dtype, an error in Python's or NumPy's words, an argument that was
  written, a hang; a crash ends the process, and :mod:`tests.test_bad_inputs` sees that.
"""

from __future__ import annotations

import json
import re
import signal
import sys
import traceback
import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np

from minires import Tensor, using
from tests.bad_inputs.calls import CALLS, Call
from tests.bad_inputs.changes import CHANGES, SETTINGS

SECONDS = 20
"""A call that takes longer hangs: each of them is a matter of milliseconds, or of a second where it compiles."""

REFUSALS = (ValueError, TypeError, IndexError, RuntimeError)
FOREIGN = re.compile(
    "|".join(
        (
            "could not be broadcast", "cannot reshape", "has no attribute", "unsupported operand", "not subscriptable",
            "unexpected keyword", "object is not", r"takes \d+ positional", "must be (real number|str), not",
            "expected str", "only integer scalar", "is out of bounds for axis", "cannot be interpreted", "ufunc",
            "invalid literal", "setting an array element", "truth value of an array", "not supported between",
            "non-broadcastable", "division by zero", "too large to convert", "No implementation of function",
            "Invalid use of",
        )
    )
)  # fmt: skip
"""What Python, NumPy and Numba say: it names neither the operation nor the cure."""


@dataclass(frozen=True)
class Case:
    """``call`` with one thing done to argument ``position``."""

    number: int
    call: Call
    position: int
    change: str
    arguments: list[Any]

    def __str__(self) -> str:
        return f"case {self.number}: {self.call.name}, argument {self.position}: {self.change}"


def case(number: int) -> Case:
    """The case of that number, the same each time."""
    rng = np.random.default_rng((number, 2026))
    call = CALLS[number % len(CALLS)]
    arguments = call.make(rng)
    position = int(rng.integers(len(arguments)))
    value = arguments[position]
    if isinstance(value, np.ndarray):
        change = list(CHANGES)[int(rng.integers(len(CHANGES)))]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a NaN becomes an integer
            arguments[position] = CHANGES[change](value)
    else:
        setting = SETTINGS[int(rng.integers(len(SETTINGS)))]
        change = f"{value!r} becomes {setting!r}"
        arguments[position] = setting
    return Case(number, call, position, change, arguments)


# ---- what comes of it


class Hangs(BaseException):
    """No Exception: nobody may catch it on the way."""


def _hangs(*_: Any) -> None:
    raise Hangs


def judge(case: Case) -> tuple[str, str]:
    """("right" or "refused" or "fault", what was found)."""
    plain = [plain_copy(argument) for argument in case.arguments]
    before = [frozen(argument) for argument in case.arguments]
    signal.signal(signal.SIGALRM, _hangs)
    signal.alarm(SECONDS)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = arrays(case.call.run(*case.arguments))
    except REFUSALS as error:
        written = changed(case, before, exempt=())
        if written:
            return "fault", f"refused, but argument {written} was written: {error}"
        return refusal(case, error)
    except Hangs:
        return "fault", f"took more than {SECONDS} s"
    except BaseException as error:
        return "fault", f"{type(error).__name__}: {error}"
    finally:
        signal.alarm(0)
    if written := changed(case, before, exempt=case.call.written):
        return "fault", f"argument {written} was written"
    return compared(case, found, plain)


def refusal(case: Case, error: BaseException) -> tuple[str, str]:
    text = str(error)
    if not text.startswith(case.call.speakers):
        return "fault", f"{type(error).__name__} that doesn't begin with {case.call.name}: {text}"
    if FOREIGN.search(text):
        return "fault", f"{type(error).__name__} in somebody else's words: {text}"
    return "refused", text


def compared(case: Case, found: list[Any], plain: list[Any]) -> tuple[str, str]:
    try:
        with warnings.catch_warnings(), using("reference"):
            warnings.simplefilter("ignore")
            expected = arrays(case.call.run(*plain))
    except Exception as error:
        return "fault", f"computed, but the specification refuses a plain copy: {type(error).__name__}: {error}"
    for position, (result, value) in enumerate(zip(found, expected, strict=True)):
        if (result is None) != (value is None):
            return "fault", f"result {position} is {result}, but {value} is expected"
        if result is None:
            continue
        if (result.shape, result.dtype) != (value.shape, value.dtype):
            return "fault", f"result {position}: {result.shape} {result.dtype}, expected {value.shape} {value.dtype}"
        if case.position in case.call.padded:
            met = np.isnan(result) | np.isnan(value)
            result, value = (np.where(met, 0, each).astype(each.dtype) for each in (result, value))
        if case.position in case.call.loose:
            both = ~np.isfinite(result) & ~np.isfinite(value)
            result, value = (np.where(both, 0, each).astype(each.dtype) for each in (result, value))
        if not near(result, value):
            return "fault", f"result {position} is wrong: {result.reshape(-1)[:8]}, expected {value.reshape(-1)[:8]}"
        if result.dtype == "float64" and not any(wide(argument) for argument in case.arguments):
            return "fault", f"result {position} has widened to float64"
    return "right", ""


def near(result: np.ndarray, value: np.ndarray) -> bool:
    if result.dtype.kind not in "fc":
        return bool(np.array_equal(result, value))
    finite = np.isfinite(value)
    if not np.array_equal(result[~finite], value[~finite], equal_nan=True):
        return False
    tolerance = 1e-5 if result.dtype == "float32" else 1e-12
    scale = np.abs(value[finite].astype(np.float64)).max(initial=0)
    return bool(np.all(np.abs(result[finite].astype(np.float64) - value[finite]) <= tolerance * scale))


def wide(argument: Any) -> bool:
    """Whether ``argument`` asks for float64."""
    data = argument.data if isinstance(argument, Tensor) else argument
    return data.dtype == "float64" if isinstance(data, (np.ndarray, np.generic)) else data == "float64"


def arrays(result: Any) -> list[Any]:
    parts = result if isinstance(result, tuple) else (result,)
    return [part.data if isinstance(part, Tensor) else None if part is None else np.asarray(part) for part in parts]


def plain_copy(argument: Any) -> Any:
    """The same values in a new, native, contiguous, writable array."""
    if isinstance(argument, Tensor):
        return Tensor(plain_copy(argument.data))
    if isinstance(argument, np.ma.MaskedArray) or not isinstance(argument, np.ndarray):
        return argument
    return np.array(argument, dtype=argument.dtype.newbyteorder("="), order="C", subok=False)


def frozen(argument: Any) -> Any:
    data = argument.data if isinstance(argument, Tensor) else argument
    return np.array(data, copy=True) if isinstance(data, np.ndarray) else None


def changed(case: Case, before: list[Any], exempt: tuple[int, ...]) -> list[int]:
    """The positions of arguments that aren't what they were."""
    positions = []
    for position, (argument, old) in enumerate(zip(case.arguments, before, strict=True)):
        data = argument.data if isinstance(argument, Tensor) else argument
        if old is None or position in exempt or data.dtype.kind in "OU":
            continue
        if np.array(data, copy=True).tobytes() != old.tobytes():
            positions.append(position)
    return positions


def main() -> None:
    """Print a line of JSON for each case: number, verdict, what was found. The number comes first, should it crash."""
    first, count = map(int, sys.argv[1:])
    for number in range(first, first + count):
        print(json.dumps({"begins": number}), flush=True)
        each = case(number)
        try:
            verdict, what = judge(each)
        except Exception:  # a case that the judge fails on is a fault, and not the end of the others
            verdict, what = "fault", "not judged: " + traceback.format_exc()
        print(json.dumps({"number": number, "case": str(each), "verdict": verdict, "what": what}), flush=True)


if __name__ == "__main__":
    main()
