"""The training loop: epochs of mini-batches, evaluation, a log, and a good state that is never lost."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from minires import functional
from minires.data import Loader, Split
from minires.graph import no_grad
from minires.inspection import record
from minires.nn import Module
from minires.optim import SGD, Schedule
from minires.tensor import Tensor
from minires.training.metrics import top_k_errors
from minires.training.progress import Progress, Silence
from minires.training.writing import write_csv
from minires_kernels.arrays import array_module, to_cpu

Array = np.ndarray[Any, Any]


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

    def judged_by(self) -> float:
        """The test error or, where nothing was tested, the training error: the lower, the better."""
        return self.train_error if math.isnan(self.test_error) else self.test_error

    def __str__(self) -> str:
        test = "" if math.isnan(self.test_error) else f"  test {self.test_error:.2f} %, loss {self.test_loss:.3f}"
        return (
            f"epoch {self.epoch:3}  lr {self.lr:g}  train {self.train_error:.2f} %, loss {self.train_loss:.3f}"
            f"{test}  {self.seconds:.1f} s"
        )  # at most 80 columns wide


class DivergenceError(RuntimeError):
    """The loss or a gradient became NaN or infinite. Net and optimizer have their last good state again."""


class Trainer:
    """Trains ``net`` with ``optimizer`` on softmax cross-entropy.

    ``schedule``: hears of each training step, and of each epoch with its test error (the training error where there is
    no test split): see :class:`minires.optim.Schedule`. ``log``: a new CSV file, a line per epoch, written as they
    end. ``after_epoch(epoch, is_best)`` is called at the end of each, for checkpoints; best is the lowest error so far,
    see :meth:`Epoch.judged_by`. ``progress``, see :mod:`minires.training.progress`, hears of an epoch after that.
    """

    def __init__(
        self,
        net: Module,
        optimizer: SGD,
        *,
        schedule: Schedule | None = None,
        log: str | Path | None = None,
        progress: Progress | None = None,
        after_epoch: Callable[[Epoch, bool], None] | None = None,
    ) -> None:
        if not isinstance(schedule, Schedule | None):
            raise TypeError(
                f"Trainer: schedule must be an optim.Schedule, got {type(schedule).__name__}; subclass it and write "
                "after_step or after_epoch"
            )
        self.net, self.optimizer = net, optimizer
        self.schedule = Schedule(optimizer) if schedule is None else schedule
        self.log = None if log is None else Path(log)
        self.progress: Progress = Silence() if progress is None else progress
        self.after_epoch = after_epoch
        self.history: list[Epoch] = []

    def __repr__(self) -> str:
        return f"Trainer({type(self.net).__name__}, {self.optimizer!r}; {len(self.history)} epochs so far)"

    def fit(self, loader: Loader, epochs: int, *, test: Split | None = None) -> list[Epoch]:
        """Train for ``epochs`` epochs; returns the log. Without ``test`` its columns are NaN.

        A net that is in evaluation mode as a whole is put into training mode. In any other, each module keeps its mode:
        a batch norm that was frozen (``bn.eval()``) is so in every epoch.

        A second call goes on, with the same log. Raises ValueError for a loader or a test split without images and for
        a log that exists, and DivergenceError when the loss or a gradient isn't finite: it names the first node of the
        graph that wasn't, and net, optimizer and schedule get back what they were at the end of the last good epoch
        (or at the start).
        """
        if not len(loader) or (test is not None and not len(test)):
            raise ValueError("Trainer.fit: there is nothing to train on, or to test with: a split has no images")
        if not self.history:
            self._claim_log()
        try:
            self._write_log()
            self._fit(loader, epochs, test)
        finally:
            if self.log is not None and not self.history:
                self.log.unlink(missing_ok=True)  # there is nothing to tell
        return self.history

    def _fit(self, loader: Loader, epochs: int, test: Split | None) -> None:
        start_training(self.net)
        for _ in range(epochs):
            good = self.net.state_dict(), self.optimizer.state_dict(), self.schedule.state_dict()
            try:
                with np.errstate(over="ignore", invalid="ignore"):  # what overflows is found, and explained better
                    epoch = self._epoch(loader, test)
            except DivergenceError:
                self.net.load_state_dict(good[0])
                self.optimizer.load_state_dict(good[1])
                self.schedule.load_state_dict(good[2])
                self.optimizer.zero_grad()
                raise
            is_best = all(epoch.judged_by() < other.judged_by() for other in self.history)
            self.history.append(epoch)
            self._write_log()
            if self.after_epoch is not None:
                self.after_epoch(epoch, is_best)
            self.progress.epoch(str(epoch))  # last: what a person has read about is saved

    def _claim_log(self) -> None:
        """Make the log, so that no other training takes the same file, as this one takes no other's."""
        if self.log is None:
            return
        self.log.parent.mkdir(parents=True, exist_ok=True)
        try:
            self.log.open("x").close()
        except FileExistsError:
            raise ValueError(
                f"Trainer.fit: the log {self.log} exists, perhaps that of an earlier training; name another file, or "
                "remove it"
            ) from None

    def _write_log(self) -> None:
        if self.log is not None:
            rows = [asdict(epoch).values() for epoch in self.history]
            write_csv(self.log, [[field.name for field in fields(Epoch)], *rows])

    def _epoch(self, loader: Loader, test: Split | None) -> Epoch:
        start, number = time.perf_counter(), len(self.history) + 1
        lr = self.optimizer.groups[0]["lr"]
        loss_sum, wrong, seen = 0.0, 0, 0
        for position, (images, labels) in enumerate(loader):
            logits, loss = self._step(images, labels)
            loss_sum += loss * len(labels)
            wrong += top_k_errors(logits, labels)
            seen += len(labels)
            self.progress.batch(number, position + 1, len(loader))
        train_error = 100 * wrong / seen
        nothing = (math.nan, math.nan, math.nan)
        test_loss, test_error, top5 = evaluate(self.net, test) if test is not None else nothing
        self.schedule.after_epoch(train_error if test is None else test_error)
        seconds = time.perf_counter() - start
        return Epoch(number, lr, loss_sum / seen, train_error, test_loss, test_error, top5, seconds)

    def _step(self, images: Array, labels: Array) -> tuple[Array, float]:
        """One training step; (logits, loss) from before the update, which happens only if all gradients are finite."""
        self.optimizer.zero_grad()
        logits = self.net(Tensor(images))
        loss = functional.cross_entropy(logits, labels)
        value = loss.item()
        if not math.isfinite(value):
            raise self._diverged(f"the loss is {value}", images, labels)
        loss.backward()
        for name, parameter in self.net.named_parameters():
            grad = parameter.grad
            if grad is not None and not array_module(grad).isfinite(grad).all():
                problem = f"the loss is {value:.4g}, but the gradient of {name} isn't finite"
                raise self._diverged(problem, images, labels)
        self.optimizer.step()
        self.schedule.after_step()
        return to_cpu(logits.data), value

    def _diverged(self, what: str, images: Array, labels: Array) -> DivergenceError:
        """Run the step again on a tape, to say where the first bad value came from."""
        with record() as tape:
            functional.cross_entropy(self.net(Tensor(images)), labels).backward()
        culprit = tape.first_nonfinite()
        if culprit is not None:
            origin = f"the first value that isn't finite: {culprit}"
        else:
            origin = "the same step on a tape, without fused kernels, stays finite: it was just about to overflow"
        return DivergenceError(
            f"{what}, in epoch {len(self.history) + 1}; {origin}. The net has its last good state again: train on with "
            "a smaller learning rate (optimizer.groups[0]['lr'] = ...; a schedule goes on from there), or with warm-up"
        )


def start_training(net: Module) -> None:
    """Put ``net`` into training mode, unless part of it is: then somebody has chosen the modes of its modules."""
    if not any(module.training for module in net.modules()):
        net.train()


def evaluate(net: Module, split: Split, *, batch_size: int = 256) -> tuple[float, float, float]:
    """(loss, top-1 error %, top-5 error %) of ``net`` in evaluation mode on ``split``; restores the mode of each
    of its modules.

    Raises ValueError for a split without images.
    """
    if not len(split):
        raise ValueError("evaluate: the split has no images")
    loss_sum, wrong, wrong5 = 0.0, 0, 0
    with net.keep_modes(), no_grad():
        net.eval()
        for images, labels in Loader(split, batch_size, shuffle=False):
            logits = net(Tensor(images))
            loss_sum += functional.cross_entropy(logits, labels, reduction="sum").item()
            wrong += top_k_errors(to_cpu(logits.data), labels)
            wrong5 += top_k_errors(to_cpu(logits.data), labels, 5)
    return loss_sum / len(split), 100 * wrong / len(split), 100 * wrong5 / len(split)
