"""CIFAR's binary files: one or two label bytes, then red, green, blue; missing and damaged ones are named."""

import gzip
import pickle

import numpy as np
import pytest

from minires import data


def records(N, label_bytes, seed, classes):
    """(file content, images, fine labels) of ``N`` records, written pixel by pixel."""
    rng = np.random.default_rng(seed)
    images, content = [], bytearray()
    labels = rng.integers(classes, size=(N, label_bytes))
    for label in labels:
        content += bytes(int(each) for each in label)
        image = rng.integers(256, size=(3, 32, 32))
        for channel in range(3):
            for row in range(32):
                for column in range(32):
                    content.append(int(image[channel, row, column]))
        images.append(image)
    return bytes(content), np.stack(images), labels[:, -1]


@pytest.fixture
def cifar10(tmp_path):
    names = [f"data_batch_{i}.bin" for i in range(1, 6)] + ["test_batch.bin"]
    written = {}
    for seed, name in enumerate(names):
        content, *written[name] = records(2, 1, seed, 10)
        (tmp_path / name).write_bytes(content)
    classes = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
    (tmp_path / "batches.meta.txt").write_text("\n".join(classes) + "\n\n")
    return tmp_path, written


def test_cifar10_is_read_batch_by_batch_channel_by_channel(cifar10):
    folder, written = cifar10
    dataset = data.load_cifar10(folder)
    assert dataset.classes[3] == "cat"
    assert dataset.image_shape == (3, 32, 32)
    for split, names in ((dataset.train, list(written)[:5]), (dataset.test, ["test_batch.bin"])):
        expected = np.concatenate([written[name][0] for name in names])
        np.testing.assert_allclose(split.images * dataset.std + dataset.mean, expected, atol=1e-3)
        np.testing.assert_array_equal(split.labels, np.concatenate([written[name][1] for name in names]))


def test_cifar100_takes_the_fine_label(tmp_path):
    content, images, labels = records(3, 2, 0, 20)
    (tmp_path / "train.bin.gz").write_bytes(gzip.compress(content))
    (tmp_path / "test.bin").write_bytes(content)
    (tmp_path / "fine_label_names.txt").write_text("\n".join(f"class_{i}" for i in range(20)))
    dataset = data.load_cifar100(tmp_path)
    np.testing.assert_array_equal(dataset.train.labels, labels)
    np.testing.assert_allclose(dataset.test.images * dataset.std + dataset.mean, images, atol=1e-3)


def test_a_missing_file_is_named_with_where_to_get_it(cifar10):
    folder, _ = cifar10
    (folder / "data_batch_4.bin").unlink()
    with pytest.raises(FileNotFoundError, match=r"data_batch_4.bin .* doesn't exist; unpack .*cifar-10-binary.tar.gz"):
        data.load_cifar10(folder)


@pytest.mark.parametrize("length", [0, 3072, 3073 * 2 - 1])
def test_a_file_that_holds_no_whole_records_is_named(cifar10, length):
    folder, _ = cifar10
    (folder / "test_batch.bin").write_bytes(bytes(length))
    with pytest.raises(ValueError, match=f"test_batch.bin has {length} bytes, which is no whole number of records"):
        data.load_cifar10(folder)


def test_a_pickled_file_is_refused_without_running_it(cifar10, tmp_path):
    class Payload:
        def __reduce__(self):
            return (open, (str(tmp_path / "proof"), "w"))

    folder, _ = cifar10
    (folder / "data_batch_1.bin").write_bytes(pickle.dumps({b"data": Payload()}))
    with pytest.raises(ValueError, match="another layout"):
        data.load_cifar10(folder)
    assert not (tmp_path / "proof").exists()


def test_a_label_beyond_the_classes_is_named(cifar10):
    folder, _ = cifar10
    (folder / "test_batch.bin").write_bytes(bytes([10]) + bytes(3072))
    with pytest.raises(ValueError, match="cifar10: test label 10 at position 0 names none of 10 classes"):
        data.load_cifar10(folder)
