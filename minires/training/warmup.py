"""Compiling all that a training step of a net needs, before anybody waits for it: ``minires warmup``."""

from __future__ import annotations

import copy
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from minires import functional, optim
from minires.display import brief_fields
from minires.nn import Module
from minires.tensor import Tensor
from minires.training.progress import Progress, Silence
from minires.training.trainer import start_training
from minires_kernels.jit import cache_folder, watch


@dataclass(frozen=True)
class WarmUp:
    """What the first step took, and why.

    ``seconds``: of the first step, ``step_seconds``: of the second. ``compiled``, ``loaded``: the names of the compiled
    functions that were new, and of those that came from the cache. (One name may stand for several: one for each tile.)
    """

    seconds: float
    step_seconds: float
    compiled: tuple[str, ...]
    loaded: tuple[str, ...]

    __repr__ = brief_fields

    def __str__(self) -> str:
        if not self.compiled and not self.loaded:
            return f"nothing to compile: no implementation in use is compiled; a step takes {self.step_seconds:.2f} s"
        kept = f"kept in {cache_folder()}" if cache_folder() else "not kept"
        return (
            f"{self.seconds:.1f} s: {len(self.compiled)} kernels compiled, {len(self.loaded)} loaded from the cache "
            f"({kept}); a step now takes {self.step_seconds:.2f} s"
        )


def warm_up(net: Module, shape: Sequence[int], batch: int, *, progress: Progress | None = None) -> WarmUp:
    """Do two training steps of a copy of ``net`` on ``batch`` random images of ``shape`` (C, H, W), float32.

    Which kernels a step needs depends on the shapes, the batch's size among them. ``net`` itself stays as it is; the
    copy trains in the modes in which a Trainer would. ``progress`` hears of the three parts of the first step as of
    three batches. Raises ValueError for a batch or a shape that is empty.
    """
    if batch < 1 or len(shape) != 3 or min(shape) < 1:
        raise ValueError(
            f"warm_up: batch and each of (C, H, W) must be at least 1, got batch {batch} and image {tuple(shape)}"
        )
    shown = progress or Silence()
    ready: dict[bool, list[str]] = {True: [], False: []}

    def tell(name: str, compiled: bool) -> None:
        ready[compiled].append(name)

    images = Tensor(np.random.default_rng(0).standard_normal((batch, *shape), np.float32))
    twin = copy.deepcopy(net)  # its parameters, statistics, modes and generators may change
    start_training(twin)
    sgd = optim.SGD(twin.parameters(), lr=1e-3, momentum=0.9, weight_decay=1e-4)
    with watch(tell):
        seconds = _step(twin, sgd, images, shown)
        step_seconds = _step(twin, sgd, images, Silence())
    return WarmUp(seconds, step_seconds, tuple(ready[True]), tuple(ready[False]))


def _step(net: Module, sgd: optim.SGD, images: Tensor, shown: Progress) -> float:
    """The seconds that one training step takes."""
    start = time.perf_counter()
    sgd.zero_grad()
    loss = functional.cross_entropy(net(images), np.zeros(images.shape[0], np.int64))
    shown.batch(1, 1, 3)
    loss.backward()
    shown.batch(1, 2, 3)
    sgd.step()
    shown.batch(1, 3, 3)
    return time.perf_counter() - start
