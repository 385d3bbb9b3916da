"""Initial weights: their variances, their generators."""

from __future__ import annotations

import numpy as np
import pytest

from minires import nn
from minires.nn import initializers as init

# (shape, fan_in, fan_out) of the papers' nets and the standard deviation sqrt(2 / fan) of either
SHAPES = {
    "cifar conv1": ((16, 3, 3, 3), 27, 144, 0.27217, 0.11785),
    "16 to 16": ((16, 16, 3, 3), 144, 144, 0.11785, 0.11785),
    "16 to 32": ((32, 16, 3, 3), 144, 288, 0.11785, 0.08333),
    "32 to 32": ((32, 32, 3, 3), 288, 288, 0.08333, 0.08333),
    "32 to 64": ((64, 32, 3, 3), 288, 576, 0.08333, 0.05893),
    "64 to 64": ((64, 64, 3, 3), 576, 576, 0.05893, 0.05893),
    "one input channel": ((16, 1, 3, 3), 9, 144, 0.47140, 0.11785),
    "1x1 64 to 16": ((16, 64, 1, 1), 64, 16, 0.17678, 0.35355),
    "imagenet conv1": ((64, 3, 7, 7), 147, 3136, 0.11664, 0.02525),
    "linear": ((10, 64), 64, 10, 0.17678, 0.44721),
}


@pytest.mark.parametrize("name", SHAPES)
def test_fans(name):
    shape, fan_in, fan_out, _, _ = SHAPES[name]
    assert init.fans(shape) == (fan_in, fan_out)


@pytest.mark.parametrize("draw", [init.he_normal, init.he_uniform])
@pytest.mark.parametrize("fan", ["fan_in", "fan_out"])
@pytest.mark.parametrize("name", SHAPES)
def test_he_has_the_papers_standard_deviation(name, fan, draw):
    shape, fan_in, fan_out, std_in, std_out = SHAPES[name]
    target = std_in if fan == "fan_in" else std_out
    assert np.sqrt(2 / (fan_in if fan == "fan_in" else fan_out)) == pytest.approx(target, abs=5.1e-6)
    weight = draw(shape, rng=np.random.default_rng(0), fan=fan)
    assert weight.shape == shape
    assert weight.dtype == np.float32
    # the deviation of a standard deviation of n numbers is 1 / sqrt(2 n): 5 % is 3.4 of them for 2,304 numbers
    assert weight.std() == pytest.approx(target, rel=0.05 if weight.size >= 2304 else 0.15)
    assert abs(weight.mean()) < 4 * target / np.sqrt(weight.size)


@pytest.mark.parametrize("draw", [init.xavier_normal, init.xavier_uniform])
@pytest.mark.parametrize("name", SHAPES)
def test_xavier_has_variance_two_over_the_sum_of_fans(name, draw):
    shape, fan_in, fan_out, _, _ = SHAPES[name]
    weight = draw(shape, rng=np.random.default_rng(0))
    assert weight.shape == shape
    assert weight.dtype == np.float32
    assert weight.std() == pytest.approx(np.sqrt(2 / (fan_in + fan_out)), rel=0.05 if weight.size >= 2304 else 0.15)


def test_uniform_draws_reach_and_keep_their_bounds():
    shape = (64, 64, 3, 3)
    he, xavier = (draw(shape, rng=np.random.default_rng(0)) for draw in (init.he_uniform, init.xavier_uniform))
    for weight, bound in ((he, np.sqrt(6 / 576)), (xavier, np.sqrt(6 / 1152))):
        assert 0.99 * bound < np.abs(weight).max() <= np.float32(bound)
        share_within_half = (np.abs(weight) < bound / 2).mean()
        assert share_within_half == pytest.approx(0.5, abs=0.02)


def test_normal_draws_are_normal():
    weight = init.he_normal((64, 64, 3, 3), rng=np.random.default_rng(0)) / np.sqrt(2 / 576)
    assert (np.abs(weight) < 1).mean() == pytest.approx(0.6827, abs=0.01)
    assert (np.abs(weight) > 2).mean() == pytest.approx(0.0455, abs=0.005)


@pytest.mark.parametrize("draw", [init.he_normal, init.he_uniform, init.xavier_normal, init.xavier_uniform])
def test_the_passed_generator_decides(draw):
    first, again = (draw((4, 5), rng=np.random.default_rng(3)) for _ in range(2))
    np.testing.assert_array_equal(first, again)
    assert (draw((4, 5), rng=np.random.default_rng(4)) != first).any()


def test_layers_draw_he_normal_weights_of_the_fan_that_was_asked_for():
    for fan in ("fan_in", "fan_out"):
        conv = nn.Conv2d(16, 32, 3, rng=np.random.default_rng(5), fan=fan)
        expected = init.he_normal((32, 16, 3, 3), rng=np.random.default_rng(5), fan=fan)
        np.testing.assert_array_equal(conv.weight.data, expected)
        linear = nn.Linear(64, 10, rng=np.random.default_rng(5), fan=fan)
        expected = init.he_normal((10, 64), rng=np.random.default_rng(5), fan=fan)
        np.testing.assert_array_equal(linear.weight.data, expected)


def test_he_keeps_the_signal_through_relu_layers_and_xavier_halves_it():
    """E[x^2] after 20 layers of width 256: of order 1 with He, about 2^-20 with Xavier (He et al. 2015, 2.2)."""
    rng = np.random.default_rng(6)
    signal = {}
    for draw in (init.he_normal, init.xavier_normal):
        x = rng.standard_normal((64, 256))
        for _ in range(20):
            x = np.maximum(x @ draw((256, 256), rng=rng).T, 0)
        signal[draw] = (x**2).mean()
    assert 0.3 < signal[init.he_normal] < 3
    assert 0.3 < signal[init.xavier_normal] * 2**20 < 3


@pytest.mark.parametrize("draw", [init.he_normal, init.he_uniform, init.xavier_normal, init.xavier_uniform])
@pytest.mark.parametrize("rng", [0, None, np.random])
def test_a_seed_is_no_generator(draw, rng):
    with pytest.raises(TypeError, match=r"initializers: rng must be a numpy\.random\.Generator, got .*; .*makes one"):
        draw((3, 3), rng=rng)


def test_refuses():
    rng = np.random.default_rng(0)
    with pytest.raises(ValueError, match="initializers: fan must be 'fan_in' or 'fan_out', got 'both'"):
        init.he_normal((3, 3), rng=rng, fan="both")
    with pytest.raises(ValueError, match=r"a weight has at least two axes \(out, in, ...\), got shape \(3,\)"):
        init.xavier_uniform((3,), rng=rng)


@pytest.mark.parametrize(
    ("shape", "error", "message"),
    [
        (3, TypeError, r"fans: the shape of a weight must be a tuple \(out, in, \.\.\.\), got 3"),
        ("same", TypeError, "must be a tuple"),
        ((1, "a"), TypeError, "fans: each length of the shape must be an integer, got 'a'"),
        ((1, 2.0), TypeError, "must be an integer, got 2.0"),
        ((-1, 2), ValueError, r"at least two axes \(out, in, \.\.\.\) of 0 or more, got \(-1, 2\)"),
        ((2**40, 2**40), ValueError, "more than a process can address"),
    ],
)
@pytest.mark.parametrize("draw", [init.he_normal, init.he_uniform, init.xavier_normal, init.xavier_uniform])
def test_a_shape_that_is_none_is_refused(draw, shape, error, message):
    with pytest.raises(error, match=message):
        draw(shape, rng=np.random.default_rng(0))


@pytest.mark.parametrize("draw", [init.he_normal, init.he_uniform, init.xavier_normal, init.xavier_uniform])
@pytest.mark.parametrize("shape", [(0, 3), (3, 0), (0, 0), (4, 3, 0, 3)])
def test_a_weight_of_no_elements_is_one(draw, shape):
    assert draw(shape, rng=np.random.default_rng(0)).shape == shape
