"""What a prompt and a notebook show: a few lines of text; a small table in the page's own colours, without scripts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any

import numpy as np

MOST_LINES = 20
"""How many lines a prompt shows of a text."""
MOST_ROWS = 40
"""How many rows a notebook shows of a table: of longer ones the first and the last."""
_MOST_ITEMS = 8

_ESCAPES = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;", "'": "&#x27;"})


def brief(value: Any, width: int = 100) -> str:
    """``value`` on one line of at most ``width`` characters: arrays by shape and dtype, of collections the start."""
    if isinstance(value, np.ndarray) or hasattr(value, "__cuda_array_interface__"):
        return f"array {value.shape} {value.dtype}"
    if isinstance(value, Mapping) and len(value) > _MOST_ITEMS:
        return f"{type(value).__name__} of {len(value)} entries"
    if type(value) in (tuple, list):
        first = [brief(each, width) for each in value[:_MOST_ITEMS]]
        more = [f"… {len(value) - _MOST_ITEMS} more"] if len(value) > _MOST_ITEMS else [""] * (len(value) == 1)
        listed = ", ".join([*first, *more]).rstrip(" ")
        text = f"({listed})" if type(value) is tuple else f"[{listed.rstrip(',')}]"
    else:
        text = " ".join(str(value).split())
    return text if len(text) <= width else text[: width - 1] + "…"


def brief_fields(self: Any) -> str:
    """The repr of a dataclass whose fields may hold arrays, or much: each of them in brief, all on one line."""
    shown = (f"{field.name}={brief(getattr(self, field.name))}" for field in fields(self))
    return f"{type(self).__name__}({', '.join(shown)})"


def few_lines(text: str, whole: str) -> str:
    """``text``, or, of more than ``MOST_LINES`` lines, the first and the last, and that ``whole`` shows the others."""
    lines = text.splitlines()
    if len(lines) <= MOST_LINES:
        return text
    first, last = MOST_LINES - 6, 5
    return "\n".join([*lines[:first], f"... {len(lines) - first - last} more lines: {whole}", *lines[-last:]])


def escaped(text: object) -> str:
    """``text`` as HTML shows it literally."""
    return str(text).translate(_ESCAPES)


def html_table(
    headers: Sequence[str],
    rows: Sequence[Sequence[str]],
    left: Sequence[int] = (0,),
    *,
    title: str = "",
    whole: str = "print(...)",
) -> str:
    """``rows`` under ``headers`` and a ``title``; the columns whose positions are in ``left`` are aligned left.

    Of more than ``MOST_ROWS`` rows the middle is left out; ``whole`` says what shows it. All arguments are plain text.
    """
    head = f"<thead>{_row(headers, left, 'th')}</thead>" if headers else ""
    half = MOST_ROWS // 2
    body = [_row(row, left) for row in (rows if len(rows) <= MOST_ROWS else [*rows[:half], *rows[-half:]])]
    if len(rows) > MOST_ROWS:
        note = escaped(f"… {len(rows) - MOST_ROWS:,} more rows: {whole} …")
        body.insert(half, f'<tr><td colspan="{len(rows[0])}" style="text-align:center">{note}</td></tr>')
    style = "text-align:left;font-weight:bold;color:inherit"
    caption = f'<caption style="{style}">{escaped(title)}</caption>' if title else ""
    return f"<table>{caption}{head}<tbody>{''.join(body)}</tbody></table>"


def _row(cells: Sequence[str], left: Sequence[int], tag: str = "td") -> str:
    aligned = (
        f'<{tag} style="text-align:{"left" if position in left else "right"}">{escaped(cell)}</{tag}>'
        for position, cell in enumerate(cells)
    )
    return f"<tr>{''.join(aligned)}</tr>"
