"""Folders that are this user's alone. What is kept there is run later on, so nobody else must be able to put it there.

A folder is trusted if it belongs to this user, if nobody else may write in it, and if nobody can put another in its
place: all folders above it belong to this user or to the system's (root), and either nobody else may write in them, or
they are sticky like ``/tmp``, where nobody can rename what isn't his. Links are followed once, beforehand. Then no one
else can change what has been found, however he times it. A checksum could not replace this: who can write the file can
write the checksum.

On Windows a user's folders are his by their access lists, and nothing is checked here.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

OTHERS = "others may write in"
CHECKED = hasattr(os, "geteuid")
ROOT = 0


def make(folder: Path) -> Path:
    """The folder, made if need be, with its links resolved; PermissionError, with the cure, if it can't be trusted.

    Any other OSError if it can't be made or written.
    """
    folder = Path(os.path.realpath(folder))
    _require(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    folder.mkdir(mode=0o700, exist_ok=True)
    _require(folder)
    return folder


def _require(folder: Path) -> None:
    problem = why_shared(folder)
    if problem:
        raise PermissionError(0, problem)


def why_shared(folder: Path) -> str:
    """Why somebody else might have put there what lies in ``folder``; empty if nobody can have. Links aren't followed.

    A folder that doesn't exist yet is judged by those above it.
    """
    for place in (folder, *folder.parents) if CHECKED else ():
        try:
            status = os.lstat(place)
        except FileNotFoundError:
            continue
        problem = _problem(place, status, above=place != folder)
        if problem:
            return problem
    return ""


def read_bytes(path: Path) -> bytes:
    """The contents of a file of this user's own; OSError if it is anybody else's, a link, or no file."""
    flags = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    with open(os.open(path, os.O_RDONLY | flags), "rb") as file:
        status = os.fstat(file.fileno())  # of what is open: it can't be exchanged any more
        if not stat.S_ISREG(status.st_mode):
            raise PermissionError(0, f"{path} is no file")
        problem = _problem(path, status) if CHECKED else ""
        if problem:
            raise PermissionError(0, problem)
        return file.read()


def _problem(place: Path, status: os.stat_result, *, above: bool = False) -> str:
    """``above``: a folder on the way, which may belong to the system and may be sticky."""
    user, mode = os.geteuid(), status.st_mode
    if status.st_uid != user and not (above and status.st_uid == ROOT):
        return f"{place} belongs to another user"
    for_others = mode & stat.S_IWOTH or (mode & stat.S_IWGRP and status.st_gid != _own_group())
    if for_others and not (above and mode & stat.S_ISVTX):
        return f"{OTHERS} {place}; chmod go-w {place}"
    return ""


def _own_group() -> int | None:
    """The group that is this user's alone, by the custom to give it the user's number; None if there is none."""
    return os.getegid() if os.getegid() == os.geteuid() else None
