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


# ---- class weights, ignored places, probabilities, other shapes of logits ------------------------------------------

SHAPES = {"rows": (4, 5), "a row": (5,), "images": (2, 5, 3, 2), "series": (3, 5, 2)}
WEIGHT = np.array([0.5, 2.0, 0.0, 1.5, 1.0])


def task(name, kind, seed=0):
    """(logits, target): classes of which some are 1, or probabilities of which some are 0."""
    rng, shape = np.random.default_rng(seed), SHAPES[name]
    axis = min(1, len(shape) - 1)
    z = rng.standard_normal(shape) * 3
    if kind == "classes":
        return z, rng.integers(0, 5, shape[:axis] + shape[axis + 1 :])
    shares = rng.random(shape) * (rng.random(shape) < 0.8) + 1e-3 * (rng.random(shape) < 0.5)
    return z, shares / np.maximum(shares.sum(axis, keepdims=True), 1e-3)


def reduced(losses, divisor, reduction):
    return losses if reduction == "none" else losses.sum() / (divisor if reduction == "mean" else 1)


COMBINATIONS = pytest.mark.parametrize(
    ("kind", "weight", "ignore_index", "smoothing"),
    [
        ("classes", None, -100, 0.0),
        ("classes", WEIGHT, -100, 0.0),
        ("classes", None, 1, 0.0),
        ("classes", WEIGHT, 1, 0.3),
        ("probabilities", None, -100, 0.0),
        ("probabilities", WEIGHT, -100, 0.3),
    ],
)


@COMBINATIONS
@pytest.mark.parametrize("reduction", REDUCE)
@pytest.mark.parametrize("name", SHAPES)
def test_weights_ignored_places_and_probabilities(name, reduction, kind, weight, ignore_index, smoothing):
    z, target = task(name, kind)
    options = {"label_smoothing": smoothing, "reduction": reduction, "ignore_index": ignore_index}
    if kind == "classes" and z.ndim == 1:
        target = np.array(3)  # else all of it might be ignored
    everyone = np.ones(5) if weight is None else weight
    expected = reduced(*oracles_net.weighted_cross_entropy(z, target, everyone, ignore_index, smoothing), reduction)

    def loss(z, target=target):
        given = None if weight is None else weight.astype(z.dtype)
        if isinstance(target, Tensor) or target.dtype.kind != "f":
            return cross_entropy(z, target, given, **options)
        return cross_entropy(z, target.astype(z.dtype), given, **options)

    found = loss(Tensor(z))
    assert found.shape == np.shape(expected)
    np.testing.assert_allclose(found.data, expected, rtol=1e-13, atol=1e-14)
    check_gradients(loss, z)
    check_politeness(loss, z)
    if kind == "probabilities":
        check_gradients(loss, z, target)
        check_politeness(loss, z, target)


@pytest.mark.witness
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@COMBINATIONS
@pytest.mark.parametrize("reduction", REDUCE)
@pytest.mark.parametrize("name", SHAPES)
def test_pytorch_agrees(name, reduction, kind, weight, ignore_index, smoothing, dtype):
    torch = pytest.importorskip("torch")
    z, target = task(name, kind, seed=1)
    z = z.astype(dtype)
    target = target.astype(dtype) if kind == "probabilities" else target
    weight = None if weight is None else weight.astype(dtype)
    options = {"label_smoothing": smoothing, "reduction": reduction, "ignore_index": ignore_index}
    logits, theirs = Tensor(z, requires_grad=True), torch.tensor(z, requires_grad=True)
    found = cross_entropy(logits, target, weight, **options)
    expected = torch.nn.functional.cross_entropy(
        theirs, torch.tensor(target), None if weight is None else torch.tensor(weight), **options
    )
    upstream = np.random.default_rng(2).standard_normal(found.shape).astype(dtype)
    found.backward(np.asarray(upstream))
    expected.backward(torch.tensor(upstream))
    tolerance = 2e-6 if dtype == "float32" else 1e-13  # some roundings of numbers up to 20
    np.testing.assert_allclose(found.data, expected.detach().numpy(), rtol=tolerance, atol=tolerance)
    np.testing.assert_allclose(logits.grad, theirs.grad.numpy(), rtol=tolerance, atol=tolerance)


def test_minus_100_is_ignored_unless_told_otherwise():
    z = Tensor(logits(), requires_grad=True)
    loss = cross_entropy(z, [2, -100, 0, -100])
    loss.backward()
    assert loss.item() == pytest.approx(cross_entropy(Tensor(logits()[::2]), [2, 0]).item(), rel=1e-15)
    assert not z.grad[1::2].any()
    assert z.grad[::2].all()


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(("reduction", "expected"), [("mean", np.nan), ("sum", 0.0), ("none", [0.0] * 4)])
def test_where_everything_is_ignored_there_is_no_mean_and_no_gradient(reduction, expected):
    """As in PyTorch."""
    z = Tensor(logits(), requires_grad=True)
    loss = cross_entropy(z, np.full(4, -100), label_smoothing=0.1, reduction=reduction)
    np.testing.assert_array_equal(loss.data, expected)
    loss.backward(np.ones(loss.shape))
    np.testing.assert_array_equal(z.grad, np.zeros((4, 5)))


@pytest.mark.filterwarnings("error")
def test_whatever_stands_in_an_ignored_row_reaches_nothing():
    spoiled = logits()
    spoiled[1], spoiled[3] = np.nan, [np.inf, 0, 0, 0, -np.inf]
    z = Tensor(spoiled, requires_grad=True)
    with np.errstate(invalid="ignore"):  # inf - inf, in that row
        loss = cross_entropy(z, [2, -100, 0, -100], WEIGHT + 1)
        loss.backward()
    assert np.isfinite(loss.item())
    assert np.isfinite(z.grad).all()
    assert not z.grad[1::2].any()


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("target", [np.array([2]), np.array([[0.25, 0.0, 0.75]])], ids=["classes", "probabilities"])
def test_a_masked_class_that_the_target_does_not_ask_for_costs_nothing(target):
    z = np.array([[1.0, -np.inf, 2.0]])
    masked = Tensor(z, requires_grad=True)
    weight = np.array([1.0, 3.0, 0.5])
    loss = cross_entropy(masked, target, weight)
    losses, divisor = oracles_net.weighted_cross_entropy(z, target, weight, -100, 0.0)
    assert loss.item() == pytest.approx(losses.sum() / divisor, rel=1e-14)
    loss.backward()
    assert masked.grad[0, 1] == 0
    assert np.isfinite(masked.grad).all()


@pytest.mark.parametrize("offset", [1e3, 1e8])
def test_an_offset_of_all_logits_of_a_place_costs_no_digits(offset):
    """The largest logit is subtracted before anything is added: log 2 exactly, however large both logits are."""
    z = Tensor(np.full((2, 2, 3), offset, np.float32))
    found = cross_entropy(z, np.ones((2, 3), int), reduction="none")
    np.testing.assert_array_equal(found.data, np.full((2, 3), np.float32(math.log(2))))


def test_a_list_of_probabilities_and_of_weights_takes_the_dtype_of_the_logits():
    for dtype in (np.float32, np.float64):
        z = np.array([[1.0, 2.0]], dtype)
        soft = np.array([[0.1, 0.9]], dtype), np.array([0.3, 0.7], dtype)
        found = cross_entropy(Tensor(z), [[0.1, 0.9]], [0.3, 0.7])
        assert found.dtype == dtype
        assert found.item() == cross_entropy(Tensor(z), *soft).item()


def test_weights_that_are_overwritten_later_do_not_change_the_gradient():
    weight = WEIGHT.copy()
    z, other = Tensor(logits(), requires_grad=True), Tensor(logits(), requires_grad=True)
    loss = cross_entropy(z, TARGET, weight)
    weight[:] = 7
    loss.backward()
    cross_entropy(other, TARGET, WEIGHT).backward()
    np.testing.assert_array_equal(z.grad, other.grad)


def test_classes_of_rows_stay_with_the_kernel():
    """Neither an ignore_index that doesn't occur nor a smoothing takes the plain way."""
    z = Tensor(logits(), requires_grad=True)
    assert type(cross_entropy(z, TARGET, ignore_index=3, label_smoothing=0.1).creator).__name__ == "CrossEntropy"
    assert type(cross_entropy(z, TARGET, ignore_index=4).creator).__name__ == "WeightedCrossEntropy"


@pytest.mark.parametrize(
    ("shape", "target", "options", "error", "message"),
    [
        ((2, 3), [0, 3], {}, ValueError, r"target\[1\] is 3, but classes run from 0 to 2; logits \(2, 3\)"),
        ((2, 3), [-1, 0], {}, ValueError, r"target\[0\] is -1, but classes run from 0 to 2"),
        ((2, 3), [0], {}, ValueError, r"target must have shape \(2,\), got \(1,\); logits \(2, 3\)"),
        (
            (2, 3),
            [[0, 1, 0], [1, 0, 0]],
            {},
            ValueError,
            r"target must have shape \(2,\), got \(2, 3\); .*; a target like logits must hold probabilities",
        ),
        (
            (2, 3, 1, 1),
            [0, 1],
            {},
            ValueError,
            r"target must have shape \(2, 1, 1\), got \(2,\); logits \(2, 3, 1, 1\)",
        ),
        ((2, 3, 1, 1), [[[0]], [[3]]], {}, ValueError, r"target\[1, 0, 0\] is 3, but classes run from 0 to 2"),
        ((3,), 3, {}, ValueError, "target is 3, but classes run from 0 to 2"),
        ((3,), [1], {}, ValueError, r"target must have shape \(\), got \(1,\); logits \(3,\)"),
        ((), 0, {}, ValueError, r"logits must be \(N, K\), \(N, K, \.\.\.\) or \(K,\), got shape \(\)"),
        ((2, 0), [0, 0], {}, ValueError, r"logits must be .*, got shape \(2, 0\)"),
        ((2, 3), [0, 1], {"ignore_index": None}, TypeError, "ignore_index must be an integer, got None"),
        ((2, 3), [-1, 0], {"ignore_index": -2}, ValueError, r"target\[0\] is -1, but classes run from 0 to 2"),
        (
            (2, 3),
            np.array([0.0, 1.0]),
            {},
            TypeError,
            r"target must hold integer classes, got float64; use \.astype.*; or probabilities of the shape of logits",
        ),
        ((2, 3), [True, False], {}, TypeError, r"target must hold integer classes, got bool; use \.astype"),
        ((2, 3), ["cat", "dog"], {}, TypeError, r"target must be an array of numbers, got \['cat', 'dog'\]"),
        ((2, 3), None, {}, TypeError, "target must be an array of numbers, got None"),
        (
            (2, 3),
            np.zeros((2, 3), "f"),
            {"ignore_index": 1},
            ValueError,
            "ignore_index = 1 is for a target of classes, .* holds probabilities; give the class a weight of 0",
        ),
        (
            (2, 3),
            [0, 1],
            {"weight": np.ones(2, "f")},
            ValueError,
            r"weight must have shape \(3,\), one number per class, got \(2,\); logits \(2, 3\)",
        ),
        ((2, 3), [0, 1], {"weight": np.ones(3)}, TypeError, "weight is float64, but logits are float32; use .astype"),
        ((2, 3), [0, 1], {"weight": [1, 2, 1]}, TypeError, r"weight is int64, but .* write fractions, as in 1\.0"),
        (
            (2, 3),
            [0, 1],
            {"weight": Tensor([1.0, 1.0, 1.0], requires_grad=True)},
            TypeError,
            r"weight is a constant, which no gradient reaches; use weight\.detach\(\)",
        ),
        ((2, 3), [0, 1], {"label_smoothing": 1.5}, ValueError, "label_smoothing must be a number from 0 to 1, got 1.5"),
        ((2, 3), [0, 1], {"label_smoothing": None}, TypeError, "label_smoothing must be a number, got None"),
        (
            (2, 3),
            [0, 1],
            {"reduction": np.zeros(2)},
            ValueError,
            "reduction must be 'mean', 'sum' or 'none', got array",
        ),
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
