"""MNIST's IDX files: read right, packed or not; missing and damaged ones are named."""

import gzip
import struct
from pathlib import Path

import numpy as np
import pytest

from minires import data

NAMES = ["train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"]
REAL = Path(__file__).parents[2].parent / "shared" / "data" / "mnist"


def idx(array):
    """``array`` in the IDX format."""
    return bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


@pytest.fixture
def folder(tmp_path):
    """A small data set: 5 training and 3 test images of 4x6 pixels; the second file of each kind is packed."""
    rng = np.random.default_rng(0)
    for name, N in zip(NAMES, (5, 5, 3, 3), strict=True):
        array = rng.integers(256, size=(N, 4, 6), dtype=np.uint8) if "images" in name else np.arange(N, dtype=np.uint8)
        if name.startswith("t10k"):
            (tmp_path / f"{name}.gz").write_bytes(gzip.compress(idx(array)))
        else:
            (tmp_path / name).write_bytes(idx(array))
    return tmp_path


def test_images_and_labels_are_read_packed_or_not(folder):
    dataset = data.load_mnist(folder)
    expected = np.random.default_rng(0).integers(256, size=(5, 4, 6), dtype=np.uint8)[:, None]
    got = dataset.train.images * dataset.std + dataset.mean
    np.testing.assert_allclose(got, expected, atol=1e-3)
    assert dataset.test.images.shape == (3, 1, 4, 6)
    np.testing.assert_array_equal(dataset.test.labels, [0, 1, 2])


def test_a_missing_file_is_named_with_where_to_get_it(folder):
    (folder / NAMES[1]).unlink()
    with pytest.raises(FileNotFoundError, match=rf"{NAMES[1]} \(or {NAMES[1]}.gz\) doesn't exist; get the four files"):
        data.load_mnist(folder)


def test_a_file_that_is_cut_short_is_named_with_both_lengths(folder):
    path = folder / NAMES[0]
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ValueError, match=rf"{NAMES[0]} says \(5, 4, 6\), 120 bytes, but holds 119"):
        data.load_mnist(folder)


def test_a_file_that_is_too_long_is_named(folder):
    path = folder / NAMES[0]
    path.write_bytes(path.read_bytes() + b"\0")
    with pytest.raises(ValueError, match=r"says \(5, 4, 6\), 120 bytes, but holds more than 120"):
        data.load_mnist(folder)


@pytest.mark.parametrize(
    "content", [b"", b"\0\0\x08", b"\0\0\x0d\1\0\0\0\1\0\0\0\0", b"\0\0\x08\3\0\0\0\1", b"PK\3\4abcd"]
)
def test_a_file_of_another_format_is_named(folder, content):
    (folder / NAMES[1]).write_bytes(content)
    with pytest.raises(ValueError, match=f"{NAMES[1]} is no IDX file of bytes"):
        data.load_mnist(folder)


@pytest.mark.parametrize("damage", [lambda packed: packed[:-12], lambda packed: b"x" + packed[1:],
                                    lambda packed: packed[:20] + b"\xff" * 8 + packed[28:]])  # fmt: skip
def test_a_packed_file_that_is_damaged_is_named(folder, damage):
    path = folder / f"{NAMES[2]}.gz"
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(ValueError, match=f"{NAMES[2]}.gz can't be unpacked"):
        data.load_mnist(folder)


def test_images_and_labels_must_be_as_many(folder):
    (folder / NAMES[1]).write_bytes(idx(np.zeros(4, np.uint8)))
    with pytest.raises(ValueError, match=r"got \(5, 4, 6\) and \(4,\)"):
        data.load_mnist(folder)


def test_training_and_test_images_must_have_one_size(folder):
    (folder / f"{NAMES[2]}.gz").write_bytes(gzip.compress(idx(np.zeros((3, 4, 4), np.uint8))))
    with pytest.raises(ValueError, match="differ in size"):
        data.load_mnist(folder)


@pytest.mark.skipif(not REAL.is_dir(), reason=f"needs the real files in {REAL.relative_to(REAL.parents[2])}")
def test_the_real_files_have_the_published_counts():
    dataset = data.load_mnist(REAL)
    assert dataset.train.images.shape == (60000, 1, 28, 28)
    assert np.bincount(dataset.train.labels).tolist() == [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
    assert np.bincount(dataset.test.labels).tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
    assert dataset.train.labels[:10].tolist() == [5, 0, 4, 1, 9, 2, 1, 3, 1, 4]
    # the published mean and deviation of the training pixels, of 1
    assert dataset.mean.mean() / 255 == pytest.approx(0.1307, abs=1e-4)
    assert dataset.std / 255 == pytest.approx(0.3081, abs=1e-4)
