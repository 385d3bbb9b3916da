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
    with pytest.raises(ValueError, match=rf"dropout: p must be a number from 0 to 1, got {p}"):
        dropout(Tensor([1.0]), p, training=True, rng=rng())


@pytest.mark.parametrize(
    ("p", "training", "message"),
    [
        (None, True, "p must be a number, got None"),
        (True, True, "p must be a number, got True"),
        (Tensor(0.5), True, r"p must be a number, got a Tensor of shape \(\); use \.item\(\)"),
        (0.5, 1, "training must be True or False, got 1"),
    ],
)
def test_options_of_another_type_are_refused(p, training, message):
    with pytest.raises(TypeError, match=f"dropout: {message}"):
        dropout(Tensor([1.0]), p, training, rng=rng())


def test_options_may_be_given_by_position_and_left_out_as_in_pytorch():
    x = Tensor(np.ones(100, np.float32))
    np.testing.assert_array_equal(dropout(x, rng=rng()).data, dropout(x, p=0.5, training=True, rng=rng()).data)
    assert dropout(x, 0.5, False, rng=rng()) is x


def test_what_is_no_generator_or_tensor_is_refused():
    with pytest.raises(TypeError, match=r"dropout: rng must be a numpy.random.Generator, got int"):
        dropout(Tensor([1.0]), 0.5, training=True, rng=3)
    with pytest.raises(TypeError, match="dropout: x must be a Tensor, got list"):
        dropout([1.0], 0.5, training=True, rng=rng())
