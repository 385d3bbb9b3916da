"""The training loop: epochs of mini-batches, evaluation, a log, and a good state that is never lost."""

from __future__ import annotations

import csv
import math
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from minires import functional
from minires.data import Loader, Split
from minires.inspection import record
from minires.nn import Module
from minires.optim import SGD, ReduceLROnPlateau
from minires.tensor import Tensor, no_grad
from minires.training.metrics import top_k_errors
from minires.training.progress import Progress, Silence

Array = np.ndarray[Any, Any]


class Schedule(Protocol):
    """Anything with a ``step()`` that is called after each training step."""

    def step(self) -> None:
        """Count one training step."""


@dataclass(frozen=True)
class Epoch:
    """One line of the log. Errors are percentages; the training figures are means over the epoch's own batches."""

    epoch: int
    lr: float
    train_loss: float
    train_error: float
    test_loss: float
    test_error: float
    test_top5_error: float
    seconds: float

    def __str__(self) -> str:
        return (
            f"epoch {self.epoch:3}  lr {self.lr:g}  train loss {self.train_loss:.4f} error {self.train_error:5.2f} %"
            f"  test loss {self.test_loss:.4f} error {self.test_error:5.2f} %  {self.seconds:.1f} s"
        )


class TrainingDiverged(RuntimeError):
    """The loss became NaN or infinite. The net has its last good state again."""


class Trainer:
    """Trains ``net`` with ``optimizer`` on softmax cross-entropy.

    ``schedule``: stepped after each training step, or, for a ``ReduceLROnPlateau``, after each epoch with the test error
    (the training error where there is no test split). ``log``: a CSV file, a line per epoch, written as they end.
    ``progress``: see :mod:`minires.training.progress`. ``after_epoch(epoch, is_best)`` is called at the end of each,
    for checkpoints; best is the lowest test error so far.
    """

    def __init__(
        self,
        net: Module,
        optimizer: SGD,
        *,
        schedule: Schedule | ReduceLROnPlateau | None = None,
        log: str | Path | None = None,
        progress: Progress | None = None,
        after_epoch: Callable[[Epoch, bool], None] | None = None,
    ) -> None:
        self.net, self.optimizer, self.schedule = net, optimizer, schedule
        self.log = None if log is None else Path(log)
        self.progress: Progress = Silence() if progress is None else progress
        self.after_epoch = after_epoch
        self.history: list[Epoch] = []

    def fit(self, loader: Loader, epochs: int, *, test: Split | None = None) -> list[Epoch]:
        """Train for ``epochs`` epochs; returns the log. Without ``test`` its columns are NaN.

        Raises TrainingDiverged when the loss isn't finite: it names the first node of the graph that wasn't, and the
        net gets back the state of the end of the last good epoch (or of the start).
        """
        good = self.net.state_dict()
        if self.log is not None:
            self.log.parent.mkdir(parents=True, exist_ok=True)
            with self.log.open("w", newline="") as file:
                csv.writer(file).writerow([field.name for field in fields(Epoch)])
        for _ in range(epochs):
            epoch = self._epoch(loader, test, good)
            good = self.net.state_dict()
            is_best = all(epoch.test_error < other.test_error for other in self.history)
            self.history.append(epoch)
            if self.log is not None:
                with self.log.open("a", newline="") as file:
                    csv.writer(file).writerow(asdict(epoch).values())
            self.progress.epoch(str(epoch))
            if self.after_epoch is not None:
                self.after_epoch(epoch, is_best)
        return self.history

    def _epoch(self, loader: Loader, test: Split | None, good: dict[str, Array]) -> Epoch:
        start, number = time.perf_counter(), len(self.history) + 1
        lr = self.optimizer.groups[0]["lr"]
        loss_sum, wrong, seen = 0.0, 0, 0
        self.net.train()
        for position, (images, labels) in enumerate(loader):
            logits, loss = self._step(images, labels, good)
            loss_sum += loss * len(labels)
            wrong += top_k_errors(logits, labels)
            seen += len(labels)
            self.progress.batch(number, position + 1, len(loader))
        train_error = 100 * wrong / seen
        nothing = (math.nan, math.nan, math.nan)
        test_loss, test_error, top5 = evaluate(self.net, test) if test is not None else nothing
        if isinstance(self.schedule, ReduceLROnPlateau):
            self.schedule.step(train_error if test is None else test_error)
        seconds = time.perf_counter() - start
        return Epoch(number, lr, loss_sum / seen, train_error, test_loss, test_error, top5, seconds)

    def _step(self, images: Array, labels: Array, good: dict[str, Array]) -> tuple[Array, float]:
        """One training step; (logits, loss) from before the update."""
        self.optimizer.zero_grad()
        logits = self.net(Tensor(images))
        loss = functional.cross_entropy(logits, labels)
        value = loss.item()
        if not math.isfinite(value):
            culprit = self._first_nonfinite(images, labels)
            self.net.load_state_dict(good)
            raise TrainingDiverged(
                f"the loss is {value} in epoch {len(self.history) + 1}; {culprit}; the net has the state of the last good "
                "epoch again: train on with a smaller learning rate, or with warm-up"
            )
        loss.backward()
        self.optimizer.step()
        if self.schedule is not None and not isinstance(self.schedule, ReduceLROnPlateau):
            self.schedule.step()
        return logits.data, value

    def _first_nonfinite(self, images: Array, labels: Array) -> str:
        with record() as tape:
            functional.cross_entropy(self.net(Tensor(images)), labels)
        return f"the first bad value: {tape.first_nonfinite()}"


def evaluate(net: Module, split: Split, *, batch_size: int = 256) -> tuple[float, float, float]:
    """(loss, top-1 error %, top-5 error %) of ``net`` in evaluation mode on ``split``; restores the mode it was in."""
    was_training = net.training
    net.eval()
    loss_sum, wrong, wrong5 = 0.0, 0, 0
    try:
        with no_grad():
            for images, labels in _batches(split, batch_size):
                logits = net(Tensor(images))
                loss_sum += functional.cross_entropy(logits, labels, reduction="sum").item()
                wrong += top_k_errors(logits.data, labels)
                wrong5 += top_k_errors(logits.data, labels, 5)
    finally:
        net.train(was_training)
    return loss_sum / len(split), 100 * wrong / len(split), 100 * wrong5 / len(split)


def _batches(split: Split, batch_size: int) -> Iterable[tuple[Array, Array]]:
    for start in range(0, len(split), batch_size):
        yield split.images[start : start + batch_size], split.labels[start : start + batch_size]
