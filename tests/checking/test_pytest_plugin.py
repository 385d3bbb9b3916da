"""The plugin in a project outside of this repository that merely depends on MiniRes."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import minires
import minires_kernels

SUITE = """
import numpy as np
import pytest
from minires import Function, functional


class Half(Function):
    def forward(self, x):
        self.save_for_backward(x=x)
        return x * x

    def backward(self, grad_output):
        return (self.saved.x * grad_output,)


def test_right(gradcheck):
    assert gradcheck(functional.tanh, np.array([0.5, 1.0]))


@pytest.mark.gradcheck(mode="full", seed=7)
def test_marked(gradcheck):
    report = gradcheck(functional.tanh, np.ones((50, 60)) * 0.3)
    assert report.comparisons[0].every_element
    assert report.seed == 7


def test_wrong(gradcheck):
    assert gradcheck(Half, np.array([0.5, 1.0]))
"""


@pytest.fixture
def run(tmp_path):
    (tmp_path / "test_suite.py").write_text(SUITE)

    def run(*arguments):
        paths = [str(Path(module.__file__).parents[1]) for module in (minires, minires_kernels)]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
        command = [
            sys.executable,
            "-m",
            "pytest",
            "-p",
            "minires.checking.pytest_plugin",
            "--strict-markers",
            *arguments,
        ]
        return subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)

    return run


def test_a_scratch_project_gets_the_fixture_the_marker_and_the_explanation(run, tmp_path):
    result = run("--gradcheck-html=pages", "-rA", "--junitxml=results.xml")
    assert "1 failed, 2 passed" in result.stdout
    assert "LIKELY CAUSE  numeric = 2 x analytic everywhere: a factor 2 is missing" in result.stdout
    assert "test_suite.py:" in result.stdout
    pages = list((tmp_path / "pages").glob("*.html"))
    assert [page.name for page in pages] == ["test_suite.py_test_wrong.html"]
    assert "a factor 2 is missing" in pages[0].read_text()
    assert 'name="gradcheck_seed" value="7"' in (tmp_path / "results.xml").read_text()


def test_a_planted_mistake_fails_the_suite_that_would_notice_it(run):
    assert run("-k", "right", "--gradcheck-mutant=relu_without_mask").returncode == 0
    unknown = run("--gradcheck-mutant=relu")
    assert unknown.returncode == pytest.ExitCode.USAGE_ERROR
    assert "there is no mutant 'relu'" in unknown.stderr


def test_the_mode_of_the_command_line_is_used(run):
    result = run("-k", "marked", "--gradcheck=fast")
    assert result.returncode == 0  # the marker is closer
    assert run("-k", "right", "--gradcheck=slow").returncode == pytest.ExitCode.USAGE_ERROR


def test_the_plugin_is_declared_as_an_entry_point():
    import tomllib

    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    assert project["entry-points"]["pytest11"] == {"minires": "minires.checking.pytest_plugin"}
