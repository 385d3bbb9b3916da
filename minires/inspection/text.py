"""Tables for a terminal: plain text in aligned columns, without colours or dependencies."""

from __future__ import annotations

from collections.abc import Sequence


def table(headers: Sequence[str], rows: Sequence[Sequence[str]], left: Sequence[int] = (0,)) -> str:
    """``rows`` under ``headers``; the columns whose positions are in ``left`` are aligned left, the others right."""
    lines = [tuple(headers), *map(tuple, rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    texts = (
        "  ".join(
            cell.ljust(width) if position in left else cell.rjust(width)
            for position, (cell, width) in enumerate(zip(line, widths, strict=True))
        )
        for line in lines
    )
    return "\n".join(text.rstrip() for text in texts)


def shape_text(shape: Sequence[int]) -> str:
    """``2×8×16×16``, or ``scalar`` for a 0-d array."""
    return "×".join(map(str, shape)) or "scalar"


def number(value: float, form: str = ".4g") -> str:
    """``value`` in the given format; a dash for NaN, which stands for a quantity that isn't defined."""
    return format(value, form) if value == value else "-"
