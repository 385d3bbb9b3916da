"""Data files are read no further than they may reach, and every bad one is named: packed bombs, damage of any kind."""

import gzip
import struct
import tracemalloc

import pytest

from minires.data import cifar, mnist
from minires.data.files import read
from tests.damage import refusals

IDX = bytes([0, 0, 8, 3]) + struct.pack(">3I", 5, 4, 6) + bytes(range(120))
MEGABYTE = 1 << 20


def peak(function):
    """The most memory that ``function()`` held at a time, in megabytes."""
    tracemalloc.start()
    try:
        function()
        return tracemalloc.get_traced_memory()[1] / MEGABYTE
    finally:
        tracemalloc.stop()


@pytest.fixture(scope="module")
def bomb(tmp_path_factory):
    """64 MB of zeros behind the header of five images, in 64 kB."""
    path = tmp_path_factory.mktemp("bomb") / "images.gz"
    path.write_bytes(gzip.compress(IDX + bytes(64 * MEGABYTE)))
    return path


def test_a_packed_bomb_is_unpacked_no_further_than_its_header_says(bomb):
    def unpack():
        with pytest.raises(ValueError, match=r"images.gz says \(5, 4, 6\), 120 bytes, but holds more than 120"):
            mnist.read_idx(bomb)

    assert peak(unpack) < 4


def test_a_packed_bomb_is_unpacked_no_further_than_the_largest_file_of_its_kind(bomb):
    def unpack():
        with pytest.raises(ValueError, match=r"images.gz has more than the 1000 bytes of the largest file of its kind"):
            read(bomb, 1000)

    assert peak(unpack) < 4


def test_a_header_takes_no_memory_for_what_it_only_says(tmp_path):
    path = tmp_path / "images"
    path.write_bytes(bytes([0, 0, 8, 3]) + struct.pack(">3I", 1000, 1000, 1000) + bytes(50))

    def unpack():
        with pytest.raises(ValueError, match=r"says \(1000, 1000, 1000\), 1000000000 bytes, but holds 50"):
            mnist.read_idx(path)

    assert peak(unpack) < 4


@pytest.mark.parametrize("shape", [(2**32 - 1,) * 3, (2**31, 2, 1), (5, 0, 6), (0, 28, 28), (2**32 - 1, 0, 2**32 - 1)])
def test_lengths_that_no_data_have_are_refused(tmp_path, shape):
    path = tmp_path / "images"
    path.write_bytes(bytes([0, 0, 8, 3]) + struct.pack(">3I", *shape) + bytes(50))
    with pytest.raises(ValueError, match=r"images says \(.*\), \d+ bytes, not 1 to 1073741824; it is damaged: get the"):
        mnist.read_idx(path)


@pytest.mark.parametrize("rank", [0, 5, 255])
def test_ranks_that_no_data_have_are_refused(tmp_path, rank):
    path = tmp_path / "images"
    path.write_bytes(bytes([0, 0, 8, rank]) + struct.pack(">I", 1) * rank + b"\1")
    with pytest.raises(ValueError, match="images is no IDX file of bytes: it begins with 00 00 08"):
        mnist.read_idx(path)


@pytest.mark.parametrize("content", [b"\xff\xfe\0c\0a\0t", b"", b"\n\n", b"cat\ndog\ncat\n"])
def test_names_of_classes_that_are_none_are_refused(tmp_path, content):
    path = tmp_path / "batches.meta.txt"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"batches.meta.txt must .*; fetch it again"):
        cifar._read_names(path)


@pytest.mark.parametrize(("name", "content", "load"), [
    ("idx", IDX, mnist.read_idx), ("idx.gz", gzip.compress(IDX, mtime=0), mnist.read_idx),
    ("bin", bytes(2 * 3073), lambda path: cifar._read_records(path, 1)),
    ("bin.gz", gzip.compress(bytes(2 * 3073), mtime=0), lambda path: cifar._read_records(path, 1)),
    ("txt", b"cat\ndog\nfrog\n", cifar._read_names),
], ids=["idx", "idx.gz", "bin", "bin.gz", "txt"])  # fmt: skip
def test_of_many_damaged_files_each_is_read_or_refused_by_name(tmp_path, name, content, load):
    path = tmp_path / name
    messages = refusals(load, content, path)
    assert 40 < len(messages) < 400
    assert all(str(path) in message for message in messages)
