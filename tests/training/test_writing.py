"""A file is there whole or not at all, whatever happens while it is written; a run gets a folder of its own."""

import os
import random
import stat
import subprocess
import sys
import time
from errno import ENOSPC
from pathlib import Path

import pytest

from minires.training import run_folder, write_file, writing

fcntl = pytest.importorskip("fcntl", reason="what a killed process left is known by its lock")


def unfinished(folder):
    return sorted(folder.glob(".minires-*.unfinished"))


def test_a_file_is_written_into_folders_that_are_made_and_replaced(tmp_path):
    path = tmp_path / "a" / "b" / "file"
    for content in (b"first", b"second, which is longer", b""):
        write_file(path, content)
        assert path.read_bytes() == content
        assert [each.name for each in path.parent.iterdir()] == ["file"]


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o077, 0o600), (0o002, 0o664)])
def test_the_mode_follows_the_umask(tmp_path, umask, mode):
    before = os.umask(umask)
    try:
        write_file(tmp_path / "file", b"x")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == mode


def test_the_content_is_on_the_disk_before_it_has_its_name_and_the_name_at_the_end(tmp_path, monkeypatch):
    path, told = tmp_path / "file", []

    def fsync(descriptor):
        status = os.fstat(descriptor)
        told.append(("folder", path.exists()) if stat.S_ISDIR(status.st_mode) else (status.st_size, path.exists()))

    monkeypatch.setattr(os, "fsync", fsync)
    write_file(path, b"all of it")
    assert told == [(len(b"all of it"), False), ("folder", True)]


@pytest.mark.parametrize("error", [KeyboardInterrupt(), OSError(ENOSPC, "No space left on device")])
def test_an_interruption_and_a_full_disk_leave_the_old_file_and_nothing_else(tmp_path, monkeypatch, error):
    path = tmp_path / "file"
    write_file(path, b"old")

    def fsync(descriptor):
        raise error

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(type(error)) as raised:
        write_file(path, b"new")
    assert path.read_bytes() == b"old"
    assert [each.name for each in tmp_path.iterdir()] == ["file"]
    if raised.type is OSError:
        assert str(raised.value) == f"[Errno {ENOSPC}] No space left on device: '{path}'"


@pytest.mark.parametrize(("make", "what"), [(os.mkdir, "a folder"), (os.mkfifo, "not a regular file")])
def test_what_is_no_file_is_refused_and_stays(tmp_path, make, what):
    path = tmp_path / "there"
    make(path)
    before = path.stat()
    with pytest.raises(ValueError, match=f"there is {what}; name a file to write"):
        write_file(path, b"x")
    assert (path.stat().st_ino, path.stat().st_mode) == (before.st_ino, before.st_mode)


def test_what_a_dead_process_left_is_swept_and_what_a_living_one_writes_is_not(tmp_path):
    path, descriptor = writing._open_unfinished(tmp_path)
    (tmp_path / ".minires-dead.unfinished").write_bytes(b"half a checkpo")
    (tmp_path / "notes.unfinished").write_bytes(b"a user's own")
    write_file(tmp_path / "file", b"x")
    assert unfinished(tmp_path) == [path]
    os.close(descriptor)  # as when its process ends
    write_file(tmp_path / "file", b"y")
    assert sorted(each.name for each in tmp_path.iterdir()) == ["file", "notes.unfinished"]


def test_a_file_that_is_swept_before_it_is_locked_is_begun_again(tmp_path, monkeypatch):
    lock, swept = fcntl.flock, []

    def flock(file, how):
        if not swept:
            swept.extend(unfinished(tmp_path))
            swept[0].unlink()
        lock(file, how)

    monkeypatch.setattr(fcntl, "flock", flock)
    write_file(tmp_path / "file", b"whole")
    assert len(swept) == 1
    assert (tmp_path / "file").read_bytes() == b"whole"


WRITER = """
import importlib.util, sys
spec = importlib.util.spec_from_file_location("writing", sys.argv[1])  # alone, so that the process starts at once
writing = importlib.util.module_from_spec(spec)
spec.loader.exec_module(writing)
for i in range(10**9):
    writing.write_file(sys.argv[2], bytes([i % 256]) * (1 << 19))
    if i == 0:
        print("begun", flush=True)
"""


def test_of_a_process_that_is_killed_at_any_moment_the_file_is_whole_and_one_unfinished_stays_at_most(tmp_path):
    path, rng, left = tmp_path / "file", random.Random(0), 0
    for _ in range(20):
        command = [sys.executable, "-I", "-S", "-c", WRITER, writing.__file__, str(path)]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
            process.stdout.readline()
            time.sleep(rng.random() / 50)
            process.kill()
        content = path.read_bytes()
        assert content == content[:1] * (1 << 19)
        left += len(unfinished(tmp_path))
        assert len(unfinished(tmp_path)) <= 1
    assert left  # else no moment was one of those that matter
    write_file(path, b"the next")
    assert [each.name for each in tmp_path.iterdir()] == ["file"]


def test_several_processes_write_one_file_without_an_error(tmp_path):
    path = tmp_path / "file"
    code = WRITER.replace("10**9", "40")
    command = [sys.executable, "-I", "-S", "-c", code, writing.__file__, str(path)]
    processes = [subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) for _ in range(4)]
    assert [process.communicate()[1] for process in processes] == [b""] * 4
    assert path.read_bytes() == bytes([39]) * (1 << 19)
    assert [each.name for each in tmp_path.iterdir()] == ["file"]


# ---------------------------------------------------------------- folders


def test_each_run_gets_the_first_number_that_is_free(tmp_path):
    names = []
    for _ in range(3):
        with run_folder(None, tmp_path / "runs" / "net") as folder:
            (folder / "log.csv").write_text("x")
            names.append(folder.name)
    assert names == ["net-1", "net-2", "net-3"]
    (tmp_path / "runs" / "net-2" / "log.csv").unlink()
    with run_folder(None, tmp_path / "runs" / "net") as folder:
        assert folder.name == "net-4"  # also an empty folder is somebody's


def test_two_runs_at_once_get_two_folders(tmp_path):
    with run_folder(None, tmp_path / "net") as one, run_folder(None, tmp_path / "net") as other:
        assert (one.name, other.name) == ("net-1", "net-2")


def test_a_run_that_writes_nothing_leaves_no_folder_of_its_own(tmp_path):
    given = tmp_path / "given"
    given.mkdir()
    for folder in (None, tmp_path / "new", given):
        with pytest.raises(KeyboardInterrupt), run_folder(folder, tmp_path / "net"):
            raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == [given]


def test_a_folder_that_holds_something_or_is_a_file_is_refused(tmp_path):
    for name in ("log.csv", "last.safetensors", "best.safetensors", "z"):
        (tmp_path / name).write_text("an earlier run's")
    match = r"already holds best.safetensors, last.safetensors, log.csv ..., and a run overwrites no other's results"
    with pytest.raises(ValueError, match=match), run_folder(tmp_path, "unused"):
        raise AssertionError("the block was entered")
    with (
        pytest.raises(ValueError, match=r"need a folder, and .*log.csv is a file"),
        run_folder(tmp_path / "log.csv", ""),
    ):
        raise AssertionError("the block was entered")
    assert {path.read_text() for path in tmp_path.iterdir()} == {"an earlier run's"}


def test_a_new_run_sweeps_what_killed_ones_before_it_left(tmp_path):
    dead = tmp_path / "net-1"
    dead.mkdir()
    (dead / ".minires-dead.unfinished").write_bytes(b"half a checkpo")
    (dead / "last.safetensors").write_bytes(b"whole")
    with run_folder(None, tmp_path / "net"):
        assert [path.name for path in Path(dead).iterdir()] == ["last.safetensors"]
