"""Data sets by name."""

import pytest

from minires import data


def test_every_name_loads_or_says_which_file_is_missing(tmp_path):
    assert data.names() == ["digits", "mnist", "cifar10", "cifar100"]
    assert data.load("digits").name == "digits"
    for name, folder in (("mnist", "mnist"), ("cifar10", "cifar-10-batches-bin"), ("cifar100", "cifar-100-binary")):
        with pytest.raises(FileNotFoundError, match=str(tmp_path / folder)):
            data.load(name, tmp_path)


def test_without_a_root_the_folder_data_is_searched(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError, match="data/mnist/train-images-idx3-ubyte"):
        data.load("mnist")


def test_an_unknown_name_gets_the_nearest():
    with pytest.raises(ValueError, match="no data set 'digit'; the nearest: digits, mnist"):
        data.load("digit")
    with pytest.raises(ValueError, match="no data set 'zzz'; the nearest: digits, mnist, cifar10, cifar100"):
        data.load("zzz")


def test_digits_take_no_root():
    with pytest.raises(ValueError, match="digits is part of the package"):
        data.load("digits", "somewhere")
