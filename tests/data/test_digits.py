"""The embedded digits are scikit-learn's, in the stated order, normalized by the training images alone."""

import hashlib

import numpy as np
import pytest

from minires import data


def raw(split, dataset):
    """The bytes that ``split`` was made from."""
    return np.rint(split.images.astype(np.float64) * dataset.std + dataset.mean).astype(np.uint8)


def test_digits_are_the_published_images_in_the_stated_order():
    digits = data.load_digits()
    images = np.concatenate([raw(digits.train, digits), raw(digits.test, digits)])
    labels = np.concatenate([digits.train.labels, digits.test.labels]).astype(np.uint8)
    # Computed from sklearn.datasets.load_digits() of scikit-learn 1.9.1, permuted by numpy.random.default_rng(0).
    expected = "428ad214e900fe9343f94d9fedc8a16d461db8cd1bc0f61eecf448b8c5f16b35"
    assert hashlib.sha256(images.tobytes() + labels.tobytes()).hexdigest() == expected


def test_digits_equal_scikit_learns():
    datasets = pytest.importorskip("sklearn.datasets", reason="compares with scikit-learn, which nothing else needs")
    original, digits = datasets.load_digits(), data.load_digits()
    order = np.random.default_rng(0).permutation(1797)
    images = np.concatenate([raw(digits.train, digits), raw(digits.test, digits)])[:, 0]
    np.testing.assert_array_equal(images, original.images[order])
    labels = np.concatenate([digits.train.labels, digits.test.labels])
    np.testing.assert_array_equal(labels, original.target[order])


def test_digits_have_the_promised_shapes_and_types():
    digits = data.load_digits()
    assert digits.image_shape == (1, 8, 8)
    assert digits.classes == tuple("0123456789")
    for split, length in ((digits.train, 1500), (digits.test, 297)):
        assert len(split) == length
        assert (split.images.shape, split.images.dtype) == ((length, 1, 8, 8), np.float32)
        assert (split.labels.shape, split.labels.dtype) == ((length,), np.int64)
        assert set(split.labels.tolist()) == set(range(10))


def test_digits_are_normalized_by_the_training_images_alone():
    digits = data.load_digits()
    np.testing.assert_allclose(digits.train.images.mean(0, dtype=np.float64), 0, atol=1e-6)
    assert np.abs(digits.test.images.mean(0)).max() > 0.01
    images = raw(digits.train, digits).astype(np.float64)
    assert digits.std == pytest.approx(images.std(), rel=1e-12)
    expected = (images - images.mean(0)) / images.std()
    np.testing.assert_allclose(digits.train.images, expected, atol=1e-6)


def test_the_licence_lies_beside_the_file():
    from importlib.resources import files

    text = (files("minires.data") / "digits.LICENSE.txt").read_text()
    for fact in ("Alpaydin", "Kaynak", "1998", "10.24432/C50P49", "CC BY 4.0", "default_rng(0)"):
        assert fact in text
