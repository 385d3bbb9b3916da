"""The tutorials run, are short, begin in words, end in an assertion, and their exercises can be solved.

The answers to the exercises are in SOLUTIONS below: look there when you have tried.
"""

import ast
import contextlib
import functools
import io
import re
from pathlib import Path

import numpy as np
import pytest

from benchmarks import roofline, timing

TUTORIALS = sorted((Path(__file__).parents[1] / "tutorials").glob("*.py"))
every_tutorial = pytest.mark.parametrize("path", TUTORIALS, ids=lambda path: path.stem)

MENDED = "mended, well done!"
SOLUTIONS = {  # tutorial: what stands there, what has to stand there, and so on in pairs
    "01_a_tensor_and_its_graph": (("minires.Tensor(np.maximum(product.data, 0))", "minires.functional.relu(product)"),),
    "02_backward_by_hand": (
        ("tensor = waiting[0]", "tensor = max(waiting, key=lambda tensor: tensor.creator.number)"),
    ),
    "03_convolution_as_a_matrix_product": (("padded[pixels] = ", "padded[pixels] += "),),
    "04_batch_norm": (
        ("np.ones_like(x), rng.standard_normal(x.shape)", "rng.standard_normal((2, *x.shape))"),
        (
            "return weight * statistics(x)[2] * (g - g.mean(AXES, keepdims=True))",
            "mean, _, inverse_std = statistics(x); x_hat = (x - mean) * inverse_std; return weight * inverse_std"
            " * (g - g.mean(AXES, keepdims=True) - x_hat * (g * x_hat).mean(AXES, keepdims=True))",
        ),
    ),
    "05_residual_blocks": (('activates="both"', 'activates="residual"'),),
    "06_three_ways_to_convolve": (("(0, 1, -1, 2, -2, 3, -3)", "(0, 1, -1, 2, -2, 1 / 2, -1 / 2)"),),
    "07_from_loops_to_registers": (("first * O, O, 0)", "first * O, O, p - first)"),),
    "08_benchmark_your_own_kernel": (
        ("found = kernel(x, y)", "before = x.copy(), y.copy(); np.full_like(x, np.nan); found = kernel(x, y)"),
        (
            "found.dtype == x.dtype)",
            "found.dtype == x.dtype and all(map(np.array_equal, (x, y), before, (True, True))))",
        ),
    ),
}
MEASURED = re.compile(r"\d (ms|µs|GB/s|GFLOP/s)")  # what a machine does on a certain day, different each time


@pytest.fixture(autouse=True)
def _measured_briefly(monkeypatch):
    """How fast a machine is that runs other tests as well is no lesson: a tutorial's measurements end after a round."""
    alternate = timing.alternate

    def briefly(candidates, **options):
        return alternate(candidates, **{**options, "rounds": 1, "seconds": 0.1, "warm_up": 0.0, "window": 0.01})

    for module in (timing, roofline):
        monkeypatch.setattr(module, "alternate", briefly)


def run(source: str, path: Path) -> str:
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed), np.printoptions():
        exec(compile(source, str(path), "exec"), {"__name__": "__main__", "__file__": str(path)})
    return printed.getvalue()


@functools.cache
def output(path: Path) -> str:
    return run(path.read_text(encoding="utf-8"), path)


def code_cells(path: Path) -> list[str]:
    pieces = re.split(r"^(# %%.*)$", path.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return [text for marker, text in zip(pieces[1::2], pieces[2::2], strict=True) if "[markdown]" not in marker]


@every_tutorial
def test_a_tutorial_runs_and_prints_something(path):
    assert output(path).strip()


@every_tutorial
def test_a_tutorial_fits_its_page(path):
    lines = path.read_text(encoding="utf-8").splitlines()
    assert len(lines) <= 150
    assert max(map(len, lines)) <= 120


@every_tutorial
def test_a_tutorial_begins_with_a_title_in_markdown(path):
    assert path.read_text(encoding="utf-8").startswith("# %% [markdown]\n# # ")


@every_tutorial
def test_each_cell_is_complete_python(path):
    for cell in code_cells(path):
        ast.parse(cell)


@every_tutorial
def test_an_assertion_stands_in_the_last_cells(path):
    trees = [ast.parse(cell) for cell in code_cells(path)[-2:]]
    assert any(isinstance(node, ast.Assert) for tree in trees for node in ast.walk(tree))


def test_tutorials_are_numbered_from_one_without_gaps():
    assert [int(path.stem[:2]) for path in TUTORIALS] == list(range(1, len(TUTORIALS) + 1))


@pytest.mark.parametrize("name", SOLUTIONS)
def test_an_exercise_is_broken_as_shipped_and_its_solution_mends_it(name):
    path = next(path for path in TUTORIALS if path.stem == name)
    source = path.read_text(encoding="utf-8")
    for broken, mended in SOLUTIONS[name]:
        assert source.count(broken) == 1
        source = source.replace(broken, mended)
    solved = run(source, path)
    assert MENDED not in output(path)
    assert MENDED in solved
    lessons = [
        [line for line in text.splitlines() if "Exercise" not in line and not MEASURED.search(line)]
        for text in (output(path), solved)
    ]
    assert lessons[0] == lessons[1]  # the same seed prints the same lesson
