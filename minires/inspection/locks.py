"""Read-only while a backward pass still needs them: how ``record(check=True)`` finds in-place damage.

NumPy knows for each array *object* whether it may be written. Several objects can view the same memory, so what is
locked is everything that is known to view a saved array's memory: the array, the arrays that it is a view of, and the
data of every recorded tensor that shares its memory. Arrays on a GPU have no such flag and stay as they are.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from minires.function import Function
from minires_kernels.arrays import Array


@dataclass
class _Memory:
    """One piece of memory: how many saved arrays lie in it, who views it, and which of them have been locked."""

    holds: int = 0
    views: list[Array] = field(default_factory=list)
    locked: list[Array] = field(default_factory=list)


class Locks:
    """Locks what Functions have saved, and unlocks it when the last of them has released it."""

    def __init__(self) -> None:
        self._memories: dict[int, _Memory] = {}  # by the id of the owning array, which `views` keeps alive
        self._held: dict[Function, list[_Memory]] = {}

    def know(self, array: Array, *, is_new: bool) -> None:
        """``array`` is a tensor's data: lock it whenever memory that it shares is locked.

        ``is_new``: a Function has just made it. A new view of a locked array is born read-only; it has to become
        writable with the others.
        """
        if not isinstance(array, np.ndarray):
            return
        memory = self._memory(array)
        if is_new and memory.locked and not array.flags.writeable:
            memory.locked.append(array)
        if memory.holds:
            _lock(memory)

    def hold(self, function: Function, arrays: Iterable[Array]) -> None:
        """Lock ``arrays`` until ``function`` releases them."""
        memories = [self._memory(array) for array in arrays if isinstance(array, np.ndarray)]
        for memory in memories:
            memory.holds += 1
            _lock(memory)
        self._held[function] = memories

    def release(self, function: Function) -> None:
        """``function`` doesn't need its arrays any longer: those that nobody else needs become writable again."""
        for memory in self._held.pop(function, ()):
            memory.holds -= 1
            if not memory.holds:
                _unlock(memory)

    def release_all(self) -> None:
        """Everything becomes as writable as it was."""
        for function in list(self._held):
            self.release(function)
        self._memories.clear()

    def _memory(self, array: np.ndarray[Any, Any]) -> _Memory:
        chain = [array]
        while isinstance(chain[-1].base, np.ndarray):
            chain.append(chain[-1].base)
        memory = self._memories.setdefault(id(chain[-1]), _Memory())
        known = set(map(id, memory.views))
        memory.views.extend(each for each in reversed(chain) if id(each) not in known)
        return memory


def _lock(memory: _Memory) -> None:
    for array in memory.views:  # what it is a view of comes before a view, and so it does in `locked`
        if array.flags.writeable:
            array.flags.writeable = False
            memory.locked.append(array)


def _unlock(memory: _Memory) -> None:
    for array in memory.locked:
        array.flags.writeable = True
    memory.locked.clear()
