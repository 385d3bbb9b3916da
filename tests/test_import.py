"""``import minires`` loads NumPy and MiniRes itself: nothing optional, and no implementation of a kernel but on use."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

LIST_MODULES = """
import json, sys
import numpy.random  # which NumPy itself loads on first use, with Cython's runtime
before = set(sys.modules)
import {package}
print(json.dumps(sorted(set(sys.modules) - before)))
"""


def loaded_by_importing(package: str, prelude: str = "") -> set[str]:
    """The modules, beyond NumPy's, that ``import package`` loads in a fresh interpreter."""
    code = prelude + LIST_MODULES.format(package=package)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(json.loads(done.stdout))


def foreign(modules: set[str]) -> set[str]:
    """Of these modules, the packages that are neither ours nor Python's nor NumPy's."""
    packages = {name.partition(".")[0] for name in modules}
    return packages - sys.stdlib_module_names - {"minires", "minires_kernels", "numpy"}


def test_import_minires_loads_nothing_but_numpy_and_itself():
    modules = loaded_by_importing("minires")
    assert foreign(modules) == set()
    assert {"minires.tensor", "minires.nn", "minires_kernels.registry"} <= modules


def test_import_minires_loads_no_implementation_of_a_kernel():
    kernels = {name for name in loaded_by_importing("minires") if name.startswith("minires_kernels.")}
    assert {name.rpartition(".")[2] for name in kernels} & {"reference", "numba_cpu", "numba_cuda", "cupy_raw"} == set()
    assert "minires_kernels.simd" not in kernels


def test_import_minires_leaves_what_training_does_not_need_until_it_is_asked_for():
    modules = loaded_by_importing("minires")
    assert not any(name.startswith(("minires.checking", "minires.inspection")) for name in modules)
    code = """
import minires
assert {"gradcheck", "record", "checking", "inspection"} <= set(dir(minires))
assert minires.checking.gradcheck is minires.gradcheck
assert minires.inspection.record is minires.record
assert callable(minires.checking.blame)
try:
    minires.blame
except AttributeError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "module 'minires' has no attribute 'blame'\n"


def test_the_kernels_are_importable_without_the_engine():
    modules = loaded_by_importing("minires_kernels")
    assert foreign(modules) == set()
    assert not any(name.partition(".")[0] == "minires" for name in modules)


def test_a_foreign_package_would_be_noticed(tmp_path: Path):
    (tmp_path / "anything_optional.py").write_text("", encoding="utf-8")
    (tmp_path / "careless.py").write_text("import anything_optional, numpy.linalg", encoding="utf-8")
    modules = loaded_by_importing("careless", prelude=f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n")
    assert foreign(modules) == {"anything_optional", "careless"}


@pytest.mark.parametrize("name", ["minires.checking", "minires.inspection", "minires.training", "minires.data"])
def test_the_parts_of_minires_load_nothing_optional_either(name):
    assert foreign(loaded_by_importing(name)) == set()
