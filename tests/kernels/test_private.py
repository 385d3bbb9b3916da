"""Folders that are this user's alone: whose contents, which are run, nobody else can have put there.

Another user is played by files that are given away, where the tests run as root, and everywhere by a process that takes
itself for somebody else. Folders that others may write are made so by their mode.
"""

import os
import sys

import pytest

from minires_kernels import private

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="who may write there is another matter on Windows")
ROOT = hasattr(os, "geteuid") and os.geteuid() == 0


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "parent" / "own"
    folder.mkdir(parents=True, mode=0o755)
    folder.chmod(0o700)
    return folder


def give_away(path, monkeypatch):
    """Somebody else's: really, or as if."""
    if ROOT:
        os.chown(path, 4321, 4321, follow_symlinks=False)
        return
    true = os.lstat

    def lstat(other, **options):
        status = true(other, **options)
        return os.stat_result((*status[:4], 4321, 4321, *status[6:])) if os.fspath(other) == os.fspath(path) else status

    monkeypatch.setattr(os, "lstat", lstat)


def test_an_own_folder_is_trusted_also_in_a_sticky_one(folder):
    assert private.why_shared(folder) == ""
    folder.parent.chmod(0o1777)
    assert private.why_shared(folder) == ""


def test_a_folder_made_here_is_for_this_user_alone(tmp_path):
    before = os.umask(0)
    try:
        made = private.make(tmp_path / "new")
    finally:
        os.umask(before)
    assert made == tmp_path / "new"
    assert made.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("mode", [0o777, 0o722, 0o1777])
def test_a_folder_that_others_may_write_is_refused(folder, mode):
    folder.chmod(mode)
    with pytest.raises(PermissionError, match=r"others may write in .*/own; chmod go-w .*/own"):
        private.make(folder)


def test_a_folder_that_others_may_replace_is_refused(folder):
    folder.parent.chmod(0o777)
    with pytest.raises(PermissionError, match=r"others may write in .*/parent; chmod go-w .*/parent"):
        private.make(folder)


def test_nothing_is_made_where_others_may_write(folder):
    folder.parent.chmod(0o777)
    with pytest.raises(PermissionError, match="others may write"):
        private.make(folder.parent / "new" / "deep")
    assert not (folder.parent / "new").exists()


@pytest.mark.parametrize("whose", ["folder", "parent", "sticky"])
def test_what_belongs_to_another_user_is_refused(folder, monkeypatch, whose):
    """Also in a sticky folder like /tmp, where others can make one under the name that we are going to use."""
    if whose == "sticky":
        folder.parent.chmod(0o1777)
    stranger = folder.parent if whose == "parent" else folder
    give_away(stranger, monkeypatch)
    with pytest.raises(PermissionError, match=f"{stranger} belongs to another user"):
        private.make(folder)


def test_somebody_else_does_not_take_this_users_folder_for_his(folder, monkeypatch):
    monkeypatch.setattr(os, "geteuid", lambda: 4321)
    with pytest.raises(PermissionError, match="belongs to another user"):
        private.make(folder)


def test_of_a_link_the_place_counts_to_which_it_leads_now(folder, tmp_path):
    link = tmp_path / "link"
    link.symlink_to(folder)
    assert private.make(link) == folder, "whoever turns the link round later changes nothing"
    folder.chmod(0o777)
    with pytest.raises(PermissionError, match="others may write"):
        private.make(link)


def test_a_group_of_the_users_own_is_the_user(folder, monkeypatch):
    """Where each user has a group of the same number, files are often made writable for it."""
    folder.chmod(0o770)
    monkeypatch.setattr(private, "_own_group", lambda: folder.stat().st_gid)
    assert private.why_shared(folder) == ""
    monkeypatch.setattr(private, "_own_group", lambda: None)
    assert "others may write" in private.why_shared(folder)


def test_an_own_file_is_read(folder):
    (folder / "file").write_bytes(b"own")
    (folder / "file").chmod(0o600)
    assert private.read_bytes(folder / "file") == b"own"


def test_a_file_of_another_user_is_not_read(folder, monkeypatch):
    (folder / "file").write_bytes(b"not own")
    if ROOT:
        os.chown(folder / "file", 4321, 4321)
    else:
        monkeypatch.setattr(os, "geteuid", lambda: 4321)
    with pytest.raises(PermissionError, match="file belongs to another user"):
        private.read_bytes(folder / "file")


def test_a_file_that_others_may_write_is_not_read(folder):
    (folder / "file").write_bytes(b"perhaps not own")
    (folder / "file").chmod(0o606)
    with pytest.raises(PermissionError, match=r"others may write in .*file"):
        private.read_bytes(folder / "file")


def test_links_and_what_is_no_file_are_not_read(folder):
    (folder / "file").write_bytes(b"own")
    (folder / "link").symlink_to(folder / "file")
    with pytest.raises(OSError, match="link"):
        private.read_bytes(folder / "link")
    os.mkfifo(folder / "pipe", 0o600)
    with pytest.raises(PermissionError, match="pipe is no file"):
        private.read_bytes(folder / "pipe")  # and doesn't wait for somebody to write
