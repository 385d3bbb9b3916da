"""Reading data files whose length is known beforehand: what is missing, too long or cut short is said with its path."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, cast

CHUNK = 1 << 20


def find(folder: Path, name: str, source: str) -> Path:
    """``folder/name``, or ``folder/name.gz``.

    Raises FileNotFoundError that names the path and ``source``, where the file comes from.
    """
    for path in (folder / name, folder / f"{name}.gz"):
        if path.is_file():
            return path
    raise FileNotFoundError(f"{folder / name} (or {name}.gz) doesn't exist; {source}")


@contextmanager
def unpacked(path: Path) -> Iterator[BinaryIO]:
    """The file at ``path`` to read from, unpacked on the way when its name ends in ``.gz``.

    Raises ValueError, within the block, when it can't be unpacked.
    """
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            yield cast(BinaryIO, file)
    except (EOFError, gzip.BadGzipFile, zlib.error) as damage:
        raise ValueError(f"{path} can't be unpacked ({damage}); it is damaged or cut short: fetch it again") from damage


def read_at_most(file: BinaryIO, length: int) -> bytes:
    """The next ``length`` bytes of ``file``, or what there is, which alone takes memory."""
    parts, missing = [], length
    while missing and (part := file.read(min(missing, CHUNK))):
        parts.append(part)
        missing -= len(part)
    return b"".join(parts)


def read(path: Path, limit: int) -> bytes:
    """The content of the file at ``path``, unpacked when its name ends in ``.gz``: at most ``limit`` bytes.

    Raises ValueError when there are more, which aren't unpacked, and when it can't be unpacked.
    """
    with unpacked(path) as file:
        content = read_at_most(file, limit + 1)
    if len(content) > limit:
        raise ValueError(f"{path} has more than the {limit} bytes of the largest file of its kind; fetch it again")
    return content
