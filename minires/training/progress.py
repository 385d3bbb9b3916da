"""What a person sees while a net trains: a bar on a terminal, plain lines anywhere else."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Protocol

from minires_kernels.jit import watch

QUIET_SECONDS = 30.0
"""How long plain lines are silent within an epoch."""


class Progress(Protocol):
    """Told about each batch and each epoch."""

    def batch(self, epoch: int, done: int, total: int) -> None:
        """``done`` of ``total`` batches of ``epoch`` (from 1) are finished."""

    def epoch(self, line: str) -> None:
        """An epoch has ended; ``line`` says how."""


class Silence:
    """Shows nothing."""

    def batch(self, epoch: int, done: int, total: int) -> None:
        """Nothing."""

    def epoch(self, line: str) -> None:
        """Nothing."""


class Waiting:
    """Why a batch takes so long: the kernels that are compiled for it, and since when one waits."""

    def __init__(self) -> None:
        self.start, self.compiled = time.monotonic(), 0

    def __str__(self) -> str:
        reason = f"compiling kernels ({self.compiled} ready)" if self.compiled else "loading kernels"
        return f"{reason}: {time.monotonic() - self.start:.0f} s"


class PlainLines:
    """A line per epoch, beginning with ``title``, for files, pipes and continuous integration.

    Further lines say that kernels are being compiled, and in a long epoch, every ``QUIET_SECONDS``, how far it is.
    """

    def __init__(self, title: str) -> None:
        self.title, self.printed, self.has_compiled = title, time.monotonic(), False

    def kernel(self, name: str, compiled: bool) -> None:
        """Say, once, that this takes a while."""
        if compiled and not self.has_compiled:
            self.has_compiled = True
            self.epoch("compiling kernels: the first step takes longer than the others")

    def batch(self, epoch: int, done: int, total: int) -> None:
        """Print it if nothing has been printed for long."""
        if time.monotonic() - self.printed > QUIET_SECONDS:
            self.epoch(f"epoch {epoch:3}  batch {done} of {total}")

    def epoch(self, line: str) -> None:
        """Print it at once."""
        print(f"{self.title}  {line}", flush=True)
        self.printed = time.monotonic()


@contextmanager
def progress(title: str, epochs: int) -> Iterator[Progress]:
    """A bar named ``title`` if standard output is a terminal (and neither CI nor NO_COLOR is set), else lines.

    Below the bar stands the last epoch's line or, while kernels are loaded or compiled, for how long.
    """
    is_terminal = sys.stdout.isatty() and os.environ.get("TERM") != "dumb"
    if not is_terminal or os.environ.get("CI") or os.environ.get("NO_COLOR"):
        lines = PlainLines(title)
        with watch(lines.kernel):
            yield lines
        return
    from rich.console import RenderableType
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as RichProgress
    from rich.text import Text

    class Bar(RichProgress):
        waiting: Waiting | None = Waiting()
        line = ""

        def get_renderables(self) -> Iterable[RenderableType]:
            yield from super().get_renderables()
            yield Text(str(self.waiting or self.line))  # wrapped, not cut, where a terminal is narrow

        def kernel(self, name: str, compiled: bool) -> None:
            if compiled:
                self.waiting = self.waiting or Waiting()
                self.waiting.compiled += 1

        def batch(self, epoch: int, done: int, total: int) -> None:
            self.waiting = None
            self.update(task, completed=(epoch - 1) * total + done, total=epochs * total)

        def epoch(self, line: str) -> None:
            self.waiting, self.line = None, line

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Bar(*columns) as bars, watch(bars.kernel):
        task = bars.add_task(title, total=None)
        yield bars
