"""dropout."""

from __future__ import annotations

import numpy as np
import pytest

from minires import Tensor
from minires.functional import dropout
from tests.questions import check_gradients, check_politeness


def rng():
    return np.random.default_rng(7)


@pytest.mark.parametrize("p", [0.25, 0.5, 0.9])
def test_survivors_are_scaled_so_that_the_expectation_stays(p):
    x = np.ones((200, 200))
    y = dropout(Tensor(x), p, training=True, rng=rng()).data
    survivors = y != 0
    np.testing.assert_allclose(y[survivors], 1 / (1 - p), rtol=1e-15)
    deviations = (survivors.mean() - (1 - p)) / np.sqrt(p * (1 - p) / x.size)
    assert abs(deviations) < 4  # standard deviations of a binomial share


@pytest.mark.parametrize("p", [0.0, 0.3, 1.0])
def test_gradient_passes_where_the_number_did(p):
    x = np.random.default_rng(0).standard_normal((3, 4))
    check_gradients(lambda t: dropout(t, p, training=True, rng=rng()), x)


@pytest.mark.parametrize("p", [0.3, 1.0])
def test_is_polite(p):
    check_politeness(lambda t: dropout(t, p, training=True, rng=rng()), np.ones((2, 3, 4, 5)))


def test_everything_is_dropped_at_probability_one():
    y = dropout(Tensor(np.ones(5, np.float32)), 1.0, training=True, rng=rng())
    assert y.data.tolist() == [0.0] * 5


def test_evaluation_and_probability_zero_are_the_identity_and_draw_nothing():
    x, generator = Tensor(np.ones(5, np.float32)), rng()
    before = generator.bit_generator.state
    assert dropout(x, 0.5, training=False, rng=generator) is x
    assert dropout(x, 0.0, training=True, rng=generator) is x
    assert generator.bit_generator.state == before


def test_the_passed_generator_decides():
    x = Tensor(np.ones(100, np.float32))
    first = dropout(x, 0.5, training=True, rng=rng()).data
    np.testing.assert_array_equal(first, dropout(x, 0.5, training=True, rng=rng()).data)
    generator = rng()
    dropout(x, 0.5, training=True, rng=generator)
    assert (dropout(x, 0.5, training=True, rng=generator).data != first).any()


@pytest.mark.parametrize("p", [-0.1, 1.1, float("nan")])
def test_what_is_no_probability_is_refused(p):
    with pytest.raises(ValueError, match=rf"dropout: p must be a probability, 0 <= p <= 1, got {p}"):
        dropout(Tensor([1.0]), p, training=True, rng=rng())


def test_what_is_no_generator_or_tensor_is_refused():
    with pytest.raises(TypeError, match=r"dropout: rng must be a numpy.random.Generator, got int"):
        dropout(Tensor([1.0]), 0.5, training=True, rng=3)
    with pytest.raises(TypeError, match="dropout: x must be a Tensor, got list"):
        dropout([1.0], 0.5, training=True, rng=rng())
