"""The examples in docstrings show what they say."""

from __future__ import annotations

import doctest
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest

import minires

ROOT = Path(minires.__file__).parents[1]
MODULES = [
    ".".join(path.relative_to(ROOT).with_suffix("").parts)
    for path in sorted(Path(minires.__file__).parent.rglob("*.py"))
    if ">>> " in path.read_text(encoding="utf-8") and path.name != "__init__.py"
]


def known():
    """The names that examples use without a word: what a reader has at hand in the midst of a training."""
    rng = np.random.default_rng(0)
    net = minires.models.create("resnet8", widths=(2, 4, 4), rng=rng)
    return {
        **{"minires": minires, "numpy": np, "np": np, "Tensor": minires.Tensor, "rng": rng, "net": net},
        **{name: getattr(minires, name) for name in ("functional", "models", "nn", "optim")},
        "images": minires.Tensor(rng.standard_normal((1, 3, 8, 8), np.float32)),
        "sgd": minires.optim.SGD(net.parameters(), lr=0.1),
        **{"epochs": 2, "loader": range(10)},
    }


@pytest.mark.parametrize("name", MODULES)
def test_the_examples_of_a_module_show_what_they_say(name):
    result = doctest.testmod(import_module(name), extraglobs=known())
    assert not result.failed


METHODS = [
    *("reshape", "flatten", "permute", "transpose", "astype"),
    *("sum", "mean", "var", "max", "min", "argmax", "argmin", "any", "all"),
    *("abs", "exp", "log", "sqrt", "clip", "maximum", "minimum"),
]


@pytest.mark.parametrize("name", METHODS)
def test_each_method_of_a_tensor_has_an_example(name):
    assert ">>> Tensor(" in getattr(minires.Tensor, name).__doc__
