"""Top-k errors against sorting, and the cases that sorting leaves open."""

import numpy as np
import pytest

from minires.training import top_k_errors


@pytest.mark.parametrize("k", [1, 2, 5])
def test_errors_are_the_rows_whose_label_sorting_doesnt_put_among_the_first_k(k):
    rng = np.random.default_rng(0)
    logits, labels = rng.standard_normal((200, 7)).astype(np.float32), rng.integers(7, size=200)
    first = np.argsort(-logits, axis=1)[:, :k]
    expected = sum(label not in row for label, row in zip(labels, first, strict=True))
    assert 0 < expected < 200
    assert top_k_errors(logits, labels, k) == expected


def test_a_tie_counts_against_the_label():
    logits = np.array([[1.0, 1.0, 0.0]])
    assert top_k_errors(logits, np.array([0]), 1) == 1
    assert top_k_errors(logits, np.array([0]), 2) == 0
    assert top_k_errors(np.zeros((4, 10)), np.arange(4), 5) == 4


def test_a_nan_counts_against_the_label_wherever_it_is():
    nan = np.nan
    assert top_k_errors(np.array([[nan, 0.0, 1.0], [nan, nan, nan], [2.0, nan, 0.0]]), np.array([0, 1, 0]), 1) == 3
    assert top_k_errors(np.array([[2.0, nan, 0.0]]), np.array([0]), 2) == 0


def test_with_few_classes_there_is_no_top_5_error():
    assert top_k_errors(np.array([[3.0, 2.0, 1.0]]), np.array([2]), 5) == 0


def test_no_rows_have_no_errors():
    assert top_k_errors(np.zeros((0, 4)), np.zeros(0, np.int64)) == 0


def test_arguments_that_dont_fit_are_refused():
    for logits, labels, k in (((3, 4), 2, 1), ((3,), 3, 1), ((3, 4), 3, 0)):
        with pytest.raises(ValueError, match="top_k_errors: k must be at least 1"):
            top_k_errors(np.zeros(logits), np.zeros(labels, np.int64), k)
