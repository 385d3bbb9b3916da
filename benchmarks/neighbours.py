"""``python -m benchmarks.neighbours``: how long a training takes alone, two at once, and beside a busy program.

A training step of ResNet-20 on small images (8 x 8, batch 100: the embedded digits' size) has hundreds of kernels of
some microseconds each, in which threads wait for each other most. It runs in processes of its own that have warmed up
before, so that no start is counted: one; two at once; and one beside a program that does nothing but loop. Each way of
waiting (``WAYS``) has its own pair of processes, and they take turns in an order that is shuffled every round. Every
process first shows that its gradients are right.

The fair time of two at once is twice the time alone, and that beside a loop on one of C cores, C / (C - 1/2) times;
"alone" is that of the quickest way, or a slow one would be fair to everybody. With ``--checkout FOLDER`` another
version of the engine takes part, in the same run.
"""

from __future__ import annotations

import argparse
import os
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.timing import RETAINING_MALLOC, ForeignLoad, Times

ROOT = Path(__file__).parents[1]
OTHER = "the other checkout"
WAYS: dict[str, dict[str, str]] = {
    "default": {},
    "looks 0": {"GOMP_SPINCOUNT": "0"},
    "looks 300": {"GOMP_SPINCOUNT": "300"},
    "looks 300000": {"GOMP_SPINCOUNT": "300000"},
}
"""Environment by name: how often a thread that waits looks for work before it sleeps (``simd.pool``). By default that
depends on whether it has a core. The last is as long as GNU's OpenMP waits without being told otherwise."""
WORK = "--work"
SETTLE = 5
"""Steps in which threads notice who their neighbours are: some hundred kernels."""
BATCH, SIDE = 100, 8
GOAL = 1.3
"""The most times its fair time that two at once may take."""


def main() -> None:
    """Parse, check, measure, print, write ``neighbours.jsonl``."""
    if sys.argv[1:] == [WORK]:  # one of the processes that are measured, perhaps of a version that knows less
        work()
        return
    from benchmarks.results import add_record_option, write

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--steps", type=int, default=20, help="training steps that are timed in one go")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1, help="of each process")
    parser.add_argument("--ways", nargs="+", default=list(WAYS), choices=WAYS, help="of waiting; all unless given")
    parser.add_argument("--checkout", type=Path, help="folder of another version, which is measured too")
    add_record_option(parser)
    options = parser.parse_args()
    if options.record and (options.checkout or len(options.ways) < len(WAYS)):
        parser.error("--record replaces the results of all ways, and of this version: leave out --ways and --checkout")
    folders = dict.fromkeys(options.ways, ROOT) | ({OTHER: options.checkout} if options.checkout else {})
    rows = report(measure(folders, options.rounds, options.steps, options.threads))
    print(write("neighbours", rows, options.threads, record=options.record))


def work() -> None:
    """Check, warm up, then take as many steps as each line of the input says, and print their seconds."""
    import numpy as np

    from benchmarks.training_step import check_gradients, our_step
    from minires import models

    rng = np.random.default_rng(0)
    net = models.create("resnet20", rng=rng)
    images, labels = rng.standard_normal((BATCH, 3, SIDE, SIDE), np.float32), rng.integers(0, 10, BATCH)
    check_gradients(net, images, labels)
    step = our_step(net, images, labels)
    step()
    step()
    print("ready", flush=True)
    for line in sys.stdin:
        start = time.perf_counter()
        for _ in range(int(line)):
            step()
        print(time.perf_counter() - start, flush=True)


class Worker:
    """A process that trains when it is told to, with the version of the engine in ``folder``."""

    def __init__(self, folder: Path, settings: dict[str, str], threads: int) -> None:
        kept = {name: text for name, text in os.environ.items() if name not in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")}
        search = {"PYTHONPATH": os.pathsep.join([str(folder), str(folder / "kernels")])}
        number = {"NUMBA_NUM_THREADS": str(threads)}
        self._process = subprocess.Popen(
            [sys.executable, __file__, WORK], text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            env={**kept, **RETAINING_MALLOC, **search, **number, **settings},
        )  # fmt: skip

        if self._read() != "ready\n":  # one after the other: the first compiles for all
            raise RuntimeError("neighbours: a process failed before it was ready (see above); nothing timed")

    def start(self, steps: int) -> None:
        assert self._process.stdin
        self._process.stdin.write(f"{steps}\n")
        self._process.stdin.flush()

    def seconds(self) -> float:
        return float(self._read())

    def end(self) -> None:
        self._process.kill()
        self._process.communicate()

    def _read(self) -> str:
        assert self._process.stdout
        return self._process.stdout.readline()


def together(workers: list[Worker], steps: int) -> float:
    """The seconds until the last of them has taken ``steps`` steps, all at once, after ``SETTLE`` that don't count."""
    start = 0.0
    for count in (SETTLE, steps):
        start = time.perf_counter()
        for worker in workers:
            worker.start(count)
        for worker in workers:
            worker.seconds()
    return time.perf_counter() - start


@contextmanager
def busy() -> Iterator[None]:
    """A program that does nothing but loop, on whichever core it gets."""
    program = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    time.sleep(0.1)  # until it has started
    try:
        yield
    finally:
        program.kill()
        program.wait()


Results = dict[tuple[str, str], Times]


def measure(folders: dict[str, Path], rounds: int, steps: int, threads: int) -> Results:
    """Times by (way, case). Rounds in which others used the cores count too: how busy these were is printed."""
    ways = list(folders)
    workers: dict[str, list[Worker]] = {way: [] for way in ways}
    results: Results = {(way, case): Times() for way in ways for case in ("alone", "two at once", "beside a loop")}
    try:
        for way in 2 * ways:
            workers[way].append(Worker(folders[way], WAYS.get(way, {}), threads))
        order, shuffler, load = list(ways), random.Random(0), ForeignLoad()
        for _ in range(rounds):
            shuffler.shuffle(order)
            for way in order:
                results[way, "alone"].seconds.append(together(workers[way][:1], steps))
                results[way, "two at once"].seconds.append(together(workers[way], steps))
                with busy():
                    results[way, "beside a loop"].seconds.append(together(workers[way][:1], steps))
        # Our children count as others until they have finished; what they and the loop can use is all there is.
        print(f"the cores were in use for {load.share():.0%} of the time, by these processes and others")
    finally:
        for pair in workers.values():
            for worker in pair:
                worker.end()
    return results


def report(results: Results) -> list[dict[str, Any]]:
    """Print the table; return its result rows."""
    cores = os.cpu_count() or 1
    fair = {"alone": 1.0, "two at once": 2.0, "beside a loop": cores / (cores - 0.5)}
    quickest = min(times.median for (_, case), times in results.items() if case == "alone")
    print(
        f"{'':20}" + "".join(f"{case:>28}" for case in fair) + f"     (goal: two at once under {GOAL} of the fair time)"
    )
    rows = []
    for way in dict.fromkeys(way for way, _ in results):
        line = f"{way:20}"
        for case, share in fair.items():
            times = results[way, case]
            of_fair = times.median / quickest / share
            line += f"{times.median * 1e3:10.1f} ms ±{times.spread:4.0%} {of_fair:5.2f} fair"
            rows.append({"case": case, "candidate": way, **times.summary(), "times_the_fair_time": of_fair})
        print(line)
    return rows


if __name__ == "__main__":
    main()
