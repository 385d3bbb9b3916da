"""Reading data files whose length is known beforehand: what is missing or cut short is said with its path."""

from __future__ import annotations

import gzip
import zlib
from pathlib import Path


def find(folder: Path, name: str, source: str) -> Path:
    """``folder/name``, or ``folder/name.gz``.

    Raises FileNotFoundError that names the path and ``source``, where the file comes from.
    """
    for path in (folder / name, folder / f"{name}.gz"):
        if path.is_file():
            return path
    raise FileNotFoundError(f"{folder / name} (or {name}.gz) doesn't exist; {source}")


def read(path: Path) -> bytes:
    """The content of the file at ``path``, unpacked when its name ends in ``.gz``.

    Raises ValueError when it can't be unpacked.
    """
    content = path.read_bytes()
    if path.suffix != ".gz":
        return content
    try:
        return gzip.decompress(content)
    except (EOFError, gzip.BadGzipFile, zlib.error) as damage:
        raise ValueError(f"{path} can't be unpacked ({damage}); it is damaged or cut short: fetch it again") from damage
