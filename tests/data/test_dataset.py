"""Splits check themselves; preparing raw bytes subtracts the per-pixel mean and refuses what can't be right."""

import numpy as np
import pytest

from minires.data import Split
from minires.data.dataset import prepare


def raw(N, *, seed=0, classes=3, shape=(2, 3, 5)):
    rng = np.random.default_rng(seed)
    return rng.integers(256, size=(N, *shape), dtype=np.uint8), rng.integers(classes, size=N, dtype=np.uint8)


def test_prepare_subtracts_the_training_mean_of_each_pixel_and_divides_by_the_training_deviation():
    train, test = raw(7), raw(4, seed=1)
    dataset = prepare("noise", train, test, ("a", "b", "c"))
    for split, (images, labels) in ((dataset.train, train), (dataset.test, test)):
        expected = (images - train[0].astype(np.float64).mean(0)) / train[0].astype(np.float64).std()
        np.testing.assert_allclose(split.images, expected, atol=1e-6)
        np.testing.assert_array_equal(split.labels, labels)
    assert dataset.mean.shape == dataset.image_shape == (2, 3, 5)


def test_prepare_leaves_the_raw_images_alone():
    train, test = raw(7), raw(4, seed=1)
    copy = train[0].copy()
    prepare("noise", train, test, ("a", "b", "c"))
    np.testing.assert_array_equal(train[0], copy)


def test_prepare_names_a_label_without_a_class():
    train, test = raw(7), raw(4, seed=1)
    test[1][2] = 9
    with pytest.raises(ValueError, match=r"noise: test label 9 at position 2 names none of 3 classes"):
        prepare("noise", train, test, ("a", "b", "c"))


def test_prepare_refuses_an_empty_and_a_constant_training_set():
    with pytest.raises(ValueError, match="no training images"):
        prepare("noise", raw(0), raw(4), ("a", "b", "c"))
    with pytest.raises(ValueError, match="all training pixels have the same value, 5"):
        prepare("noise", (np.full((2, 1, 2, 2), 5, np.uint8), np.zeros(2, np.uint8)), raw(4), ("a", "b", "c"))


def test_a_split_needs_as_many_labels_as_images():
    with pytest.raises(ValueError, match=r"images \(3, 1, 2, 2\), labels \(4,\)"):
        Split(np.zeros((3, 1, 2, 2), np.float32), np.zeros(4, np.int64))
    with pytest.raises(ValueError, match=r"must be \(N, C, H, W\)"):
        Split(np.zeros((3, 2, 2), np.float32), np.zeros(3, np.int64))


def test_a_split_takes_float32_images_and_int64_labels_only():
    with pytest.raises(TypeError, match="got float64 and int64"):
        Split(np.zeros((3, 1, 2, 2)), np.zeros(3, np.int64))
    with pytest.raises(TypeError, match="got float32 and uint8"):
        Split(np.zeros((3, 1, 2, 2), np.float32), np.zeros(3, np.uint8))
