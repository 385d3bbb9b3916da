"""A net's data: what of another data set fits it, and how that is normalized."""

import json

import numpy as np
import pytest

from minires.data import DataCard, load_digits
from minires.data.dataset import prepare


def noise(seed, *, name="noise", classes=("a", "b", "c"), size=(2, 3, 5)):
    """(data set, its raw test images) of random bytes."""
    rng = np.random.default_rng(seed)
    images = [rng.integers(256, size=(N, *size), dtype=np.uint8) for N in (7, 4)]
    labels = [rng.integers(len(classes), size=N, dtype=np.uint8) for N in (7, 4)]
    return prepare(name, (images[0], labels[0]), (images[1], labels[1]), classes), images[1]


def test_other_images_are_normalized_by_the_cards_figures_not_by_their_own():
    trained_on, _ = noise(0)
    other, raw = noise(1)
    given = DataCard.of(trained_on).normalize(other)
    expected = (raw.astype(np.float64) - trained_on.mean) / trained_on.std
    assert given.test.images.dtype == np.float32
    np.testing.assert_allclose(given.test.images, expected, atol=1e-5)
    np.testing.assert_array_equal(given.test.labels, other.test.labels)
    assert (given.mean is trained_on.mean, given.std) == (True, trained_on.std)
    assert np.abs(other.test.images - expected).max() > 0.1


def test_its_own_data_stay_as_they_are():
    digits = load_digits()
    card = DataCard.from_json(json.loads(json.dumps(DataCard.of(digits).to_json())))
    assert card.normalize(digits) is digits


HUNDRED = tuple(f"class {i}" for i in range(100))


@pytest.mark.parametrize(("changes", "message"), [
    ({"size": (2, 3, 6)}, r"images of shape \(2, 3, 6\), not \(2, 3, 5\): what it would say"),
    ({"classes": ("a", "b")}, r"the classes a, b \(2\), not a, b, c \(3\)"),
    ({"classes": ("a", "c", "b")}, r"the classes a, c, b \(3\), not a, b, c \(3\).*or train a net on other"),
    ({"classes": HUNDRED, "size": (1, 3, 5)}, r"\(1, 3, 5\), not \(2, 3, 5\) and the classes class 0, .* \(100\)"),
])  # fmt: skip
def test_data_that_dont_fit_are_refused_with_what_differs(changes, message):
    with pytest.raises(ValueError, match="the net was trained on noise, and other has .*" + message):
        DataCard.of(noise(0)[0]).normalize(noise(1, name="other", **changes)[0])


def test_classes_that_differ_behind_the_first_ones_are_refused():
    other = (*HUNDRED[:-1], "a stranger")
    with pytest.raises(ValueError, match="has the classes class 0"):
        DataCard.of(noise(0, classes=HUNDRED)[0]).normalize(noise(1, classes=other)[0])


@pytest.mark.parametrize(("changes", "message"), [
    ({"image_shape": [-1, 1, 1]}, r"image_shape .* got \[-1, 1, 1\]"),
    ({"image_shape": [2, -1, 5]}, r"got \[2, -1, 5\]"),
    ({"image_shape": [0, 3, 5], "mean": []}, r"got \[0, 3, 5\]"),
    ({"image_shape": 30}, "got 30"),
    ({"image_shape": [6, 5]}, r"got \[6, 5\]"),
    ({"image_shape": [2.0, 3, 5]}, r"got \[2.0, 3, 5\]"),
    ({"image_shape": [True, 6, 5]}, r"got \[True, 6, 5\]"),
    ({"classes": []}, "the classes of its data must be at least one"),
])  # fmt: skip
def test_a_stored_card_without_images_or_classes_is_refused(changes, message):
    stored = DataCard.of(noise(0)[0]).to_json()
    assert DataCard.from_json(stored).image_shape == (2, 3, 5)
    with pytest.raises((ValueError, TypeError), match=message):
        DataCard.from_json({**stored, **changes})
