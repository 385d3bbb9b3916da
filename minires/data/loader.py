"""Loader: batches of a split, shuffled anew each time, with randomness from a passed generator alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from minires.arguments import require_flag, require_generator, require_integer
from minires.data.dataset import ArrayF32, ArrayI64, Split

Transform = Callable[[ArrayF32, np.random.Generator], ArrayF32]
"""What changes a batch of images on the way: takes images (N, C, H, W) and the loader's rng, returns images."""


class Loader:
    """Iterate to get (images, labels) batch by batch: arrays of ``batch_size`` items, the last maybe smaller.

    ``rng``: needed to ``shuffle`` and by ``transform``; each iteration goes on drawing from it, so that the order
    differs each time, and the same seed gives the same sequence of orders. ``drop_last`` leaves out a last batch that
    is smaller than the others. The images of a batch are copies.

    Raises ValueError for a batch size below 1, for a missing rng, and when ``drop_last`` would leave nothing; TypeError
    for settings of another type.
    """

    def __init__(
        self,
        split: Split,
        batch_size: int,
        *,
        rng: np.random.Generator | None = None,
        shuffle: bool = True,
        drop_last: bool = False,
        transform: Transform | None = None,
    ) -> None:
        batch_size = require_integer("Loader", "batch_size", batch_size)
        shuffle, drop_last = require_flag("Loader", "shuffle", shuffle), require_flag("Loader", "drop_last", drop_last)
        if rng is not None:
            require_generator("Loader", rng)
        if transform is not None and not callable(transform):
            raise TypeError(f"Loader: transform must be a function of images and rng, got {type(transform).__name__}")
        if batch_size < 1:
            raise ValueError(f"Loader: batch_size must be at least 1, got {batch_size}")
        if rng is None and (shuffle or transform is not None):
            raise ValueError(
                "Loader: shuffling and transforms draw random numbers: pass rng=numpy.random.default_rng(seed), "
                "or shuffle=False and no transform"
            )
        if drop_last and 0 < len(split) < batch_size:
            raise ValueError(
                f"Loader: drop_last leaves nothing of {len(split)} items with batch_size {batch_size}; "
                "choose a smaller batch_size"
            )
        self.split, self.batch_size, self.rng = split, batch_size, rng
        self.shuffle, self.drop_last, self.transform = shuffle, drop_last, transform

    def __repr__(self) -> str:
        order = "shuffled" if self.shuffle else "in order"
        return f"Loader({len(self.split)} items in {len(self)} batches of {self.batch_size}, {order})"

    def __len__(self) -> int:
        """The number of batches."""
        whole, rest = divmod(len(self.split), self.batch_size)
        return whole + (rest > 0 and not self.drop_last)

    def __iter__(self) -> Iterator[tuple[ArrayF32, ArrayI64]]:
        rng, total = self.rng, len(self.split)
        order = rng.permutation(total) if self.shuffle and rng is not None else np.arange(total)
        for start in range(0, len(self) * self.batch_size, self.batch_size):
            chosen = order[start : start + self.batch_size]
            images = self.split.images[chosen]
            if self.transform is not None and rng is not None:
                images = self.transform(images, rng)
            yield images, self.split.labels[chosen]

    def state_dict(self) -> dict[str, Any]:
        """The generator's state, which JSON can hold: taken between two iterations, it determines all later ones."""
        return {"rng": None if self.rng is None else _with_lists(self.rng.bit_generator.state)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what :meth:`state_dict` gave.

        Raises ValueError, before any change, when it is another kind of generator's, or no generator's state at all.
        """
        if not isinstance(state, Mapping) or "rng" not in state:
            raise ValueError(f"Loader: a state has an entry rng, as state_dict gives it; got {state!r}")
        given, own = state["rng"], self.state_dict()["rng"]
        kinds = [each.get("bit_generator") if isinstance(each, Mapping) else each for each in (given, own)]
        if kinds[0] != kinds[1]:
            raise ValueError(f"Loader: the state is of generator {kinds[0]}, this loader's is {kinds[1]}")
        if self.rng is not None:
            self.rng.bit_generator.state = _checked(given, self.rng.bit_generator)


def _with_lists(state: Any) -> Any:
    """A generator's state with lists in the place of its arrays and Python's integers in that of NumPy's."""
    if isinstance(state, Mapping):
        return {name: _with_lists(value) for name, value in state.items()}
    return state.tolist() if isinstance(state, (np.ndarray, np.generic)) else state


def _checked(given: Mapping[str, Any], generator: np.random.BitGenerator) -> Any:
    """The state ``given``, with arrays again, tried on another generator of the same kind."""
    trial = type(generator)()
    try:
        state = _like(given, generator.state)
        trial.state = state
    except (TypeError, ValueError, KeyError, IndexError, OverflowError) as error:
        raise ValueError(f"Loader: the state of {type(generator).__name__} is damaged ({error})") from error
    return state


def _like(given: Any, own: Any) -> Any:
    """``given`` with an array of the same shape and dtype wherever ``own`` has one."""
    if isinstance(own, Mapping):
        return {name: _like(given[name], value) for name, value in own.items()}
    if not isinstance(own, np.ndarray):
        return given
    array = np.asarray(given, dtype=own.dtype)
    if array.shape != own.shape:
        raise ValueError(f"{array.shape} numbers instead of {own.shape}")
    return array
