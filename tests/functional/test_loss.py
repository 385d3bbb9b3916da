"""cross_entropy."""

from __future__ import annotations

import math

import numpy as np
import pytest

from minires import Tensor, using
from minires.functional import cross_entropy, log_softmax
from tests import oracles_net
from tests.questions import check_gradients, check_politeness

REDUCE = {"mean": np.mean, "sum": np.sum, "none": np.asarray}
TARGET = np.array([2, 0, 0, 4])


def logits(seed=0):
    return np.random.default_rng(seed).standard_normal((4, 5)) * 3


@pytest.mark.parametrize("reduction", REDUCE)
@pytest.mark.parametrize("smoothing", [0.0, 0.1, 1.0])
def test_value_and_gradient(smoothing, reduction):
    def loss(z):
        return cross_entropy(z, TARGET, label_smoothing=smoothing, reduction=reduction)

    expected = REDUCE[reduction](oracles_net.cross_entropy(logits(), TARGET, smoothing))
    np.testing.assert_allclose(loss(Tensor(logits())).data, expected, rtol=1e-13)
    check_gradients(loss, logits())
    check_politeness(loss, logits())


def test_equal_logits_cost_the_logarithm_of_the_number_of_classes():
    assert cross_entropy(Tensor(np.zeros((3, 10))), [1, 2, 3]).item() == pytest.approx(math.log(10), rel=1e-15)


def test_the_gradient_of_each_row_sums_to_zero():
    z = Tensor(logits(), requires_grad=True)
    cross_entropy(z, TARGET, label_smoothing=0.2).backward()
    np.testing.assert_allclose(z.grad.sum(1), 0, atol=1e-16)


def test_it_is_the_negative_log_softmax_of_the_own_class():
    z = Tensor(logits())
    picked = log_softmax(z, 1)[np.arange(4), TARGET]
    assert cross_entropy(z, TARGET).item() == pytest.approx(-picked.mean().item(), rel=1e-14)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_huge_logits_neither_overflow_nor_warn(dtype):
    z = Tensor(np.array([[1e4, -1e4, 0.0]], dtype), requires_grad=True)
    loss = cross_entropy(z, [1])
    assert loss.item() == 2e4
    loss.backward()
    assert z.grad.tolist() == [[1.0, -1.0, 0.0]]


@pytest.mark.parametrize("implementation", ["numba_cpu", "reference"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("offset", [0.0, 1e3, -1e3, 1e8, -1e30])
def test_what_all_logits_have_in_common_costs_no_digits(offset, dtype, implementation):
    with using(implementation):
        for smoothing in (0.0, 0.3):
            loss = cross_entropy(Tensor(np.full((1, 2), offset, dtype)), [1], label_smoothing=smoothing)
            assert loss.item() == pytest.approx(math.log(2), rel=2 * float(np.finfo(dtype).eps))


@pytest.mark.parametrize("implementation", ["numba_cpu", "reference"])
def test_a_share_of_nothing_in_an_infinite_loss_is_nothing(implementation):
    """With all of the target smoothed away, its own class's loss of infinity counts through the mean alone."""
    z = np.array([[1.0, -np.inf, 2.0]])
    with using(implementation):
        assert cross_entropy(Tensor(z), [1], label_smoothing=1.0).item() == np.inf


@pytest.mark.filterwarnings("error")
def test_a_masked_class_costs_nothing():
    """A logit of -inf takes a class out of the game; without smoothing the loss doesn't ask for it."""
    z = np.array([[1.0, -np.inf, 2.0]])
    masked = Tensor(z, requires_grad=True)
    loss = cross_entropy(masked, [2])
    assert loss.item() == pytest.approx(oracles_net.cross_entropy(z, [2], 0.0)[0], rel=1e-14)
    loss.backward()
    assert masked.grad[0, 1] == 0
    assert np.isfinite(masked.grad).all()


@pytest.mark.parametrize("kind", [list, np.int32, np.uint8, Tensor])
def test_targets_may_be_any_integers(kind):
    target = TARGET.tolist() if kind is list else Tensor(TARGET) if kind is Tensor else TARGET.astype(kind)
    assert cross_entropy(Tensor(logits()), target).item() == cross_entropy(Tensor(logits()), TARGET).item()


def test_a_target_that_is_overwritten_later_does_not_change_the_gradient():
    """A loader may fill the same array with the next batch's classes before backward runs."""
    target = TARGET.copy()
    z, other = Tensor(logits(), requires_grad=True), Tensor(logits(), requires_grad=True)
    loss = cross_entropy(z, target)
    target[:] = 1
    loss.backward()
    cross_entropy(other, TARGET).backward()
    np.testing.assert_array_equal(z.grad, other.grad)


def test_an_empty_batch_sums_to_zero():
    empty = Tensor(np.zeros((0, 3), np.float32), requires_grad=True)
    target = np.zeros(0, np.int64)
    loss = cross_entropy(empty, target, reduction="sum")
    loss.backward()
    assert loss.item() == 0
    assert empty.grad.shape == (0, 3)


@pytest.mark.parametrize(
    ("shape", "target", "options", "error", "message"),
    [
        ((2, 3), [0, 3], {}, ValueError, r"target\[1\] is 3, but classes run from 0 to 2; logits \(2, 3\)"),
        ((2, 3), [-1, 0], {}, ValueError, r"target\[0\] is -1, but classes run from 0 to 2"),
        ((2, 3), [0], {}, ValueError, r"target must have shape \(2,\), got \(1,\); logits \(2, 3\)"),
        ((2, 3), [[0, 1, 0], [1, 0, 0]], {}, ValueError, r"target must have shape \(2,\), got \(2, 3\)"),
        ((2, 3, 1, 1), [0, 1], {}, ValueError, r"logits must be \(N, features\), got shape \(2, 3, 1, 1\)"),
        ((2, 3), [0.0, 1.0], {}, TypeError, r"target must hold integer classes, got float64; use \.astype"),
        ((2, 3), [0, 1], {"label_smoothing": 1.5}, ValueError, r"label_smoothing must lie in \[0, 1\], got 1.5"),
        (
            (2, 3),
            [0, 1],
            {"reduction": "median"},
            ValueError,
            "reduction must be 'mean', 'sum' or 'none', got 'median'",
        ),
        ((0, 3), np.zeros(0, int), {}, ValueError, "the mean over an empty batch doesn't exist; use reduction='sum'"),
    ],
)
def test_refuses(shape, target, options, error, message):
    with pytest.raises(error, match="cross_entropy: " + message):
        cross_entropy(Tensor(np.zeros(shape, np.float32)), target, **options)
