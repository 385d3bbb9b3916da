"""``minires mutate`` and the benchmark that runs what the checker claims."""

import subprocess
import sys

import minires
from benchmarks import checking as benchmark
from minires.checking import mutation


def test_minires_mutate_scores_our_own_check_and_prints_both_tables(capsys):
    assert not mutation.compare(["relu_batch_reversed", "linear_batch_reversed", "cross_entropy_sign"]).survived
    text = capsys.readouterr().out
    assert "minires.gradcheck            3 of 3 killed" in text
    assert "an all-ones upstream         1 of 3 killed" in text
    assert "the first diagnosis is right for 3 of 3" in text


def test_the_command_line_knows_mutate():
    result = subprocess.run(
        [sys.executable, "-m", "minires", "mutate", "--help"], capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    assert "wrong backward pass" in result.stdout


def test_right_random_cases_are_not_refused(capsys):
    assert benchmark.cases(25) == 0
    assert "float64: 0 false failures in 25" in capsys.readouterr().out


def test_the_checker_is_at_the_front_door():
    assert minires.gradcheck is minires.checking.gradcheck
