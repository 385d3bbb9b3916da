"""Imports point down: who may import whom, read from the source. Each rule is first shown to catch its violation.

From the ground up, a unit (a file or folder directly below a package) may import what stands on a line above it, or
on its own line as long as no circle arises. The package itself (``minires``) is what its ``__init__`` exports.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = {"minires_kernels": ROOT / "kernels" / "minires_kernels", "minires": ROOT / "minires"}

FAMILY = "a kernel family"  # each folder of minires_kernels that has a reference.py
ORDER = (
    ("minires_kernels.arrays",),
    ("minires_kernels.window", "minires_kernels.fit"),
    ("minires_kernels.environment", "minires_kernels.notes", "minires_kernels.private", "minires_kernels.scope"),
    ("minires_kernels.registry", "minires_kernels.jit"),
    ("minires_kernels",),
    # what implementations are built with
    ("minires_kernels.arena", "minires_kernels.simd", "minires_kernels.flat", "minires_kernels.launch"),
    ("minires_kernels.differences",),
    (FAMILY,),
    ("minires_kernels.lab",),
    ("minires.arguments", "minires.display", "minires.dtypes", "minires.vocabulary"),
    ("minires.function",),
    ("minires.algebra", "minires.extremes", "minires.graph", "minires.indexing"),
    ("minires.shapes", "minires.reductions", "minires.operators", "minires.conversions"),
    ("minires.tensor",),
    ("minires.functional",),
    ("minires.nn",),
    ("minires.models",),
    ("minires.optim", "minires.checking", "minires.inspection"),
    ("minires.data", "minires.interop", "minires.training", "minires.distributed"),
    ("minires",),
    ("minires.doctor", "minires.cli", "minires.__main__"),
)

# Where an optional package may be imported at the top: in files that are themselves loaded only when they are used.
TOOLS = {"minires_kernels.arena", "minires_kernels.simd", "minires_kernels.flat", "minires_kernels.launch",
         "minires_kernels.lab"}  # fmt: skip
FOR_KERNELS = {"numba", "llvmlite", "cupy"}
OPTIONAL = {
    "minires.cli": {"typer", "rich"},
    "minires.__main__": {"typer", "rich"},
    "minires.checking.pytest_plugin": {"pytest"},
    "minires.checking.reach": {"pytest"},
    "minires.checking.strategies": {"hypothesis"},
}
# Commands load what they need when they are called, so that `--help` is quick. Nothing may import these files, so no
# circle can hide there.
MAY_IMPORT_LATE = {"minires.cli", "minires.doctor", "minires.__main__"}


@dataclass(frozen=True)
class Import:
    """One import: the module that is named, in which line, and whether it waits inside a function."""

    target: str
    line: int
    is_late: bool


@dataclass
class Source:
    """All modules of the packages, by name, and what they import."""

    packages: dict[str, Path]
    paths: dict[str, Path] = field(default_factory=dict)
    imports: dict[str, list[Import]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for package, folder in self.packages.items():
            for path in sorted(folder.rglob("*.py")):
                parts = (package, *path.relative_to(folder).with_suffix("").parts)
                self.paths[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
        for module, path in self.paths.items():
            self.imports[module] = list(self._read(module, path))

    def _read(self, module: str, path: Path) -> Iterator[Import]:
        package = module if path.name == "__init__.py" else module.rpartition(".")[0]
        for node, is_late in statements(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                targets = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
                origin = ".".join([*above, *([node.module] if node.module else [])])
                names = [f"{origin}.{alias.name}" for alias in node.names]  # a module of that name, or something in it
                targets = list(dict.fromkeys(name if name in self.paths else origin for name in names))
            else:
                targets = [node.args[0].value]
            yield from (Import(target, node.lineno, is_late) for target in targets)

    def unit(self, module: str) -> str:
        """``minires.nn.layers`` belongs to the unit ``minires.nn``."""
        return ".".join(module.split(".")[:2])

    def is_own(self, module: str) -> bool:
        return module.split(".")[0] in self.packages

    def rank(self, module: str) -> int | None:
        """The line of ORDER on which the module's unit stands."""
        unit = self.unit(module)
        if f"{unit}.reference" in self.paths and unit.startswith("minires_kernels."):
            unit = FAMILY
        return next((position for position, line in enumerate(ORDER) if unit in line), None)

    def optional(self, module: str) -> set[str] | None:
        """The optional packages that this module may import at its top; None if it must do without."""
        unit, last = self.unit(module), module.rpartition(".")[2]
        is_implementation = self.rank(module) == ORDER.index((FAMILY,)) and module != unit and last != "reference"
        if unit in TOOLS or is_implementation:
            return FOR_KERNELS
        return OPTIONAL.get(module)


def statements(tree: ast.AST, is_late: bool = False) -> Iterator[tuple[ast.AST, bool]]:
    """Every import that runs, with whether it does so only when a function is called."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING"):
            yield from ((found, late) for branch in node.orelse for found, late in statements(branch, is_late))
            continue
        if isinstance(node, (ast.Import, ast.ImportFrom)) or is_dynamic_import(node):
            yield node, is_late
        in_function = isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda))
        yield from statements(node, is_late or in_function)


def is_dynamic_import(node: ast.AST) -> bool:
    return (
        isinstance(node, ast.Call)
        and ast.unparse(node.func) in ("import_module", "importlib.import_module", "__import__")
        and bool(node.args)
        and isinstance(node.args[0], ast.Constant)
    )


def violations(source: Source) -> list[str]:
    """Every broken rule, with file, line and both modules."""
    found = []
    for module, imports in source.imports.items():
        rank = source.rank(module)
        if rank is None:
            found.append(f"{module}: {source.unit(module)} has no place in ORDER")
            continue
        for each in imports:
            where = f"{module}:{each.line}"
            if not source.is_own(each.target):
                name = each.target.split(".")[0]
                allowed = name in sys.stdlib_module_names or name == "numpy" or name in (source.optional(module) or ())
                if not (each.is_late or allowed):
                    found.append(f"{where} imports the optional {name} at its top")
                continue
            other = source.rank(each.target)
            if source.paths.get(each.target) is None:
                found.append(f"{where} imports {each.target}, which doesn't exist")
            elif other is None or other > rank:
                found.append(f"{where} imports upwards: {each.target}")
            elif each.is_late and module not in MAY_IMPORT_LATE:
                found.append(f"{where} imports {each.target} inside a function")
            elif not each.is_late and source.optional(each.target) is not None and source.optional(module) is None:
                found.append(f"{where} imports {each.target}, which needs an optional package, at its top")
    for grouping, name in ((source.unit, "units"), (str, "modules")):
        circle = find_circle(source, grouping)
        if circle:
            found.append(f"a circle of {name}: {' -> '.join(circle)}")
    return found


def find_circle(source: Source, grouping) -> list[str]:
    """A circle among the groups of modules that import each other, or nothing."""
    graph: dict[str, set[str]] = {}
    for module, imports in source.imports.items():
        targets = {grouping(each.target) for each in imports if source.is_own(each.target)}
        graph.setdefault(grouping(module), set()).update(targets - {grouping(module)})
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as circle:
        return circle.args[1][::-1]
    return []


def test_imports_point_down():
    assert violations(Source(PACKAGES)) == []


def test_each_unit_of_the_order_is_known_once():
    units = [unit for line in ORDER for unit in line]
    assert len(units) == len(set(units))


# ---- the rules can be broken ---------------------------------------------------------------------

SOUND = {
    "minires_kernels/__init__.py": "from minires_kernels.registry import select",
    "minires_kernels/arrays.py": "import numpy as np",
    "minires_kernels/registry.py": "import importlib\nfrom minires_kernels.arrays import Array",
    "minires_kernels/simd/__init__.py": "import numba",
    "minires_kernels/activation/__init__.py": "from minires_kernels.registry import select",
    "minires_kernels/activation/reference.py": "import numpy",
    "minires_kernels/activation/numba_cpu.py": "import numba\nfrom minires_kernels import simd",
    "minires/__init__.py": "from minires import nn, tensor\nfrom minires.function import Function",
    "minires/function.py": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from minires.tensor import Tensor",
    "minires/tensor.py": "from minires.function import Function\nfrom minires_kernels import activation",
    "minires/nn/__init__.py": "from minires.nn.layers import Linear",
    "minires/nn/layers.py": "from minires.tensor import Tensor",
    "minires/checking/__init__.py": "",
    "minires/checking/strategies.py": "import hypothesis",
    "minires/training/__init__.py": "def plot():\n    import matplotlib",
    "minires/cli.py": "import typer\n\ndef main():\n    from minires import training",
    "minires/doctor.py": "def probe():\n    import_module('minires_kernels.simd')",
}


def broken(folder: Path, changes: dict[str, str]) -> list[str]:
    """What ``violations`` finds in a small tree that is sound but for ``changes``."""
    for name, text in {**SOUND, **changes}.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")
    return violations(Source({package: folder / package for package in PACKAGES}))


def test_a_sound_tree_breaks_no_rule(tmp_path):
    assert broken(tmp_path, {}) == []


BROKEN = [  # a file, what stands in it, and what is found
    ("minires/function.py", "from minires.tensor import Tensor", "imports upwards: minires.tensor"),
    ("minires/tensor.py", "import minires.nn.layers", "imports upwards: minires.nn.layers"),
    ("minires/nn/layers.py", "from minires import Function", "imports upwards: minires"),
    ("minires/nn/layers.py", "from .. import training", "imports upwards: minires.training"),
    ("minires/nn/layers.py", "from ..cli import main", "imports upwards: minires.cli"),
    ("minires/tensor.py", "import minires_kernels.pooling", "imports minires_kernels.pooling, which doesn't exist"),
    ("minires_kernels/activation/reference.py", "import minires.function", "imports upwards: minires.function"),
    ("minires_kernels/arrays.py", "import minires_kernels.activation", "imports upwards: minires_kernels.activation"),
    ("minires/nn/layers.py", "def f():\n  import minires.tensor", "imports minires.tensor inside a function"),
    ("minires/nn/layers.py", "f = lambda: import_module('minires.tensor')", "imports minires.tensor inside a function"),
    ("minires/training/__init__.py", "import matplotlib", "imports the optional matplotlib at its top"),
    ("minires/training/__init__.py", "try:\n  import rich\nfinally:\n  pass", "imports the optional rich at its top"),
    ("minires/nn/layers.py", "class Layer:\n  from torch import nn", "imports the optional torch at its top"),
    ("minires_kernels/activation/__init__.py", "import numba", "imports the optional numba at its top"),
    ("minires_kernels/activation/reference.py", "import numba", "imports the optional numba at its top"),
    ("minires_kernels/activation/numba_cpu.py", "import torch", "imports the optional torch at its top"),
    ("minires_kernels/registry.py", "import minires_kernels.simd", "imports upwards: minires_kernels.simd"),
    (
        "minires_kernels/activation/__init__.py",
        "from minires_kernels.activation import numba_cpu",
        "imports minires_kernels.activation.numba_cpu, which needs an optional package, at its top",
    ),
    (
        "minires/checking/__init__.py",
        "from minires.checking.strategies import shapes",
        "imports minires.checking.strategies, which needs an optional package, at its top",
    ),
]


@pytest.mark.parametrize(("name", "text", "finding"), BROKEN)
def test_a_broken_rule_is_found(tmp_path, name, text, finding):
    found, *circles = broken(tmp_path, {name: text})
    assert all(each.startswith("a circle of ") for each in circles)  # to import upwards often closes one as well
    module, line, rest = re.fullmatch(r"([\w.]+):(\d+) (.*)", found).groups()
    assert (module, rest) == (name.removesuffix(".py").removesuffix("/__init__").replace("/", "."), finding)
    assert "import" in text.splitlines()[int(line) - 1]


def test_a_unit_without_a_place_is_found(tmp_path):
    assert broken(tmp_path, {"minires/extras.py": ""}) == ["minires.extras: minires.extras has no place in ORDER"]


def test_a_circle_of_modules_is_found(tmp_path):
    (found,) = broken(tmp_path, {"minires/nn/layers.py": "from minires.nn import Linear"})
    assert found in (
        "a circle of modules: minires.nn -> minires.nn.layers -> minires.nn",
        "a circle of modules: minires.nn.layers -> minires.nn -> minires.nn.layers",
    )


def test_a_circle_of_units_on_one_line_is_found_although_no_two_modules_make_it(tmp_path):
    changes = {
        "minires/data/__init__.py": "from minires.training import loop",
        "minires/training/loop.py": "",
        "minires/training/evaluation.py": "import minires.data",
    }
    (found,) = broken(tmp_path, changes)
    assert found.startswith("a circle of units: ")


# ---- what the tree promises ----------------------------------------------------------------------

OPS = sorted(path for path in (ROOT / "minires" / "functional").glob("*.py") if path.stem not in ("__init__", "checks"))


@pytest.mark.parametrize("path", OPS, ids=lambda path: path.stem)
def test_each_op_is_exported_and_has_tests_of_its_own(path):
    exported = Source(PACKAGES).paths["minires.functional"].read_text(encoding="utf-8")
    public = [node.name for node in ast.parse(path.read_text(encoding="utf-8")).body
              if isinstance(node, ast.FunctionDef) and not node.name.startswith("_")]  # fmt: skip
    assert public
    assert [name for name in public if f'"{name}"' not in exported] == []
    assert (ROOT / "tests" / "functional" / f"test_{path.stem}.py").exists()
