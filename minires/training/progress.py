"""What a person sees while a net trains: a bar on a terminal, plain lines anywhere else."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol


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


class PlainLines:
    """One line per epoch, beginning with ``title``: for files, pipes and continuous integration."""

    def __init__(self, title: str) -> None:
        self.title = title

    def batch(self, epoch: int, done: int, total: int) -> None:
        """Nothing: only epochs are worth a line."""

    def epoch(self, line: str) -> None:
        """Print it at once."""
        print(f"{self.title}  {line}", flush=True)


@contextmanager
def progress(title: str, epochs: int) -> Iterator[Progress]:
    """A bar named ``title`` if standard output is a terminal (and neither CI nor NO_COLOR is set), else lines."""
    if not sys.stdout.isatty() or os.environ.get("CI") or os.environ.get("NO_COLOR"):
        yield PlainLines(title)
        return
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as RichProgress

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with RichProgress(*columns, TextColumn("{task.fields[last]}")) as bars:
        task = bars.add_task(title, total=None, last="")

        class Bar:
            def batch(self, epoch: int, done: int, total: int) -> None:
                bars.update(task, completed=(epoch - 1) * total + done, total=epochs * total)

            def epoch(self, line: str) -> None:
                bars.update(task, last=line)

        yield Bar()
