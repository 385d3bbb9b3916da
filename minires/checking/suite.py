"""``minires mutate tests/``: which mistakes does somebody's pytest suite notice?

A mistake that no test notices is a hole in the suite. A test can notice only what it runs: first the suite runs as it
is, and the plugin records which tests reach the code that each mistake would replace, and how long they take. Then each
mistake is planted in a process of its own, which runs the tests that reach it, the shortest first, until one fails. The
others can't tell a difference. What a test runs in another process isn't seen, and no mistake is planted there either.

What each test reaches is written by :class:`minires.checking.reach.Recorder`, which says what counts.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TypedDict, TypeVar

from minires.checking.mutants import MUTANTS, Mutant, named
from minires.checking.mutation import Score
from minires_kernels.environment import NUM_THREADS, cores

Key = TypeVar("Key")
Result = TypeVar("Result")

ONE_THREAD = dict.fromkeys((NUM_THREADS, "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OMP_NUM_THREADS"), "1")
"""The environment of processes that run side by side, one for each core."""


def _print(line: str) -> None:
    print(line, flush=True)  # people wait for it, at the end of a pipe too


def score_suite(
    arguments: Sequence[str], names: Iterable[str] = tuple(MUTANTS), *, report: Callable[[str], None] = _print
) -> Score:
    """Run ``pytest *arguments``, and for each mistake those tests that reach it, in a process with it planted.

    As many processes as there are cores run side by side, with one thread each, so the tests must bear that, as for
    pytest-xdist, which itself (``-n``) serves in the first run only. A file that can't be imported with the mistake
    notices it like a test that fails; a mistake that no test reaches survives.

    ``report`` gets a line when the suite has run, and one for each mistake as soon as its fate is known, with the test
    that noticed it. Raises ValueError, with pytest's last lines, when the suite doesn't pass without mistakes, when a
    test that noticed one fails on its own without it too, or when a test is gone in a later run; also for an unknown
    name of a mistake.
    """
    mutants = named(names, "mutate")
    with TemporaryDirectory() as folder:
        plain = _run(arguments, Path(folder) / "plain")
        if plain.status:
            raise ValueError(
                f"mutate: the suite must pass before mistakes are planted, but pytest says:\n{plain.output}"
            )
        report(f"without a mistake, none of {len(plain.tests)} tests fails")
        noticed = _plant_each(_again(arguments, plain), plain, mutants, Path(folder), report)
        _confirm(_again(arguments, plain), plain, set(noticed.values()), Path(folder))
    return Score(
        "pytest " + " ".join(arguments),
        {mutant.name: noticed[mutant.name] for mutant in mutants if noticed[mutant.name]},
        tuple(mutant.name for mutant in mutants if not noticed[mutant.name]),
    )


def _plant_each(
    arguments: Sequence[str], plain: _Run, mutants: Sequence[Mutant], folder: Path, report: Callable[[str], None]
) -> dict[str, str]:
    """Name of each mutant -> the name of the test that noticed it, or nothing."""
    noticed: dict[str, str] = {}
    reaching = {mutant.name: plain.reaching(mutant) for mutant in mutants}
    for mutant, test in _side_by_side(
        {mutant: partial(_plant, arguments, mutant, reaching[mutant.name], folder) for mutant in mutants}
    ):
        noticed[mutant.name] = test
        many = len(reaching[mutant.name])
        unnoticed = f"reached by {many} test{'s' * (many > 1)}" if many else "not reached by any test"
        fate = f"noticed by {test}" if test else unnoticed
        report(f"{'killed  ' if test else 'SURVIVED'}  {mutant.name}: {mutant.sentence}; {fate}")
    return noticed


def _plant(arguments: Sequence[str], mutant: Mutant, tests: dict[str, _Test], folder: Path) -> str:
    """The name of the test that notices ``mutant``, or nothing."""
    if not tests:
        return ""
    run = _run([*arguments, f"--gradcheck-mutant={mutant.name}"], folder / mutant.name, tests)
    if not run.status:
        return ""
    if not run.failed:  # something went wrong, but not in a test
        raise ValueError(f"mutate: with {mutant.name} planted, pytest ends with status {run.status}:\n{run.output}")
    return run.failed[0]


def _confirm(arguments: Sequence[str], plain: _Run, noticing: set[str], folder: Path) -> None:
    """Run each test that noticed something on its own, without mistakes: it may have missed the tests before it."""
    tests = {name: test for name, test in plain.tests.items() if name in noticing}
    runs = {
        name: partial(_run, arguments, folder / str(number), {name: test})
        for number, (name, test) in enumerate(tests.items())
    }
    for name, run in _side_by_side(runs):
        if run.status:
            raise ValueError(
                f"mutate: {name} fails without a mistake too when it runs on its own, with one thread; so what it "
                f"notices proves nothing. Pytest says:\n{run.output}"
            )


def _side_by_side(work: Mapping[Key, Callable[[], Result]]) -> Iterator[tuple[Key, Result]]:
    """(key, what its function returns), as they end, as many at a time as there are cores."""
    with ThreadPoolExecutor(cores()) as pool:
        jobs = {pool.submit(function): key for key, function in work.items()}
        try:
            for job in as_completed(jobs):
                yield jobs[job], job.result()
        finally:
            pool.shutdown(cancel_futures=True)


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
    has_xdist: bool = False

    def reaching(self, mutant: Mutant) -> dict[str, _Test]:
        """The tests that reach ``mutant``, the shortest first."""
        reaching = [item for item in self.tests.items() if mutant.target.__name__ in item[1]["reached"]]
        return dict(sorted(reaching, key=lambda item: item[1]["seconds"]))


def _again(arguments: Sequence[str], plain: _Run) -> list[str]:
    """The arguments for a run on one core: where there is pytest-xdist, it must not distribute."""
    return [*arguments, *(["-n0"] if plain.has_xdist else [])]


def _run(arguments: Sequence[str], record: Path, tests: dict[str, _Test] | None = None) -> _Run:
    """Run ``pytest *arguments``: all its tests, as the caller would, or only ``tests``, on one thread."""
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *arguments]
    command.append(f"--gradcheck-record={record}")
    environment = dict(os.environ)
    if tests is not None:
        listed = record.with_suffix(".tests")  # the command line has no room for thousands of names
        listed.write_text(json.dumps({name: test["file"] for name, test in tests.items()}))
        command.append(f"--gradcheck-tests={listed}")
        environment |= ONE_THREAD | {"HYPOTHESIS_STORAGE_DIRECTORY": str(record.parent)}  # no examples for later runs
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
    output = done.stdout.decode(errors="replace").splitlines()
    found = json.loads(record.read_text()) if record.exists() else {}
    return _Run(done.returncode, "\n".join(output[-15:]), **found)
