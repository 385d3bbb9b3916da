"""The score: ours notices every mistake, the ways of teaching engines don't."""

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


def test_a_random_upstream_gradient_tight_tolerances_and_politeness_notice_them_too():
    chosen = [MUTANTS[name] for name in (*REVEALING, "relu_in_place")]
    assert not mutation.score("MyGrad's", mutation.mygrad_settings, chosen).survived


def test_what_noticed_a_mistake_is_kept():
    result = mutation.score("ours", mutation.ours, [MUTANTS["relu_leaks"]])
    assert result.noticed["relu_leaks"].cause == "mask"
    assert result.killed == ("relu_leaks",)


def test_a_checker_that_refuses_what_is_right_has_no_score():
    with pytest.raises(ValueError, match="which is right"):
        mutation.score("never content", lambda case: False, [MUTANTS["relu_leaks"]])


def test_every_mutant_has_a_case():
    assert {mutant.target.__name__ for mutant in MUTANTS.values()} == set(CASES)
