"""What lists, tuples and dictionaries hold, at any depth: found, named by its place, and replaced."""

from __future__ import annotations

import copy
from collections import UserList, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Set, ValuesView
from typing import Any

import numpy as np

from minires.tensor import Tensor

CONTAINERS = (list, tuple, dict, deque)
"""What is opened: its items have names, and others can be put in their places."""
_CLOSED = (Mapping, Set, ValuesView, UserList)
PLAIN = frozenset((bool, int, float, str, type(None)))
"""The types of most attributes: they are configuration, and hold nothing."""


def joined(path: str, name: str) -> str:
    """``path.name``, or ``name`` at the top, where the path is empty."""
    return f"{path}.{name}" if path else name


def leaves(name: str, value: Any, above: tuple[int, ...] = ()) -> Iterator[tuple[str, Any]]:
    """(path, item) of all that ``value`` holds, as ``name.0.key.1``, or of itself if it is no container.

    Plain values are left out. Raises ValueError for a container that contains itself.
    """
    if not isinstance(value, CONTAINERS):
        if type(value) not in PLAIN:
            yield name, value
        return
    if id(value) in above:
        raise ValueError(f"Module: the {type(value).__name__} {name} contains itself, so what it holds has no end")
    for key, item in value.items() if isinstance(value, dict) else enumerate(value):
        if type(item) not in PLAIN:
            yield from leaves(joined(name, str(key)), item, (*above, id(value)))


def closed_items(value: Any) -> Iterator[Any]:
    """What ``value`` holds, at any depth, that :func:`leaves` doesn't open: a set, a view or an array of objects.

    Items of a set have no order and no names, and what a view or a read-only mapping shows can't be replaced.
    """
    items: Iterable[Any] = ()
    if isinstance(value, np.ndarray):
        items = value.flat if value.dtype.kind == "O" else ()
    elif isinstance(value, _CLOSED):
        items = value.values() if isinstance(value, Mapping) else value
    for item in items:
        for _, leaf in leaves("", item):
            yield leaf
            yield from closed_items(leaf)


def replaced(value: Any, change: Callable[[Any], Any]) -> Any:
    """``value`` with ``change(leaf)`` in the place of each leaf: in new containers, or in itself where none changed."""
    if not isinstance(value, CONTAINERS):
        return change(value)
    keys = list(value) if isinstance(value, dict) else range(len(value))
    items = [replaced(value[key], change) for key in keys]
    if all(item is value[key] for key, item in zip(keys, items, strict=True)):
        return value
    if isinstance(value, tuple):
        return type(value)(*items) if hasattr(value, "_fields") else type(value)(items)
    fresh = copy.copy(value)
    for key, item in zip(keys, items, strict=True):
        fresh[key] = item
    return fresh


def is_array(value: Any) -> bool:
    """Whether ``value`` is a NumPy or CuPy array."""
    return isinstance(value, np.ndarray) or (
        hasattr(value, "__cuda_array_interface__") and not isinstance(value, Tensor)
    )


def is_state(value: Any) -> bool:
    """Whether ``value`` is an array of numbers: what a module remembers. (An array of words is configuration.)"""
    return is_array(value) and value.dtype.kind in "fiub"
