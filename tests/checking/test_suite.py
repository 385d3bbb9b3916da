"""Somebody's pytest suite is scored: tests are watched, and each mistake gets the tests that reach its code."""

import os
from pathlib import Path

import pytest

import minires
import minires_kernels
from minires.checking import suite

pytestmark = pytest.mark.slow  # real runs of pytest, one for each mistake

SUITE = """
import numpy as np
import pytest
from minires import Tensor, functional


def test_relu_is_checked(gradcheck):
    assert gradcheck(functional.relu, np.array([[0.5, -1.0, 2.0], [1.5, -0.5, -2.0]]))


def test_linear_runs():
    x = Tensor(np.ones((2, 3)), requires_grad=True)
    functional.linear(x, Tensor(np.ones((3, 3)))).backward(np.ones((2, 3)))
    assert x.grad is not None


def test_nothing_is_differentiated():
    functional.softmax(Tensor(np.ones((2, 3))), 1)
"""

CONFTEST = """
from minires import using

using("reference").__enter__()  # importing Numba takes longer than all of these tests
"""


@pytest.fixture(autouse=True)
def _elsewhere(monkeypatch, tmp_path):
    """In a project that merely depends on MiniRes, installed or not."""
    monkeypatch.chdir(tmp_path)
    paths = [str(Path(module.__file__).parents[1]) for module in (minires, minires_kernels)]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(paths))
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")  # ours is named with -p


@pytest.fixture
def scored(tmp_path):
    """Score the suite ``text``: (the result, the lines that were reported)."""

    def scored(text, names, *arguments, folder="tests"):
        path = tmp_path / folder / "test_suite.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        (tmp_path / "conftest.py").write_text(CONFTEST)
        lines = []
        plugin = ["-p", "minires.checking.pytest_plugin", str(tmp_path), "--rootdir", str(tmp_path)]
        return suite.score_suite([*plugin, *arguments], names, report=lines.append), lines

    return scored


def test_each_mistake_gets_a_line_which_names_the_test_that_noticed_it(scored):
    names = ["relu_leaks", "linear_weight_transposed", "softmax_diagonal_only"]
    result, lines = scored(SUITE, names)
    assert result.killed == ("relu_leaks",)
    assert result.survived == ("linear_weight_transposed", "softmax_diagonal_only")
    assert "1 of 3 killed" in str(result)
    plain, *lines = lines
    assert plain == "without a mistake, none of 3 tests fails"
    relu, linear, softmax = sorted(lines, key=lambda line: [name in line for name in names], reverse=True)
    assert relu.startswith("killed    relu_leaks: A leak of 0.01")
    assert relu.endswith("noticed by tests/test_suite.py::test_relu_is_checked")
    assert linear.startswith("SURVIVED  linear_weight_transposed: ")
    assert linear.endswith("; reached by 1 test")
    assert softmax.endswith("not reached by any test")


def test_only_the_tests_that_reach_a_mistake_are_run_and_the_shortest_first(scored, tmp_path):
    text = """
import time, pathlib
import numpy as np
import pytest
from minires import Tensor, functional


@pytest.fixture(scope="module")
def slow():
    time.sleep(0.4)


def gradient():
    functional.relu(Tensor(np.ones(2), requires_grad=True)).backward(np.ones(2))


@pytest.mark.parametrize("seconds", [0.6, 0.0, 0.2])
def test_relu(seconds, log):
    gradient()
    time.sleep(seconds)
    log(seconds)


def test_with_fixture(slow, log):
    gradient()
    log("fixture")


def test_with_the_same_fixture(slow, log):
    gradient()
    log("fixture")


def test_tanh(log):
    functional.tanh(Tensor(np.ones(2), requires_grad=True)).backward(np.ones(2))
    log("tanh")


@pytest.fixture
def log():
    def log(word):
        with pathlib.Path(__file__).with_name("log.txt").open("a") as file:
            print(word, file=file)

    return log
"""
    other = tmp_path / "tests" / "test_other.py"  # nothing in it reaches a mistake, so it isn't even imported
    other.parent.mkdir()
    other.write_text("import pathlib\npathlib.Path(__file__).with_name('log.txt').open('a').write('imported\\n')\n")
    result, _ = scored(text, ["relu_leaks"])
    assert result.survived == ("relu_leaks",)
    log = (tmp_path / "tests" / "log.txt").read_text().split()
    assert log[:7] == ["imported", "0.6", "0.0", "0.2", "fixture", "fixture", "tanh"]
    assert log[7:] == ["0.0", "0.2", "fixture", "fixture", "0.6"]


def test_what_a_fixture_or_an_import_computed_counts_for_every_test_that_has_it_in_hand(scored):
    text = """
import numpy as np
import pytest
from minires import Tensor, functional


def gradient(fn):
    x = Tensor(np.array([[1.0, -1.0]]), requires_grad=True)
    y = fn(x)
    y.backward(np.array([[2.0, 3.0]]))
    return x.grad


IMPORTED = gradient(lambda x: functional.softmax(x, 1))


@pytest.fixture(scope="module")
def relu():
    return gradient(functional.relu)


def test_runs(relu):
    pass


def test_looks(relu):
    assert relu.tolist() == [[2.0, 0.0]]


def test_softmax():
    p = 1 / (1 + np.exp(-2))
    np.testing.assert_allclose(IMPORTED, [[-p * (1 - p), p * (1 - p)]])
"""
    result, lines = scored(text, ["relu_without_mask", "softmax_diagonal_only"])
    assert result.survived == ()
    assert any(line.endswith("::test_looks") for line in lines)
    assert any(line.endswith("::test_softmax") for line in lines)


ODD = """
import pathlib
import numpy as np
import pytest
from minires import Tensor, functional

NAMES = ["a b", "x[0]", "a::b", "a/b.py", "é", "\\n", "-x", "@", "'", '"', "a,b", "", "a" * 300]


@pytest.mark.parametrize("number", range(len(NAMES)), ids=NAMES)
def test_relu(number):
    functional.relu(Tensor(np.ones(2), requires_grad=True)).backward(np.ones(2))
    with pathlib.Path(__file__).with_name("log.txt").open("a") as file:
        print(number, file=file)
"""


def test_names_may_have_any_characters(scored, tmp_path):
    result, lines = scored(ODD, ["relu_leaks"], folder="a b[1]/é")
    assert result.survived == ("relu_leaks",)
    assert lines[1].endswith("; reached by 13 tests")
    log = (tmp_path / "a b[1]" / "é" / "log.txt").read_text().split()
    assert sorted(map(int, log[13:])) == list(range(13))


def test_markers_are_as_the_caller_says_and_several_processes_serve_the_first_run(scored, tmp_path, monkeypatch):
    monkeypatch.delenv("PYTEST_XDIST_WORKER", raising=False)  # set where this test itself is run by xdist
    pytest.importorskip("xdist", reason="runs a suite in several processes")
    text = """
import os, pathlib
import numpy as np
import pytest
from minires import functional


@pytest.mark.skipif(False, reason="")
def test_relu(gradcheck):
    with pathlib.Path(__file__).with_name("log.txt").open("a") as file:
        print(os.environ.get("PYTEST_XDIST_WORKER", "alone"), file=file)
    assert gradcheck(functional.relu, np.array([0.5, -1.0]))


def test_softmax(gradcheck):
    assert gradcheck(lambda x: functional.softmax(x, 1), np.array([[0.5, -1.0]]))
"""
    arguments = ["-p", "xdist.plugin", "-n", "2", "-m", "skipif"]
    result, lines = scored(text, ["relu_leaks", "softmax_diagonal_only"], *arguments)
    assert result.killed == ("relu_leaks",)
    assert lines[0] == "without a mistake, none of 1 tests fails"
    assert any(line.endswith("Only the diagonal of the Jacobian: p (1 - p); not reached by any test") for line in lines)
    first, *others = (tmp_path / "tests" / "log.txt").read_text().split()
    assert first.startswith("gw")
    assert others == ["alone", "alone"]


def test_failing_examples_of_hypothesis_are_not_left_behind(scored, tmp_path):
    text = """
import numpy as np
from hypothesis import given, settings, strategies
from minires import Tensor, functional


@given(strategies.floats(-1, 1))
@settings(deadline=None)
def test_relu(number):
    x = Tensor(np.array([number]), requires_grad=True)
    functional.relu(x).backward(np.ones(1))
    assert x.grad[0] in (0.0, 1.0)
"""
    result, _ = scored(text, ["relu_leaks"])
    assert result.killed == ("relu_leaks",)
    assert not (tmp_path / ".hypothesis" / "examples").exists()


def test_a_suite_that_fails_anyway_has_no_score(scored):
    with pytest.raises(ValueError, match=r"must pass before mistakes are planted(?s:.*)test_no"):
        scored("def test_no():\n    assert False\n", ["relu_leaks"])
    with pytest.raises(ValueError, match="must pass before"):
        scored("import nonsense\n", ["relu_leaks"])
    with pytest.raises(ValueError, match=r"must pass before(?s:.*)unrecognized arguments"):
        scored(SUITE, ["relu_leaks"], "--nonsense")


def test_a_mutant_that_does_not_exist_is_refused():
    with pytest.raises(ValueError, match="no mutant 'nonsense'; there are: add_forgets_second, "):
        suite.score_suite([], ["nonsense"])


def test_a_test_that_fails_on_its_own_proves_nothing(scored):
    text = """
import numpy as np
import pytest
from minires import Tensor, functional

before = []


def test_first():
    before.append(1)


def test_second():
    functional.relu(Tensor(np.ones(2), requires_grad=True)).backward(np.ones(2))
    assert before
"""
    with pytest.raises(ValueError, match="test_second fails without a mistake too when it runs on its own"):
        scored(text, ["relu_leaks"])


def test_a_test_that_is_gone_in_the_second_run_is_missed(scored, tmp_path):
    text = """
import pathlib
import numpy as np
from minires import Tensor, functional

runs = pathlib.Path(__file__).with_name("runs.txt")
runs.write_text(runs.read_text() + "|" if runs.exists() else "|")


def reaches():
    functional.relu(Tensor(np.ones(2), requires_grad=True)).backward(np.ones(2))


globals()["test_" + "x" * len(runs.read_text())] = reaches
"""
    with pytest.raises(ValueError, match=r"test_x was there when the suite ran without a mistake, but isn't now"):
        scored(text, ["relu_leaks"])


def test_a_file_that_cannot_be_imported_with_a_mistake_notices_it(scored):
    text = """
import numpy as np
from minires import Tensor, functional

x = Tensor(np.array([1.0, -1.0]), requires_grad=True)
functional.relu(x).backward(np.ones(2))
assert x.grad[1] == 0


def test_nothing():
    pass
"""
    result, lines = scored(text, ["relu_leaks"])
    assert result.killed == ("relu_leaks",)
    assert lines[1].endswith("noticed by tests/test_suite.py")


def test_processes_that_run_side_by_side_compute_on_one_thread_each(scored, tmp_path, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    text = """
import os, pathlib
import numpy as np
from minires import Tensor, functional


def test_relu():
    functional.relu(Tensor(np.ones(2), requires_grad=True)).backward(np.ones(2))
    with pathlib.Path(__file__).with_name("log.txt").open("a") as file:
        print(os.environ["OMP_NUM_THREADS"], os.environ.get("NUMBA_NUM_THREADS", "all"), file=file)
"""
    monkeypatch.delenv("NUMBA_NUM_THREADS", raising=False)
    scored(text, ["relu_leaks"])
    assert (tmp_path / "tests" / "log.txt").read_text().split() == ["3", "all", "1", "1"]
