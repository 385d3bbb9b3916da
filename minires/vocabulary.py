"""PyTorch's words for what has another name here: keywords are understood, attributes lead to ours."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, TypeVar

import numpy as np

P = ParamSpec("P")
R = TypeVar("R")

KEYWORDS = {
    "dim": "axis",
    "keepdim": "keepdims",
    "start_dim": "start_axis",
    "end_dim": "end_axis",
    "dim0": "axis0",
    "dim1": "axis1",
    "min": "lower",
    "max": "upper",
}
"""torch's keyword -> ours, which is NumPy's where NumPy has one."""

ATTRIBUTES = {
    "add": "write x + y",
    "amax": "use x.max(axis)",
    "amin": "use x.min(axis)",
    "bmm": "write x @ y",
    "bool": "compare: x.data != 0",
    "chunk": "use slices, x[:k], x[k:]",
    "clamp": "use x.clip(lower, upper)",
    "clone": "use x[...], which copies",
    "contiguous": "any strides will do here",
    "copy": "use x[...], which copies",
    "dim": "use x.ndim",
    "div": "write x / y",
    "dot": "write x @ y",
    "double": "use x.astype(numpy.float64)",
    "dropout": "use minires.functional.dropout(x, p, training=..., rng=...)",
    "expand": "operators broadcast by themselves",
    "float": "use x.astype(numpy.float32)",
    "gather": "use an index, x[rows, columns]",
    "grad_fn": "use x.creator",
    "index_select": "use an index, x[:, columns]",
    "int": "use x.astype(numpy.int32)",
    "log_softmax": "use minires.functional.log_softmax(x, axis)",
    "long": "use x.astype(numpy.int64)",
    "masked_fill": "use minires.functional.where(condition, x, y)",
    "matmul": "write x @ y",
    "mm": "write x @ y",
    "movedim": "use x.permute(axes)",
    "mul": "write x * y",
    "neg": "write -x",
    "norm": "write (x * x).sum().sqrt()",
    "numel": "use x.size",
    "pow": "write x ** y",
    "ravel": "use x.flatten()",
    "relu": "use minires.functional.relu(x)",
    "repeat": "use minires.functional.concatenate([x, x], axis)",
    "sigmoid": "use minires.functional.sigmoid(x)",
    "softmax": "use minires.functional.softmax(x, axis)",
    "split": "use slices, x[:k], x[k:]",
    "square": "write x * x",
    "squeeze": "use x.reshape(shape) or an index, x[:, 0]",
    "std": "use x.var(axis).sqrt()",
    "sub": "write x - y",
    "swapaxes": "use x.transpose(axis0, axis1)",
    "t": "use x.T",
    "tanh": "use minires.functional.tanh(x)",
    "type": "use x.astype(dtype)",
    "unsqueeze": "use an index, x[:, None], or x.reshape(shape)",
    "view": "use x.reshape(shape)",
    "view_as": "use x.reshape(y.shape)",
}
"""torch's (or NumPy's) attribute of a tensor -> what to write instead."""


def torch_keywords(function: Callable[P, R]) -> Callable[P, R]:
    """A decorator: ``function`` also takes torch's names of its parameters, ``dim`` where it says ``axis``.

    Its signature, as ``help`` shows it, keeps our names: they are what we write. Raises TypeError if both are given.
    """
    code = function.__code__
    own = code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]
    meanings = {theirs: ours for theirs, ours in KEYWORDS.items() if ours in own}

    @wraps(function)
    def accepting(*args: P.args, **kwargs: P.kwargs) -> R:
        for theirs in kwargs.keys() & meanings.keys() if kwargs else ():
            ours = meanings[theirs]
            if ours in kwargs or own.index(ours) < len(args):
                raise TypeError(
                    f"{function.__name__}: {ours} and {theirs} are two names of one argument; give one of them"
                )
            kwargs[ours] = kwargs.pop(theirs)
        return function(*args, **kwargs)

    return accepting


def unknown_attribute(owner: object, name: str) -> AttributeError:
    """The error for ``owner.name``: for a name that torch's or NumPy's arrays have, it says what there is instead."""
    cure = ATTRIBUTES.get(name)
    if cure is None and name.endswith("_") and not name.startswith("_"):
        cure = "nothing is changed in place; write y = ..., or change x.data"
    if cure is None and not name.startswith("_") and hasattr(np.ndarray, name):
        cure = f"the array has it, x.data.{name}"
    message = f"{type(owner).__name__} has no attribute {name!r}" + (f": {cure}" if cure else "")
    return AttributeError(message, name=name, obj=owner)
