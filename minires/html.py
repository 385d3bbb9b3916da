"""What a notebook shows: a small table, as text that needs no style sheet and no script, in the page's own colours."""

from __future__ import annotations

from collections.abc import Sequence

MOST_ROWS = 40
"""How many rows a table shows; of longer ones the first and the last."""

_ESCAPES = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;", "'": "&#x27;"})


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

    Of more than ``MOST_ROWS`` the middle is left out; ``whole`` says what shows it. The arguments are plain text.
    """
    head = f"<thead>{_row(headers, left, 'th')}</thead>" if headers else ""
    shown = [_row(row, left) for row in rows]
    if len(shown) > MOST_ROWS:
        half = MOST_ROWS // 2
        left_out = f"… {len(shown) - 2 * half:,} more rows: {whole} shows all …"
        columns = len(rows[0])
        shown[half:-half] = [f'<tr><td colspan="{columns}" style="text-align:center">{escaped(left_out)}</td></tr>']
    caption = (
        f'<caption style="text-align:left;font-weight:bold;color:inherit">{escaped(title)}</caption>' if title else ""
    )
    return f"<table>{caption}{head}<tbody>{''.join(shown)}</tbody></table>"


def _row(cells: Sequence[str], left: Sequence[int], tag: str = "td") -> str:
    aligned = (
        f'<{tag} style="text-align:{"left" if position in left else "right"}">{escaped(cell)}</{tag}>'
        for position, cell in enumerate(cells)
    )
    return f"<tr>{''.join(aligned)}</tr>"
