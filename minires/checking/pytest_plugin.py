"""A pytest plugin: the fixture ``gradcheck``, its marker and options, and explanations where an assertion failed.

In any project that has MiniRes installed::

    def test_my_layer(gradcheck):
        assert gradcheck(MyLayer(3, 4), np.random.default_rng(0).standard_normal((2, 3)))

    @pytest.mark.gradcheck(mode="full", rtol=1e-5)
    def test_another(gradcheck): ...

``pytest --gradcheck=full`` compares every element whatever the size, ``--gradcheck=fast`` samples; a failing report is
printed whole, and written as a page with ``--gradcheck-html=DIR``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from minires.checking.blame import BlameReport
from minires.checking.gradcheck import gradcheck as run_gradcheck
from minires.checking.mutants import named, planted, watched
from minires.checking.reach import Recorder, Selection
from minires.checking.report import GradReport

MARKER = "gradcheck(mode, rtol, seed): options of the gradcheck fixture for this test, as minires.gradcheck takes them"


def pytest_addoption(parser: pytest.Parser) -> None:
    """The options."""
    group = parser.getgroup("minires", "MiniRes gradient checks")
    group.addoption("--gradcheck", choices=("auto", "full", "fast"), default="auto", help="how much is compared")
    group.addoption("--gradcheck-html", metavar="DIR", default=None, help="write a page for each failing check")
    group.addoption("--gradcheck-mutant", metavar="NAME", default=None, help="plant a mistake (minires mutate does)")
    group.addoption("--gradcheck-record", metavar="FILE", default=None, help="for minires mutate: what tests reach")
    group.addoption("--gradcheck-tests", metavar="FILE", default=None, help="for minires mutate: what to run")


def pytest_configure(config: pytest.Config) -> None:
    """The marker; and for the whole session the mistake, if one is to be planted, and who records and selects tests."""
    config.addinivalue_line("markers", MARKER)
    mutant, record, tests = (config.getoption(f"--gradcheck-{what}") for what in ("mutant", "record", "tests"))
    stack = ExitStack()
    config.add_cleanup(stack.close)
    if mutant:
        try:
            stack.enter_context(planted(*named([mutant], "--gradcheck-mutant")))
        except ValueError as error:
            raise pytest.UsageError(str(error)) from error
    if record:
        recorder = Recorder(Path(record))
        stack.enter_context(watched(recorder.note))
        config.pluginmanager.register(recorder)
    if tests:
        config.pluginmanager.register(Selection(json.loads(Path(tests).read_text())))


@pytest.fixture
def gradcheck(request: pytest.FixtureRequest) -> Callable[..., Any]:
    """:func:`minires.gradcheck` with the mode of the command line and the options of the test's marker."""
    marker = request.node.get_closest_marker("gradcheck")
    options = {"mode": request.config.getoption("--gradcheck"), **(marker.kwargs if marker else {})}

    def check(fn: Callable[..., Any], *inputs: Any, **own: Any) -> Any:
        report = run_gradcheck(fn, *inputs, **{**options, **own})
        request.node.user_properties.append(("gradcheck_seed", report.seed))
        return report

    return check


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
    """Show every failing report that the failed test had in its hands, in full: pytest itself cuts it to one line."""
    outcome: Any = yield
    if call.excinfo is None or call.when != "call":
        return
    result = outcome.get_result()
    folder = item.config.getoption("--gradcheck-html")
    for number, report in enumerate(_failing_reports(call.excinfo)):
        result.sections.append(("gradient check", str(report)))
        if folder:
            name = re.sub(r"[^\w.-]+", "_", item.nodeid) + (f"_{number}" if number else "")
            path = Path(folder)
            path.mkdir(parents=True, exist_ok=True)
            title = f"<!doctype html><meta charset=utf-8><title>{name}</title>"
            (path / f"{name}.html").write_text(title + report._repr_html_(), encoding="utf-8")


def _failing_reports(excinfo: pytest.ExceptionInfo[BaseException]) -> list[Any]:
    """Reports among the variables of the frames that failed; a rewritten assertion keeps its operands there too."""
    found: dict[int, Any] = {}
    for entry in excinfo.traceback:
        for value in entry.frame.f_locals.values():
            if isinstance(value, (GradReport, BlameReport)) and not value:
                found[id(value)] = value
    return list(found.values())
