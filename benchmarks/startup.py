"""``python -m benchmarks.startup``: how long one waits, from nothing to the end of the first training step.

Each figure is the median of several fresh processes: ``import minires``; import, net and first step of ResNet-20 at
batch 128 on an empty kernel cache (everything is compiled) and on a full one; the same in PyTorch, eager and compiled,
where it is installed. The clock starts when Python itself has started. Processes take turns, and those during which
others used the processors don't count. What is started is in ``first_step``.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.results import add_record_option, write
from benchmarks.timing import QUIET, ForeignLoad, Times

STEP = "first step, resnet20 batch 128"
WARM = (
    ("import", "numpy", "numpy-import", None),
    ("import", "minires", "minires-import", 0.15),
    ("import", "torch", "torch-import", None),
    (f"{STEP}, warm cache", "minires", "minires-step", 2.0),
    (f"{STEP}, warm cache", "torch eager", "torch-step", None),
    (f"{STEP}, warm cache", "torch.compile", "torch-compiled-step", None),
)
"""(case, candidate, what ``first_step`` is told, the design's goal in seconds)."""
FRESH = (
    (f"{STEP}, fresh cache", "minires", "minires-step", 20.0),
    (f"{STEP}, fresh cache", "torch.compile", "torch-compiled-step", None),
)


def main() -> None:
    """Parse, measure, print, write ``startup.jsonl``."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--rounds", type=int, default=5, help="of what needn't compile")
    parser.add_argument("--fresh-rounds", type=int, default=2, help="of what must; torch.compile gets one")
    parser.add_argument("--no-compile", action="store_true", help="leave torch.compile out (it takes two minutes)")
    add_record_option(parser)
    options = parser.parse_args()
    left_out = "torch.compile" if options.no_compile else ""
    runs: dict[tuple[str, str], Runs] = {}
    with tempfile.TemporaryDirectory() as folder:
        caches = [Path(folder, str(number)) for number in range(options.fresh_rounds)]
        for works, folders in ((FRESH, caches), (WARM, caches[:1] * options.rounds)):
            for number, cache in enumerate(folders):
                for case, candidate, work, goal in works:
                    once = candidate == "torch.compile" and number > 0
                    if candidate != left_out and not once:
                        runs.setdefault((case, candidate), Runs(work, goal)).add(cache, options.threads)
    rows = [row(case, candidate, each) for (case, candidate), each in runs.items()]
    print(write("startup", rows, options.threads, record=options.record))


class Runs:
    """The runs of one kind of start, and the reason if it can't be run."""

    def __init__(self, work: str, goal: float | None) -> None:
        self.work, self.goal, self.missing = work, goal, ""
        self.quiet, self.disturbed = Times(), Times()

    def add(self, cache: Path, threads: int) -> None:
        """One more fresh process, with its kernel caches in ``cache``."""
        if self.missing:
            return
        caches = {"NUMBA_CACHE_DIR": str(cache), "TORCHINDUCTOR_CACHE_DIR": str(cache / "inductor")}
        limits = {"NUMBA_NUM_THREADS": str(threads), "OMP_NUM_THREADS": str(threads)}
        command, load = [sys.executable, "-m", "benchmarks.first_step", self.work], ForeignLoad()
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, env={**os.environ, **caches, **limits}
        )
        if done.returncode:
            self.missing = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        else:
            times = self.quiet if load.share() <= QUIET else self.disturbed
            times.seconds.append(float(done.stdout.splitlines()[-1]))


def row(case: str, candidate: str, runs: Runs) -> dict[str, Any]:
    """Print the figure; return its result row."""
    if runs.missing:
        print(f"{case:44} {candidate:14} not measured: {runs.missing}")
        return {"case": case, "candidate": candidate, "missing": runs.missing}
    times = runs.quiet if runs.quiet.seconds else runs.disturbed
    goal = f"   goal {runs.goal:g} s" if runs.goal else ""
    print(f"{case:44} {candidate:14} {times.median:7.2f} s ±{times.spread:4.0%}  n={len(times.seconds)}{goal}")
    windows = [len(runs.quiet.seconds), len(runs.disturbed.seconds)]
    return {"case": case, "candidate": candidate, **times.summary(), "goal_s": runs.goal, "windows": windows}


if __name__ == "__main__":
    main()
