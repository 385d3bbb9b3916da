"""``python -m benchmarks.kernels [FAMILY ...]``: every implementation that the registry lists, against each other.

For each case: all available implementations that cover it, and PyTorch (channels-last) where it is installed and has
the operation, on fresh inputs from a small pool. Each is checked against the reference in float64 before timing and
after, with freed memory full of NaN, so that an output that isn't written shows. Then the times, the speed by the
contract's count of operations and bytes, the share of the measured roofline, and the error.
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Callable, Iterator
from typing import Any

import numba
import numpy as np

from benchmarks import roofline
from benchmarks.cases import CASES, Case
from benchmarks.results import write
from benchmarks.timing import Times, alternate, retain_pages
from minires_kernels import available, load

POOL = 3
"""Sets of inputs that the calls go through in turn: caches see changing addresses, as in a training step."""
PEER = "torch channels-last"


def main() -> None:
    """Parse, measure, print, write ``results/kernels.jsonl``."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("families", nargs="*", metavar="FAMILY", help=f"any of {', '.join(CASES)}; default: all")
    parser.add_argument("--threads", type=int, default=numba.config.NUMBA_DEFAULT_NUM_THREADS)
    parser.add_argument("--rounds", type=int, default=25)
    parser.add_argument("--seconds", type=float, default=10.0, help="time limit of a case")
    parser.add_argument("--match", default="", help="only cases whose name contains this")
    options = parser.parse_args()
    for family in options.families:
        if family not in CASES:
            parser.error(f"there is no benchmark of family {family!r}; there are: {', '.join(CASES)}")
    retain_pages()
    numba.set_num_threads(options.threads)
    torch = _torch(options.threads)
    peaks = roofline.measure(options.threads)
    print(
        f"measured peaks: {peaks.operations / 1e9:.0f} GFLOP/s, {peaks.bytes / 1e9:.1f} GB/s; {options.threads} threads"
    )
    rows = []
    for family in options.families or CASES:
        for case in CASES[family]():
            if options.match in f"{case.kernel} {case.name}":
                for row in measure(case, torch, peaks, rounds=options.rounds, seconds=options.seconds):
                    print(line(row))
                    rows.append(row)
    print(write("kernels", rows, options.threads))


def measure(
    case: Case, torch: Any, peaks: roofline.Roofline, *, rounds: int, seconds: float
) -> Iterator[dict[str, Any]]:
    """The result rows of one case, one for each candidate; a candidate that computes nonsense raises RuntimeError."""
    rng = np.random.default_rng(0)
    pool = [case.inputs(rng) for _ in range(POOL)]
    expected = _reference(case, pool[0])
    candidates: dict[str, Callable[[], Any]] = {}
    firsts: dict[str, Callable[[], Any]] = {}
    for name in available(case.family, "cpu"):
        module = load(case.family, name)
        covers = getattr(module, "covers", None)
        if covers is None or covers(case.kernel, *pool[0]):
            kernel = getattr(module, case.kernel)
            calls = itertools.cycle(pool)
            candidates[name] = lambda kernel=kernel, calls=calls: kernel(*next(calls))
            firsts[name] = lambda kernel=kernel: _written(case, kernel, pool[0])
    if torch is not None and case.peer is not None:
        peers = [case.peer(torch, *arguments) for arguments in pool]
        turns = itertools.cycle(peers)
        candidates[PEER] = lambda: next(turns)()
        firsts[PEER] = peers[0]
    errors = {name: _checked(case, name, call, expected) for name, call in firsts.items()}
    slow = candidates.pop("reference") if len(candidates) > 1 else None  # the specification would only use up the time
    measured = alternate(candidates, rounds=rounds, seconds=seconds)
    if slow is not None:
        measured.times["reference"] = alternate({"reference": slow}, rounds=3, seconds=1.0, warm_up=0.0).times[
            "reference"
        ]
    for name, call in firsts.items():
        errors[name] = max(errors[name], _checked(case, name, call, expected))
    operations, moved = case.cost
    for name, times in measured.times.items():
        yield {
            "case": f"{case.family}.{case.kernel} {case.name}",
            "candidate": name,
            **times.summary(),
            "gflops": operations / times.median / 1e9,
            "gbytes": moved / times.median / 1e9,
            "share": _share(case, name, peaks, times),
            "error": errors[name],
            "versus_peer": times.ratio(measured.times[PEER]) if PEER in candidates and name in candidates else None,
            "windows": [measured.kept, measured.dropped],
            "peaks": [peaks.operations / 1e9, peaks.bytes / 1e9],
        }


def _share(case: Case, name: str, peaks: roofline.Roofline, times: Times) -> float:
    operations, moved = case.cost
    if name in available(case.family, "cpu"):  # an algorithm that does fewer multiplications says what fraction
        operations = int(operations * getattr(load(case.family, name), "OPERATIONS_FRACTION", 1.0))
    # Data that fits into the last-level cache isn't bound by memory; only what exceeds it counts against bandwidth.
    beyond_cache = moved if moved > 64_000_000 else 0
    return peaks.share(operations, beyond_cache, min(times.seconds), f"{case.kernel} {case.name} {name}")


def _reference(case: Case, arguments: tuple[Any, ...]) -> list[np.ndarray[Any, Any]]:
    """The specification's result in float64."""
    wide = [a.astype(np.float64) if isinstance(a, np.ndarray) and a.dtype == np.float32 else a for a in arguments]
    return _arrays(_written(case, getattr(load(case.family, "reference"), case.kernel), tuple(wide)))


def _written(case: Case, kernel: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
    """What the call returns, or, for a kernel that writes its arguments, what it wrote, on copies."""
    if case.family != "update":
        return kernel(*arguments)
    parameter, grad, velocity, *rest = arguments
    parameter, velocity = parameter.copy(), velocity.copy()
    kernel(parameter, grad, velocity, *rest)
    return parameter, velocity


def _arrays(result: Any) -> list[np.ndarray[Any, Any]]:
    parts = result if isinstance(result, (tuple, list)) else (result,)
    return [np.asarray(part) for part in parts if part is not None]


def _checked(case: Case, name: str, call: Callable[[], Any], expected: list[np.ndarray[Any, Any]]) -> float:
    """The largest error relative to the largest number expected. Raises RuntimeError above 1e-3, and for NaN."""
    for array in expected:  # leave NaN in the memory that the outputs will probably get
        del_me = np.full(array.shape, np.nan, np.float32)
        del del_me
    errors = [
        np.abs(found - wanted).max() / max(np.abs(wanted).max(), 1e-30)
        for found, wanted in zip(_arrays(call()), expected, strict=True)
    ]
    error = float(np.max(errors))  # not max(): Python's lets a NaN pass
    if not error < 1e-3:
        raise RuntimeError(f"{case.family}.{case.kernel} {case.name}: {name} is wrong by {error:.1e}; nothing timed")
    return error


def line(row: dict[str, Any]) -> str:
    """One row of the printed table."""
    versus = f"{row['versus_peer']:6.2f}x" if row["versus_peer"] else "       "
    return (
        f"{row['case']:62} {row['candidate']:20} {row['median_s'] * 1e3:9.3f} ms ±{row['iqr']:4.0%} "
        f"{row['gflops']:7.1f} GFLOP/s {row['gbytes']:6.1f} GB/s {row['share']:4.0%} {versus}  error {row['error']:.0e}"
    )


def _torch(threads: int) -> Any:
    """PyTorch, set to the same number of threads, or None where it isn't installed."""
    try:
        import torch
    except ImportError:
        return None
    torch.set_num_threads(threads)
    return torch


if __name__ == "__main__":
    main()
