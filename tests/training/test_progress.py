"""A bar on a terminal; plain lines in a file, a pipe, under CI or NO_COLOR."""

import sys
import time

import pytest

from minires.training.progress import PlainLines, progress
from minires_kernels import jit


def pretend_terminal(monkeypatch):
    """Standard output says that it is a terminal, and nothing in the environment speaks against a bar."""
    monkeypatch.setenv("TERM", "xterm")
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


@pytest.mark.parametrize(("variable", "value"), [("CI", "1"), ("NO_COLOR", "1"), ("TERM", "dumb")])
def test_plain_lines_are_printed_where_the_environment_asks_for_them(variable, value, monkeypatch, capsys):
    pretend_terminal(monkeypatch)
    monkeypatch.setenv(variable, value)
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


LINE = "epoch  12  lr 0.01  train 12.50 %, loss 0.250  test 20.00 %, loss 0.512  12.3 s"


def test_in_eighty_columns_the_whole_line_of_the_last_epoch_is_there(monkeypatch, capsys):
    pytest.importorskip("rich", reason="bars are drawn by rich")
    pretend_terminal(monkeypatch)
    monkeypatch.setenv("COLUMNS", "80")
    with progress("preact_resnet110", 164) as shown:
        shown.epoch(LINE)
        shown.batch(13, 4, 390)
    assert LINE in capsys.readouterr().out


def test_a_bar_says_that_kernels_are_compiled_until_the_batch_is_done(monkeypatch, capsys):
    pytest.importorskip("rich", reason="bars are drawn by rich")
    pretend_terminal(monkeypatch)
    texts = []
    with progress("some net", 2) as shown:

        def now():
            return str([*shown.get_renderables()][-1])

        texts.append(now())
        jit._tell("a", False)
        jit._tell("b", True)
        jit._tell("c", True)
        texts.append(now())
        shown.batch(1, 1, 2)
        texts.append(now())
        shown.epoch("epoch 1")
        jit._tell("d", False)
        texts.append(now())
        jit._tell("e", True)  # for the test images, or a last batch that is smaller
        texts.append(now())
        shown.batch(2, 1, 2)
        texts.append(now())
    assert texts == ["loading kernels: 0 s", "compiling kernels (2 ready): 0 s", "", "epoch 1",
                     "compiling kernels (1 ready): 0 s", "epoch 1"]  # fmt: skip


def test_plain_lines_say_once_that_kernels_are_compiled(capsys):
    with progress("some net", 2) as shown:
        jit._tell("a", False)
        assert capsys.readouterr().out == ""
        jit._tell("b", True)
        assert capsys.readouterr().out == "some net  compiling kernels: the first step takes longer than the others\n"
        jit._tell("c", True)
        run(shown)
    assert capsys.readouterr().out == "some net  epoch 1 went well\n"


def test_plain_lines_tell_within_a_long_epoch_how_far_it_is(monkeypatch, capsys):
    clock = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    with progress("some net", 2) as shown:
        for batch in range(1, 9):
            clock[0] += 11
            shown.batch(1, batch, 8)
    assert capsys.readouterr().out == "some net  epoch   1  batch 3 of 8\nsome net  epoch   1  batch 6 of 8\n"
