"""A bar on a terminal; plain lines in a file, a pipe, under CI or NO_COLOR."""

import sys

import pytest

from minires.training.progress import PlainLines, progress


def pretend_terminal(monkeypatch):
    """Standard output says that it is a terminal, and nothing in the environment speaks against a bar."""
    monkeypatch.delenv("CI", raising=False)
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)


def run(shown):
    shown.batch(1, 1, 2)
    shown.batch(1, 2, 2)
    shown.epoch("epoch 1 went well")


def test_without_a_terminal_each_epoch_is_one_line(capsys):
    with progress("some net", 3) as shown:
        run(shown)
    assert capsys.readouterr().out == "some net  epoch 1 went well\n"


@pytest.mark.parametrize("variable", ["CI", "NO_COLOR"])
def test_plain_lines_are_printed_where_the_environment_asks_for_them(variable, monkeypatch, capsys):
    pretend_terminal(monkeypatch)
    monkeypatch.setenv(variable, "1")
    with progress("some net", 3) as shown:
        assert isinstance(shown, PlainLines)
        run(shown)
    assert capsys.readouterr().out == "some net  epoch 1 went well\n"


def test_on_a_terminal_there_is_a_bar_with_the_title_and_the_last_line(monkeypatch, capsys):
    pytest.importorskip("rich", reason="bars are drawn by rich")
    pretend_terminal(monkeypatch)
    with progress("some net", 2) as shown:
        assert not isinstance(shown, PlainLines)
        run(shown)
    printed = capsys.readouterr().out
    assert "some net" in printed
    assert "2/4" in printed
