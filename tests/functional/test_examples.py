"""The examples in the docstrings of the functions give what they say."""

from __future__ import annotations

import doctest
import importlib
import pkgutil

import pytest

from minires import functional

MODULES = [module.name for module in pkgutil.iter_modules(functional.__path__)]
WITHOUT = {"checks", "dropout", "pooling", "shortcut", "batch_norm"}


@pytest.mark.parametrize("name", MODULES)
def test_examples(name):
    found = doctest.testmod(importlib.import_module(f"minires.functional.{name}"))
    assert found.failed == 0
    assert (found.attempted == 0) == (name in WITHOUT)
