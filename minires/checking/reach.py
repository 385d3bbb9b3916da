"""Two pytest plugins for ``minires mutate``: which test reaches which mistake's code, and running only those that do.

They are registered by :mod:`minires.checking.pytest_plugin` for its options ``--gradcheck-record`` and
``--gradcheck-tests``.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest


class Lasting(NamedTuple):
    """What the fixture ``name`` reached, and how long that took."""

    name: str
    reached: set[str]
    seconds: float


class Recorder:
    """Writes a JSON file: for each test its seconds, its file and what it reaches; and which tests failed.

    A test reaches what runs during its setup, its call and its teardown; besides, what the fixtures reached that were
    alive when it began (a module's fixture runs for the first test only, but all of them have its result in hand), and
    what was reached while tests were collected (modules may compute when they are imported). The seconds of the
    fixtures that it asks for are added: on its own it would have to wait for them. What a test keeps for others in
    some other way (``functools.cache``) counts for that test alone.

    With pytest-xdist each worker notes, its reports carry the notes, and the process that distributes writes.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._reached: set[str] = set()
        self._waited = 0.0
        self._lasting: dict[Any, Lasting] = {}
        self._tests: dict[str, dict[str, Any]] = {}
        self._failed: list[str] = []

    def note(self, target: str) -> None:
        """``target``, the class a mistake sits in, is at work."""
        self._reached.add(target)

    def pytest_collection_finish(self) -> None:
        """What importing the tests has reached is in the hands of all of them."""
        self._lasting["imports"] = Lasting("", self._reached, 0.0)

    @pytest.hookimpl(hookwrapper=True)
    def pytest_fixture_setup(self, fixturedef: Any) -> Iterator[None]:
        """Keep what this fixture reaches for as long as it is alive."""
        outside, self._reached, start = self._reached, set(), time.perf_counter()
        yield
        self._lasting[fixturedef] = Lasting(fixturedef.argname, self._reached, time.perf_counter() - start)
        self._reached = outside | self._reached

    def pytest_fixture_post_finalizer(self, fixturedef: Any) -> None:
        """The fixture is gone."""
        self._lasting.pop(fixturedef, None)

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_setup(self, item: pytest.Item) -> None:
        """A test begins with what there is."""
        self._reached, self._waited = set(), 0.0
        for lasting in self._lasting.values():
            self._reached |= lasting.reached
            self._waited += lasting.seconds if lasting.name in getattr(item, "fixturenames", ()) else 0.0

    @pytest.hookimpl(hookwrapper=True)
    def pytest_runtest_makereport(self, item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
        """Put the notes onto the last of the test's reports."""
        outcome: Any = yield
        if call.when == "teardown":
            notes = {"file": str(item.path), "reached": sorted(self._reached), "waited": self._waited}
            outcome.get_result().gradcheck_notes = notes

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Collect the notes, here or from a worker."""
        test = self._tests.setdefault(report.nodeid, {"seconds": 0.0, "file": "", "reached": []})
        test["seconds"] += report.duration
        notes = getattr(report, "gradcheck_notes", None)
        if notes:
            test["seconds"] += notes["waited"]
            test["file"], test["reached"] = notes["file"], notes["reached"]
        self._note_failure(report)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """A file that can't be imported fails like a test."""
        self._note_failure(report)

    def _note_failure(self, report: pytest.TestReport | pytest.CollectReport) -> None:
        if report.failed:
            self._failed.append(report.nodeid)

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Write the file."""
        if not hasattr(session.config, "workerinput"):  # what marks a worker of pytest-xdist
            has_xdist = hasattr(session.config.option, "numprocesses")
            record = {"tests": self._tests, "failed": self._failed, "has_xdist": has_xdist}
            self._path.write_text(json.dumps(record))


class Selection:
    """Runs the given tests (name -> file) alone and in their order; files without any of them aren't even imported."""

    def __init__(self, tests: dict[str, str]) -> None:
        self._position = {name: position for position, name in enumerate(tests)}
        files = {Path(file) for file in tests.values()}
        self._wanted = files.union(*(file.parents for file in files))

    def pytest_ignore_collect(self, collection_path: Path) -> bool | None:
        """Leave out what holds none of the tests."""
        return None if collection_path in self._wanted else True

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, session: pytest.Session, items: list[pytest.Item]) -> None:
        """Leave out the other tests of the files, and sort. Raises pytest.UsageError when one is missing."""
        others = [item for item in items if item.nodeid not in self._position]
        items[:] = sorted(
            (item for item in items if item.nodeid in self._position), key=lambda item: self._position[item.nodeid]
        )
        session.config.hook.pytest_deselected(items=others)
        missing = self._position.keys() - {item.nodeid for item in items}
        if missing and not session.testsfailed:  # a file that can't be imported says so itself
            raise pytest.UsageError(f"{min(missing)} was there when the suite ran without a mistake, but isn't now")
