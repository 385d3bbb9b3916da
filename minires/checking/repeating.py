"""The line that repeats a check, to be pasted where the function and its inputs have their names."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from typing import Any

from minires.checking.subject import input_name


def repeating(check: Callable[..., Any], functions: dict[str, Any], inputs: tuple[Any, ...], **settings: Any) -> str:
    """``minires.gradcheck(Square, x, mode='fast', seed=3)``: the settings that aren't ``check``'s defaults; the seed.

    ``functions``: what is checked, by the name of ``check``'s parameter, which stands for a function without a name of
    its own (a lambda, a Module). The first of them names the inputs.
    """
    operands = [expression_of(fn) or parameter for parameter, fn in functions.items()]
    named_by = next(iter(functions.values()))
    operands += [re.sub(r"\W", "_", input_name(named_by, position)) for position in range(len(inputs))]
    defaults = inspect.signature(check).parameters
    for name, value in settings.items():
        if not isinstance(value, (str, int, float)):  # parameters: tensors have no text that makes them again
            operands += [f"{name}={name}"] if value is not defaults[name].default else []
        elif value != defaults[name].default or name == "seed":
            operands.append(f"{name}={value!r}")
    place = "minires" if check.__name__ == "gradcheck" else "minires.checking"
    return f"{place}.{check.__name__}({', '.join(operands)})"


def expression_of(fn: Any) -> str:
    """What one writes to name ``fn``, seen from where it was defined; nothing where it has no name."""
    name = str(getattr(fn, "__qualname__", "")).rpartition("<locals>.")[2]
    if inspect.ismethod(fn):
        owner = expression_of(fn.__self__)
        name = f"{owner}.{fn.__name__}" if owner else ""
    return name if all(part.isidentifier() for part in name.split(".")) else ""
