"""A module as text and as HTML: the tree of its children, equal neighbours said once."""

from __future__ import annotations

import html
import itertools
import reprlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from minires.nn.module import Module


@reprlib.recursive_repr(fillvalue="(its parent)")
def tree_text(module: Module) -> str:
    """``Type(settings)``, or one line per child, indented; equal neighbours as ``(1-17): 17 x Type(...)``."""
    lines = [f"  ({names}): {count}{text}".replace("\n", "\n  ") for names, count, text, _ in _rows(module)]
    settings = module.configuration()
    body = "\n" + "\n".join([*([f"  {settings}"] if settings else []), *lines]) + "\n" if lines else settings
    return f"{type(module).__name__}({body})"


def tree_html(module: Module) -> str:
    """The same as nested, collapsible elements, with the number of parameters of each; the first level is open."""
    return f"<div style='font-family: monospace'>{_branch(module, '', is_open=True)}</div>"


def _branch(module: Module, label: str, is_open: bool = False) -> str:
    rows = list(_rows(module))
    settings = "" if rows else module.configuration()
    title = html.escape(f"{label}{type(module).__name__}({settings})")
    count = sum(parameter.size for parameter in module.parameters())
    title += f" <small>{count:,} parameters</small>" if count else ""
    if not rows:
        return f"<div style='margin-left: 1em'>{title}</div>"
    below = "".join(_branch(child, f"({names}): {times}") for names, times, _, child in rows)
    opened = " open" if is_open else ""
    return f"<details style='margin-left: 1em'{opened}><summary>{title}</summary>{below}</details>"


def _rows(module: Module) -> Iterator[tuple[str, str, str, Module]]:
    """(names, ``17 x `` or nothing, text, the first of them) of each run of children that read the same."""
    named = [(name, repr(child), child) for name, child in module._children()]
    for (_, text), run in itertools.groupby(named, key=lambda row: (_list_of(row[0]), row[1])):
        names, _, children = zip(*run, strict=True)
        last = f"-{names[-1].rpartition('.')[2]}" if len(names) > 1 else ""
        yield f"{names[0]}{last}", f"{len(names)} x " if last else "", text, children[0]


def _list_of(name: str) -> str:
    """The name of the list that an item is in: ``blocks`` of ``blocks.3``; of anything else, its own."""
    above, _, place = name.rpartition(".")
    return above if place.isdigit() else f"{name}:"
