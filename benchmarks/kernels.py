"""``python -m benchmarks.kernels [FAMILY ...]``: every implementation that the registry lists, against each other.

For each case: all available implementations that cover it, and PyTorch (channels-last) where it is installed and has
the operation, on fresh inputs from a small pool. Each is checked against the reference in float64 before timing and
after, and the memory of its last result is filled with NaN before that, so that an output that isn't written shows.
Then the times, the speed by the contract's count of operations and bytes, the share of the measured roofline, and the
error. A star marks the implementation that the contract takes by itself: what a user gets. A candidate that computes
nonsense, or is faster than the machine can be, fails its case: the others go on, and the program ends with 1.
"""

from __future__ import annotations

import argparse
import importlib
import inspect
import itertools
import sys
from collections.abc import Callable, Iterator
from typing import Any

import numba
import numpy as np

from benchmarks import pytorch, roofline
from benchmarks.cases import CASES, Case
from benchmarks.results import add_record_option, write
from benchmarks.timing import Times, alternate, retain_pages
from minires_kernels import available, implementations, load
from minires_kernels.differences import difference
from minires_kernels.registry import lacking

POOL = 3
"""Sets of inputs that the calls go through in turn: caches see changing addresses, as in a training step."""
PEER = "torch channels-last"
LIMIT = 1e-3
"""What is farther from float64, relative to the largest element expected, is wrong, not rounded."""
ALONE = ("reference", "im2col")
"""NumPy's BLAS leaves threads behind that spin for some 25 ms after each product, where the next candidate wants to run
(measured: everybody else becomes three times slower): who uses it is timed by itself, when the others are done."""


def main() -> None:
    """Parse, measure, print, write ``kernels.jsonl``."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("families", nargs="*", metavar="FAMILY", help=f"any of {', '.join(CASES)}; default: all")
    parser.add_argument("--threads", type=int, default=numba.config.NUMBA_NUM_THREADS)
    parser.add_argument("--rounds", type=int, default=25)
    parser.add_argument("--seconds", type=float, default=10.0, help="time limit of a case")
    parser.add_argument("--match", default="", help="only cases whose name contains this")
    add_record_option(parser)
    options = parser.parse_args()
    for family in options.families:
        if family not in CASES:
            parser.error(f"there is no benchmark of family {family!r}; there are: {', '.join(CASES)}")
    if options.record and (options.families or options.match):
        parser.error("--record replaces the results of all kernels: leave out --match and the families")
    retain_pages()
    numba.set_num_threads(options.threads)
    torch = pytorch.find(options.threads)
    peaks = roofline.measure(options.threads)
    print(
        f"measured peaks: {peaks.operations / 1e9:.0f} GFLOP/s, {peaks.bytes / 1e9:.1f} GB/s; {options.threads} threads"
    )
    for family in options.families or CASES:
        print(*left_out(family), sep="", end="")
    rows, failures = [], []
    for case in (case for family in options.families or CASES for case in CASES[family]()):
        if options.match not in f"{case.kernel} {case.name}":
            continue
        limits = {"rounds": options.rounds, "seconds": options.seconds}
        try:
            try:
                found = list(measure(case, torch, peaks, **limits))
            except roofline.ExceededError:
                peaks = peaks.joined(roofline.measure(options.threads))
                found = list(measure(case, torch, peaks, **limits))
        except RuntimeError as failure:
            print(f"FAILED: {failure}")
            failures.append(failure)
            continue
        print(*map(line, found), sep="\n")
        rows += found
    if options.record and failures:
        sys.exit("nothing recorded: the results of the cases that failed would be lost")
    print(write("kernels", rows, options.threads, record=options.record))
    sys.exit(bool(failures))


def left_out(family: str) -> Iterator[str]:
    """A line for each implementation that isn't measured, with the reason."""
    for name in implementations(family):
        try:
            device = getattr(load(family, name), "DEVICE", "cpu")
        except ImportError as error:
            yield f"not measured: {error}\n"
            continue
        if device not in ("cpu", "any"):
            yield f"not measured: {family}/{name} is for {device!r}; times are taken on the CPU\n"


def measure(
    case: Case, torch: Any, peaks: roofline.Roofline, *, rounds: int, seconds: float
) -> Iterator[dict[str, Any]]:
    """The result rows of one case, one for each candidate; a candidate that computes nonsense raises RuntimeError."""
    rng = np.random.default_rng(0)
    pool = [case.inputs(rng) for _ in range(POOL)]
    # Apart from the pool: a kernel that writes its arguments leaves others there than the check before timing saw.
    checked = tuple(a.copy(order="K") if isinstance(a, np.ndarray) else a for a in pool[0])
    expected = _reference(case, checked)
    candidates: dict[str, Callable[[], Any]] = {}
    firsts: dict[str, Callable[[], Any]] = {}
    for name in available(case.family, "cpu"):
        module = load(case.family, name)
        covers = getattr(module, "covers", None)
        if case.kernel not in lacking(case.family, name) and (covers is None or covers(case.kernel, *pool[0])):
            kernel = getattr(module, case.kernel)
            calls = itertools.cycle(pool)
            candidates[name] = lambda kernel=kernel, calls=calls: kernel(*next(calls))
            firsts[name] = lambda kernel=kernel: _written(case, kernel, checked)
    if torch is not None and case.peer is not None:
        peers = [case.peer(torch, *arguments) for arguments in pool]
        turns = itertools.cycle(peers)
        candidates[PEER] = lambda: next(turns)()
        firsts[PEER] = peers[0]
    errors = {name: _checked(case, name, call, expected, checked) for name, call in firsts.items()}
    by_itself = {name: candidates.pop(name) for name in ALONE if name in candidates and len(candidates) > 1}
    measured = alternate(candidates, rounds=rounds, seconds=seconds)
    for name, call in by_itself.items():
        measured.times |= alternate({name: call}, rounds=5, seconds=1.0, warm_up=0.0).times
    for name, call in firsts.items():
        errors[name] = max(errors[name], _checked(case, name, call, expected, checked))
    chosen = default(case, pool[0])
    operations, moved = case.cost
    for name, times in measured.times.items():
        yield {
            "case": f"{case.family}.{case.kernel} {case.name}",
            "candidate": name,
            "default": name == chosen,
            **times.summary(),
            "gflops": operations / times.median / 1e9,
            "gbytes": moved / times.median / 1e9,
            "share": _share(case, name, peaks, times),
            "error": errors[name],
            "versus_peer": times.ratio(measured.times[PEER]) if PEER in candidates and name in candidates else None,
            "windows": [measured.kept, measured.dropped],
            "peaks": [peaks.operations / 1e9, peaks.bytes / 1e9],
        }


def default(case: Case, arguments: tuple[Any, ...]) -> str:
    """The implementation that the family's contract takes for this call when nobody says which."""
    contract: Any = importlib.import_module(f"minires_kernels.{case.family}")
    select, taken = contract.select, []

    def watched(*arguments: Any, **options: Any) -> Callable[..., Any]:
        taken.append(select(*arguments, **options))
        return taken[-1]  # type: ignore[no-any-return]

    contract.select = watched
    try:
        _written(case, getattr(contract, case.kernel), arguments)
    finally:
        contract.select = select
    kernel = inspect.unwrap(taken[0])
    return next(
        name for name in available(case.family, "cpu") if getattr(load(case.family, name), case.kernel, None) is kernel
    )


def _share(case: Case, name: str, peaks: roofline.Roofline, times: Times) -> float:
    operations, moved = case.cost
    # Data that stays in the last-level cache, even in part from one pass to the next, isn't bound by memory: only what
    # exceeds the largest such caches counts against bandwidth.
    beyond_cache = moved if moved > 128_000_000 else 0
    performed = case.products.get(name, 1.0) * operations
    return peaks.share(performed, beyond_cache, min(times.seconds), f"{case.kernel} {case.name} {name}")


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


def _checked(
    case: Case,
    name: str,
    call: Callable[[], Any],
    expected: list[np.ndarray[Any, Any]],
    arguments: tuple[Any, ...] = (),
) -> float:
    """The largest error relative to the largest number expected.

    Raises RuntimeError above ``LIMIT``, for NaN, for other shapes, and when the call itself raises.

    The result of a first call is filled with NaN and given up, so that the second one probably gets its memory, be it
    from malloc or from a store of our own; but what belongs to ``arguments`` (a gradient handed on as it came) stays.
    """
    given = [argument for argument in arguments if isinstance(argument, np.ndarray)]
    subject = f"{case.family}.{case.kernel} {case.name}: {name}"
    try:
        first = _arrays(call())
    except Exception as error:
        raise RuntimeError(f"{subject} raises {type(error).__name__}: {error}") from error
    while first:
        array = first.pop()
        if array.dtype.kind == "f" and not any(np.may_share_memory(array, other) for other in given):
            array.fill(np.nan)
        del array
    found, scales = _arrays(call()), [max(np.abs(wanted).max(), 1e-30) for wanted in expected]
    each = zip(found, expected, scales, strict=True)
    errors = [np.abs(a - b).max() / scale if a.shape == b.shape else np.inf for a, b, scale in each]
    error = float(np.max(errors))  # not max(): Python's lets a NaN pass
    if not error < LIMIT:
        names = importlib.import_module(f"minires_kernels.{case.family}").KERNELS[case.kernel]
        named = zip(found, expected, scales, names[: len(found)], strict=True)
        where = [text for a, b, scale, results in named if (text := difference(a, b, LIMIT * scale, results))]
        raise RuntimeError(f"{subject} is wrong by {error:.1e}; nothing timed; {'; '.join(where)}")
    return error


def line(row: dict[str, Any]) -> str:
    """One row of the printed table."""
    versus = f"{row['versus_peer']:6.2f}x" if row["versus_peer"] else "       "
    candidate = row["candidate"] + "*" * row["default"]
    return (
        f"{row['case']:62} {candidate:20} {row['median_s'] * 1e3:9.3f} ms ±{row['iqr']:4.0%} "
        f"{row['gflops']:7.1f} GFLOP/s {row['gbytes']:6.1f} GB/s {row['share']:4.0%} {versus}  error {row['error']:.0e}"
    )


if __name__ == "__main__":
    main()
