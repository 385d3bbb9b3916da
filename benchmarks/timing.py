"""How this project measures time: correctness first, alternation, quiet rounds only, medians with their spread.

Every number of a benchmark comes from :func:`alternate`. Candidates run in turn, one call each, in an order that is
shuffled anew every round; so what slows the machine down slows all of them down, and the ratio of two candidates
is taken within a round. Rounds are grouped into windows of a quarter of a second; a window in which *other* processes
used more than four per cent of the processors is dropped. Before that, everything is warmed up by time, because
compilers and caches need an unknown number of calls.
"""

from __future__ import annotations

import os
import random
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

RETAINING_MALLOC = {
    "MALLOC_MMAP_THRESHOLD_": "4294967296",
    "MALLOC_TRIM_THRESHOLD_": "68719476736",
    "MALLOC_TOP_PAD_": "268435456",
}
"""Settings under which glibc keeps freed pages. The policy alone is worth up to 2.7x to whoever allocates large
outputs, so both sides of every comparison run under it."""

QUIET = 0.04
"""The share of all processors that others may use while something is measured."""


def retain_pages() -> None:
    """Start this program again under :data:`RETAINING_MALLOC`, unless it runs so already (glibc reads it at start)."""
    if sys.platform == "linux" and any(os.environ.get(name) != value for name, value in RETAINING_MALLOC.items()):
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], {**os.environ, **RETAINING_MALLOC})


@dataclass
class Times:
    """The seconds of one candidate, one entry a round; entry i of two candidates comes from the same round."""

    seconds: list[float] = field(default_factory=list)

    @property
    def median(self) -> float:
        """The median, in seconds."""
        return statistics.median(self.seconds)

    @property
    def spread(self) -> float:
        """The interquartile range, relative to the median."""
        low, high = quantile(self.seconds, 0.25), quantile(self.seconds, 0.75)
        return (high - low) / self.median

    def ratio(self, other: Times) -> float:
        """The median over rounds of other / self: how many times faster this candidate is."""
        return statistics.median(theirs / ours for ours, theirs in zip(self.seconds, other.seconds, strict=True))

    def summary(self) -> dict[str, float | int | list[float]]:
        """The statistics that go into a result file; ``seconds`` are the raw rounds, for later comparisons."""
        return {
            "median_s": self.median,
            "iqr": round(self.spread, 4),
            "min_s": min(self.seconds),
            "p10_s": quantile(self.seconds, 0.1),
            "p90_s": quantile(self.seconds, 0.9),
            "n": len(self.seconds),
            "seconds": [round(value, 9) for value in self.seconds],
        }


@dataclass
class Measurement:
    """What :func:`alternate` returns: the times by candidate, and how many windows were kept and dropped."""

    times: dict[str, Times]
    kept: int
    dropped: int

    @property
    def disturbed(self) -> bool:
        """Whether no quiet window was found, so that the least disturbed one had to serve."""
        return self.kept == 0


def alternate(
    candidates: Mapping[str, Callable[[], object]],
    *,
    rounds: int = 25,
    seconds: float = 20.0,
    warm_up: float = 0.3,
    window: float = 0.25,
    quiet: float = QUIET,
    pause: float = 0.0,
    seed: int = 0,
) -> Measurement:
    """Time ``candidates`` against each other until each has ``rounds`` quiet rounds or ``seconds`` have passed.

    ``warm_up``: seconds for which each candidate is called beforehand (twice at least). ``quiet``: the share of all
    processors that other processes may use in a window. ``pause``: seconds of rest before each call, for candidates
    that leave threads behind which spin for a while (a BLAS).
    """
    for call in candidates.values():
        start = time.perf_counter()
        call()
        call()
        while time.perf_counter() - start < warm_up:
            call()
    order, shuffler = list(candidates), random.Random(seed)
    kept = {name: Times() for name in candidates}
    least: tuple[float, dict[str, list[float]]] | None = None
    n_kept = n_dropped = 0
    deadline = time.perf_counter() + seconds
    while time.perf_counter() < deadline and len(kept[order[0]].seconds) < rounds:
        times: dict[str, list[float]] = {name: [] for name in candidates}
        load, start = ForeignLoad(), time.perf_counter()
        while time.perf_counter() - start < window:
            shuffler.shuffle(order)
            for name in order:
                time.sleep(pause)
                begin = time.perf_counter()
                candidates[name]()
                times[name].append(time.perf_counter() - begin)
        foreign = load.share()
        if foreign <= quiet:
            n_kept += 1
            for name, values in times.items():
                kept[name].seconds += values
        else:
            n_dropped += 1
            if least is None or foreign < least[0]:
                least = foreign, times
    if not n_kept and least is not None:
        kept = {name: Times(values) for name, values in least[1].items()}
    return Measurement(kept, n_kept, n_dropped)


class ForeignLoad:
    """The share of all processors that other processes have used since this was made."""

    def __init__(self) -> None:
        self._busy, self._own, self._start = _busy_seconds(), _own_seconds(), time.perf_counter()

    def share(self) -> float:
        """Between 0 and 1; 0 where the system doesn't say. Our children count as ours once they have finished."""
        elapsed = time.perf_counter() - self._start
        foreign = (_busy_seconds() - self._busy) - (_own_seconds() - self._own)
        return max(0.0, foreign) / (elapsed * (os.cpu_count() or 1))


def quantile(values: list[float], share: float) -> float:
    """The ``share`` quantile of ``values``, interpolated linearly."""
    ordered = sorted(values)
    position = share * (len(ordered) - 1)
    low = int(position)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (position - low) * (ordered[high] - ordered[low])


def median_ratio_interval(
    old: list[float], new: list[float], *, resamples: int = 1000, confidence: float = 0.95, seed: int = 0
) -> tuple[float, float]:
    """A bootstrap interval of median(new) / median(old), for two runs that weren't paired."""
    draw = random.Random(seed)
    ratios = [
        statistics.median(draw.choices(new, k=len(new))) / statistics.median(draw.choices(old, k=len(old)))
        for _ in range(resamples)
    ]
    tail = (1 - confidence) / 2
    return quantile(ratios, tail), quantile(ratios, 1 - tail)


def _busy_seconds() -> float:
    """Processor seconds used by everybody since the machine started; 0 where the system doesn't say."""
    try:
        with open("/proc/stat") as stat:
            fields = [int(value) for value in stat.readline().split()[1:9]]
    except OSError:
        return 0.0
    return (sum(fields) - fields[3] - fields[4]) / os.sysconf("SC_CLK_TCK")


def _own_seconds() -> float:
    """Processor seconds used by this process and its finished children."""
    used = os.times()
    return used.user + used.system + used.children_user + used.children_system
