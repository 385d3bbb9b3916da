"""Running the command line within a test."""

import sys

import pytest

from minires import cli


def runner(monkeypatch, capsys):
    """``run("summary", "resnet8")`` -> (exit status, standard output, standard error)."""
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "200")

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["minires", *map(str, arguments)])
        with pytest.raises(SystemExit) as stopped:
            cli.main()
        printed = capsys.readouterr()
        return stopped.value.code or 0, printed.out, printed.err

    return run


SMALL = ("--widths", "2,3,4", "--epochs", "1")
"""The options of a training that takes no time."""
