"""Notes on errors: where an error came from, said once."""

from __future__ import annotations


def add_note_once(error: BaseException, note: str) -> None:
    """``error.add_note(note)``, unless it has that note: Numba raises the same exception object again."""
    if note not in getattr(error, "__notes__", ()):
        error.add_note(note)
