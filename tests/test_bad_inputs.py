"""2,000 bad inputs over the public API: each gives the right answer or is refused in our own words; none crashes."""

from __future__ import annotations

import collections
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

CASES = 2000
PROCESSES = 8
PER_CASE = 1.0
"""Seconds that a case may take on average before its process is taken to hang: they take some milliseconds."""


def judged(first, count):
    """The verdicts on ``count`` cases from ``first`` on, each judged in a process that may crash."""
    root = Path(__file__).parents[1]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, (root, root / "kernels")))}
    end = first + count
    while first < end:
        command = [sys.executable, "-m", "tests.bad_inputs.judging", str(first), str(end - first)]
        done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, check=False,
                              timeout=60 + PER_CASE * count)  # fmt: skip
        lines = [json.loads(line) for line in done.stdout.splitlines()]
        begun = max((line["begins"] for line in lines if "begins" in line), default=None)
        ended = done.returncode == 0
        yield from (line for line in lines if "verdict" in line and (ended or line["number"] < begun))
        if ended:
            return
        assert begun is not None, done.stderr
        yield {
            "case": f"case {begun}",
            "verdict": "fault",
            "what": f"crash, exit {done.returncode}: {done.stderr[-300:]}",
        }
        first = begun + 1


@pytest.mark.parametrize("part", range(PROCESSES))
def test_bad_inputs_give_right_answers_or_are_refused_in_our_own_words(part):
    share = CASES // PROCESSES
    verdicts = list(judged(part * share, share))
    faults = [f"{each['case']}: {each['what']}" for each in verdicts if each["verdict"] == "fault"]
    counts = collections.Counter(each["verdict"] for each in verdicts)
    assert sum(counts.values()) == share
    assert not faults, f"{len(faults)} of {share}:\n" + "\n".join(faults)
    assert min(counts["right"], counts["refused"]) > share // 5, f"hardly a test of both kinds of answer: {counts}"
