"""The score: ours notices every mistake, the ways of teaching engines don't; and a user's suite can be scored."""

import pytest

from minires.checking import mutation
from minires.checking.cases import CASES
from minires.checking.mutants import MUTANTS

REVEALING = ["relu_batch_reversed", "linear_batch_reversed", "max_pool_batch_rolled", "batch_norm_without_mean_term"]


@pytest.mark.parametrize(
    "checker", [mutation.all_ones, mutation.dezero_settings, mutation.one_element, mutation.not_none]
)
def test_the_ways_of_teaching_engines_let_mistakes_through_that_ours_notices(checker):
    chosen = [MUTANTS[name] for name in REVEALING]
    assert not mutation.score("ours", mutation.ours, chosen).survived
    assert mutation.score("theirs", checker, chosen).survived


def test_a_checker_that_refuses_what_is_right_has_no_score():
    with pytest.raises(ValueError, match="which is right"):
        mutation.score("never content", lambda case: False, [MUTANTS["relu_leaks"]])


def test_every_mutant_has_a_case():
    assert {mutant.target.__name__ for mutant in MUTANTS.values()} == set(CASES)


SUITE = """
import numpy as np
from minires import functional


def test_relu(gradcheck):
    assert gradcheck(functional.relu, np.array([[0.5, -1.0, 2.0], [1.5, -0.5, -2.0]]))


def test_linear_runs():
    import minires
    x = minires.Tensor(np.ones((2, 3)), requires_grad=True)
    functional.linear(x, minires.Tensor(np.ones((3, 3)))).backward(np.ones((2, 3)))
    assert x.grad is not None
"""


@pytest.fixture(autouse=True)
def _plugins_as_named(monkeypatch):
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")  # ours is named with -p: installed or not


def test_a_suite_is_scored_mistake_by_mistake(tmp_path):
    suite = tmp_path / "test_suite.py"
    suite.write_text(SUITE)
    lines = []
    arguments = ["-p", "minires.checking.pytest_plugin", str(suite), "--rootdir", str(tmp_path)]
    names = ["relu_leaks", "linear_weight_transposed"]
    result = mutation.score_suite(arguments, names, report=lines.append)
    assert result.killed == ("relu_leaks",)
    assert result.survived == ("linear_weight_transposed",)
    assert len(lines) == 2
    assert "1 of 2 killed" in str(result)


def test_a_suite_that_fails_anyway_has_no_score(tmp_path):
    suite = tmp_path / "test_suite.py"
    suite.write_text("def test_no():\n    assert False\n")
    with pytest.raises(RuntimeError, match="must pass before"):
        mutation.score_suite(["-p", "minires.checking.pytest_plugin", str(suite)], ["relu_leaks"])
    with pytest.raises(ValueError, match="no mutant 'nonsense'"):
        mutation.score_suite([str(suite)], ["nonsense"])
