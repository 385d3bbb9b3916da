"""Plans that are kept for the next call with the same shapes, the least recently used ones given up for new ones."""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar

import numpy as np

KEPT_BYTES = 1 << 24
"""The most that all plans take together. Those of a whole ResNet-50 for one size of its images, forward and backward,
take a fiftieth of that."""

ENTRY_BYTES = 1 << 11
"""What a plan takes besides its arrays, and the shapes under which it is found."""

P = TypeVar("P", bound=tuple[Any, ...])


class Kept:
    """Values by key, as long as all together take no more than ``most`` bytes; the newest is always among them."""

    def __init__(self, most: int) -> None:
        self.most, self.bytes = most, 0
        self._values: OrderedDict[Any, tuple[Any, int]] = OrderedDict()
        self._lock = threading.Lock()  # held for dictionaries only, never while a plan is made
        if hasattr(os, "register_at_fork"):  # a child has no thread that would ever give it back
            os.register_at_fork(after_in_child=self._lock._at_fork_reinit)  # type: ignore[attr-defined]

    def __len__(self) -> int:
        return len(self._values)

    def get(self, key: Any) -> Any:
        """The value, or None. As long as there is room for twice as much, nobody counts what was used last."""
        entry = self._values.get(key)
        if entry is None:
            return None
        if 2 * self.bytes > self.most:
            with self._lock:
                if key in self._values:
                    self._values.move_to_end(key)
        return entry[0]

    def put(self, key: Any, value: Any) -> None:
        """Keep ``value``, and give up what was least recently used."""
        size = ENTRY_BYTES + _bytes(value)
        with self._lock:
            self.bytes += size - self._values.pop(key, (None, 0))[1]
            self._values[key] = value, size
            while self.bytes > self.most and len(self._values) > 1:
                self.bytes -= self._values.popitem(last=False)[1][1]

    def clear(self) -> None:
        """Give all up."""
        with self._lock:
            self._values.clear()
            self.bytes = 0


def _bytes(value: Any) -> int:
    if isinstance(value, np.ndarray):
        return value.nbytes
    return sum(map(_bytes, value)) if isinstance(value, tuple) else 0


PLANS = Kept(KEPT_BYTES)


def kept(make: Callable[..., P]) -> Callable[..., P]:
    """``make(...)``, a plan, remembered among :data:`PLANS` by its arguments."""

    @wraps(make)
    def plan(*arguments: Any) -> P:
        key = (make, *arguments)
        found: P | None = PLANS.get(key)
        if found is None:
            found = make(*arguments)
            PLANS.put(key, found)
        return found

    return plan
