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


@pytest.mark.parametrize("name", MODULES)
def test_the_examples_of_a_module_show_what_they_say(name):
    known = {"minires": minires, "numpy": np, "Tensor": minires.Tensor}
    result = doctest.testmod(import_module(name), extraglobs=known)
    assert not result.failed


METHODS = [
    *("reshape", "flatten", "permute", "transpose", "astype"),
    *("sum", "mean", "var", "max", "min", "argmax", "argmin", "any", "all"),
    *("abs", "exp", "log", "sqrt", "clip", "maximum", "minimum"),
]


@pytest.mark.parametrize("name", METHODS)
def test_each_method_of_a_tensor_has_an_example(name):
    assert ">>> Tensor(" in getattr(minires.Tensor, name).__doc__
