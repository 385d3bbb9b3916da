"""Writing results so that nothing is lost: a file is there whole or not at all, and a run has a folder of its own."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

try:
    import fcntl
except ImportError:  # not on Unix: there what a killed process left behind stays
    fcntl = None  # type: ignore[assignment]

UNFINISHED = ".minires-{}.unfinished"


def write_file(path: str | Path, content: bytes) -> None:
    """Put ``content`` at ``path``, so that there is the old file or the new one, whatever happens, and never a part.

    It is written beside it under a name that no one else uses, synced to the disk, and moved into place; folders that
    are missing are made. What killed processes left unfinished in that folder is deleted. The mode follows the umask.
    Raises ValueError for a path where something else than a file is, and OSError that names the path, for example on a
    full disk.

    >>> write_file("runs/notes.txt", b"batch 128, lr 0.1")  # doctest: +SKIP
    """
    path = Path(path)
    if path.exists() and not path.is_file():
        raise ValueError(f"{path} is {'a folder' if path.is_dir() else 'not a regular file'}; name a file to write")
    path.parent.mkdir(parents=True, exist_ok=True)
    sweep(path.parent)
    unfinished, descriptor = _open_unfinished(path.parent)
    try:
        with open(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(descriptor)
            if not fcntl:
                file.close()  # Windows moves no open file
            unfinished.replace(path)  # still locked, so that nobody takes it for left behind
    except BaseException as error:
        unfinished.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise OSError(error.errno, error.strerror, str(path)) from error
        raise
    _sync_folder(path.parent)


def write_csv(path: str | Path, rows: Iterable[Iterable[Any]]) -> None:
    """:func:`write_file` of ``rows`` as comma-separated values."""
    text = io.StringIO(newline="")
    csv.writer(text).writerows(rows)
    write_file(path, text.getvalue().encode())


def sweep(folder: Path) -> None:
    """Delete the unfinished files in ``folder`` whose writer is gone: a living one holds a lock on its own."""
    for path in folder.glob(UNFINISHED.format("*")) if fcntl else ():
        with suppress(OSError), path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            path.unlink()


@contextmanager
def run_folder(folder: str | Path | None, base: str | Path) -> Iterator[Path]:
    """A folder that is one run's alone: ``folder``, new or empty, or else the first free of ``base``-1, ``base``-2 ...

    It is made here, and deleted at the end of the block if nothing was put into it. Raises ValueError, and changes
    nothing, for a ``folder`` that holds something or isn't one.

    >>> with run_folder(None, "runs/mine") as folder:  # doctest: +SKIP
    ...     write_file(folder / "notes.txt", b"batch 128, lr 0.1")  # in runs/mine-1, the next time in runs/mine-2
    """
    path = _numbered(Path(base)) if folder is None else Path(folder)
    is_new = folder is None or not path.exists()
    if not is_new and not path.is_dir():
        raise ValueError(f"the results need a folder, and {path} is a file; name another one")
    path.mkdir(parents=True, exist_ok=True)
    held = sorted(each.name for each in path.iterdir())
    if held:
        raise ValueError(
            f"{path} already holds {', '.join(held[:3])}{' ...' if held[3:] else ''}, and a run overwrites no other's "
            "results; name another folder, name none (each run then gets one of its own), or remove that one"
        )
    try:
        yield path
    finally:
        if is_new:
            with suppress(OSError):  # it holds something
                path.rmdir()


def _numbered(base: Path) -> Path:
    """The first of ``base``-1, ``base``-2 ... that doesn't exist, made here, so that no other process gets it too."""
    base.parent.mkdir(parents=True, exist_ok=True)
    number = 1
    while True:
        path = base.with_name(f"{base.name}-{number}")
        try:
            path.mkdir()
        except FileExistsError:
            if path.is_dir():
                sweep(path)
            number += 1
        else:
            return path


def _open_unfinished(folder: Path) -> tuple[Path, int]:
    """(path, descriptor) of a new file in ``folder`` under a name of its own, locked for as long as it is open."""
    while True:
        path = folder / UNFINISHED.format(os.urandom(8).hex())
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o666)
        if fcntl:
            with suppress(OSError):  # a file system without locks
                fcntl.flock(descriptor, fcntl.LOCK_EX)
        if path.exists():
            return path, descriptor
        os.close(descriptor)  # somebody swept it away in the moment before it was locked


def _sync_folder(folder: Path) -> None:
    """Have the folder's entries on the disk too, where the system can do that."""
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
