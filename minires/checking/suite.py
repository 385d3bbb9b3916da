"""``minires mutate tests/``: which mistakes does somebody's pytest suite notice?

A mistake that no test notices is a hole in the suite. A test can notice only what it runs: first the suite runs as it
is, and the plugin records which tests reach the code that each mistake would replace, and how long they take. Then each
mistake is planted in a process of its own, which runs the tests that reach it, the shortest first, until one fails. The
others can't tell a difference. What a test runs in another process isn't seen, and no mistake is planted there either.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TypedDict

from minires.checking.mutants import MUTANTS, Mutant, named
from minires.checking.mutation import Score
from minires_kernels.environment import NUM_THREADS, cores

ONE_THREAD = dict.fromkeys((NUM_THREADS, "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OMP_NUM_THREADS"), "1")
"""The environment of processes that run side by side, one for each core."""


def score_suite(
    arguments: Sequence[str], names: Iterable[str] = tuple(MUTANTS), *, report: Callable[[str], None] = print
) -> Score:
    """Run ``pytest *arguments``, and for each mistake those tests that reach it, in a process with it planted.

    As many processes as there are cores run side by side, with one thread each; pytest-xdist (``-n``) serves in the
    first run only. A file that can't be imported with the mistake notices it like a test that fails; a mistake that no
    test reaches survives.

    ``report`` gets a line when the suite has run, and one for each mistake as soon as its fate is known, with the test
    that noticed it. Raises ValueError, with pytest's last lines, when the suite doesn't pass without mistakes, when a
    test that noticed one fails without it too as soon as other tests don't run before it, or when a test is gone in a
    later run; also for an unknown name of a mistake.
    """
    mutants = named(names, "mutate")
    with TemporaryDirectory() as folder:
        plain = _run(arguments, Path(folder) / "plain")
        if plain.status:
            raise ValueError(
                f"mutate: the suite must pass before mistakes are planted, but pytest says:\n{plain.output}"
            )
        report(f"{_count(len(plain.tests), 'test passes', 'tests pass')} without a mistake")
        noticed = _plant_each(_again(arguments, plain), plain, mutants, Path(folder), report)
        _confirm(_again(arguments, plain), plain, set(noticed.values()), Path(folder))
    by = {mutant.name: noticed[mutant.name] for mutant in mutants if noticed[mutant.name]}
    return Score("pytest " + " ".join(arguments), by, tuple(name for name in noticed if name not in by))


def _plant_each(
    arguments: Sequence[str], plain: _Run, mutants: Sequence[Mutant], folder: Path, report: Callable[[str], None]
) -> dict[str, str]:
    """Name of each mutant -> the name of the test that noticed it, or nothing."""
    noticed: dict[str, str] = {}
    with ThreadPoolExecutor(cores()) as pool:
        reaching = {mutant.name: plain.reaching(mutant) for mutant in mutants}
        jobs = {pool.submit(_plant, arguments, mutant, reaching[mutant.name], folder): mutant for mutant in mutants}
        try:
            for job in as_completed(jobs):
                mutant, test = jobs[job], job.result()
                noticed[mutant.name] = test
                many = len(reaching[mutant.name])
                passed = _count(many, "test reaches it", "tests reach it") if many else "not reached by any test"
                fate = f"noticed by {test}" if test else passed
                report(f"{'killed  ' if test else 'SURVIVED'}  {mutant.name}: {mutant.sentence}; {fate}")
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    return noticed


def _plant(arguments: Sequence[str], mutant: Mutant, tests: dict[str, _Test], folder: Path) -> str:
    """The name of the test that notices ``mutant``, or nothing."""
    if not tests:
        return ""
    run = _run([*arguments, f"--gradcheck-mutant={mutant.name}"], folder / mutant.name, tests)
    if run.status and not run.failed:  # nobody noticed anything, but something went wrong
        raise ValueError(f"mutate: with {mutant.name} planted, pytest ends with status {run.status}:\n{run.output}")
    return run.failed[0] if run.failed else ""


def _confirm(arguments: Sequence[str], plain: _Run, noticing: set[str], folder: Path) -> None:
    """Run the tests that noticed something once more, without mistakes: they may have missed the tests before them."""
    tests = {name: test for name, test in plain.tests.items() if name in noticing}
    if not tests:
        return
    run = _run(arguments, folder / "confirmed", tests)
    if run.status:
        raise ValueError(
            f"mutate: {run.failed[0] if run.failed else 'a test'} fails without a mistake too, where it doesn't run in "
            "its place among all tests, so that what it notices proves nothing; it must pass on its own, with one "
            f"thread. Pytest says:\n{run.output}"
        )


def _count(count: int, one: str, many: str) -> str:
    return f"{count} {one if count == 1 else many}"


# ---------------------------------------------------------------- running pytest


class _Test(TypedDict):
    """What :class:`minires.checking.reach.Recorder` writes about a test."""

    seconds: float
    file: str
    reached: list[str]


@dataclass(frozen=True)
class _Run:
    """What a run of pytest leaves behind: all but the first two as its Recorder wrote it."""

    status: int
    output: str
    tests: dict[str, _Test] = field(default_factory=dict)
    failed: list[str] = field(default_factory=list)
    distributable: bool = False

    def reaching(self, mutant: Mutant) -> dict[str, _Test]:
        """The tests that reach ``mutant``, the shortest first."""
        reaching = [item for item in self.tests.items() if mutant.target.__name__ in item[1]["reached"]]
        return dict(sorted(reaching, key=lambda item: item[1]["seconds"]))


def _again(arguments: Sequence[str], plain: _Run) -> list[str]:
    """The arguments for a run on one core: where there is pytest-xdist, it must not distribute."""
    return [*arguments, *(["-n0"] if plain.distributable else [])]


def _run(arguments: Sequence[str], record: Path, tests: dict[str, _Test] | None = None) -> _Run:
    """Run ``pytest *arguments``: all its tests, as the caller would, or only ``tests``, on one thread."""
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *arguments]
    command.append(f"--gradcheck-record={record}")
    if tests is not None:
        listed = record.with_suffix(".tests")  # the command line has no room for thousands of names
        listed.write_text(json.dumps({name: test["file"] for name, test in tests.items()}))
        command.append(f"--gradcheck-tests={listed}")
    environment = os.environ if tests is None else os.environ | ONE_THREAD
    done = subprocess.run(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )
    found = json.loads(record.read_text()) if record.exists() else {}
    return _Run(done.returncode, "\n".join(done.stdout.splitlines()[-15:]), **found)
