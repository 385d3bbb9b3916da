"""Two result files of one machine, compared: FASTER, SLOWER, SAME or UNCLEAR for each measurement they share."""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.results import read
from benchmarks.timing import median_ratio_interval


@dataclass
class Verdict:
    """How one measurement changed: the interval of new / old, and FASTER, SLOWER, SAME or UNCLEAR."""

    case: str
    low: float
    high: float
    word: str


def compare(old: str | Path, new: str | Path, *, threshold: float = 0.05) -> list[Verdict]:
    """Compare the measurements that two files share, by bootstrap intervals of the ratio of medians.

    FASTER or SLOWER: the whole interval lies beyond ``threshold``; SAME: it lies within; UNCLEAR: neither.
    Raises ValueError when the machines or thread counts differ: such numbers can't be compared.
    """
    (old_environment, old_rows), (new_environment, new_rows) = read(old), read(new)
    if old_environment["machine"] != new_environment["machine"]:
        raise ValueError(
            f"compare: the files come from different machines, {old_environment['machine']} and "
            f"{new_environment['machine']}; run both on one"
        )
    before = {_identity(row): row["seconds"] for row in old_rows if "seconds" in row}
    verdicts = []
    for row in new_rows:
        if "seconds" not in row or _identity(row) not in before:
            continue
        low, high = median_ratio_interval(before[_identity(row)], row["seconds"])
        if high < 1 - threshold:
            word = "FASTER"
        elif low > 1 + threshold:
            word = "SLOWER"
        else:
            word = "SAME" if 1 - threshold <= low and high <= 1 + threshold else "UNCLEAR"
        verdicts.append(Verdict(_identity(row), low, high, word))
    return verdicts


def _identity(row: dict[str, Any]) -> str:
    return " / ".join(str(row[key]) for key in ("benchmark", "case", "candidate"))


def main() -> None:
    """``python -m benchmarks.compare OLD NEW``: print the verdicts; exit 1 when something is SLOWER, 2 on a refusal."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("old", metavar="OLD", help="a result file, such as benchmarks/results/kernels.jsonl")
    parser.add_argument("new", metavar="NEW", help="a later one, such as runs/benchmarks/kernels.jsonl")
    options = parser.parse_args()
    try:
        verdicts = compare(options.old, options.new)
    except (OSError, ValueError) as error:
        print(error, file=sys.stderr)
        sys.exit(2)
    for verdict in verdicts:
        print(f"{verdict.word:8} {verdict.low:.3f} .. {verdict.high:.3f}  {verdict.case}")
    sys.exit(any(verdict.word == "SLOWER" for verdict in verdicts))


if __name__ == "__main__":
    main()
