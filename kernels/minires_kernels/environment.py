"""What kernels are given to run in: settings that make no sense, and libraries that can't be loaded.

None of it may end in a crash or in a wrong result: it costs speed, and is said once, with its cause and its cure.
This module needs NumPy alone. What only Numba itself can tell is in ``jit``.
"""

from __future__ import annotations

import os
import sys
import traceback
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

from minires_kernels.arrays import cupy_cure

NUM_THREADS = "NUMBA_NUM_THREADS"
CPU_FEATURES = "NUMBA_CPU_FEATURES"

MOST_PER_CORE = 16
"""Threads for each core above which a number of threads is taken for a mistake."""

_NOBODY = {*sys.stdlib_module_names, "__main__", ""}  # whose frames in a traceback say nothing of who is at fault
_causes: set[str] = set()


def warn_once(cause: str, consequence: str) -> None:
    """A RuntimeWarning "cause: consequence", unless this process has been warned of that cause."""
    if cause not in _causes:
        _causes.add(cause)
        warnings.warn(f"{cause}: {consequence}", RuntimeWarning, stacklevel=3)


def cores() -> int:
    """How many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


WAITING = "OMP_WAIT_POLICY", "GOMP_SPINCOUNT"
"""Settings by which users say how threads wait, of OpenMP; ours keep to them too."""


def patience(usual: int) -> int:
    """How often a thread that waits looks for work before it sleeps: ``usual``, unless the user says otherwise.

    ``OMP_WAIT_POLICY``: "passive" is never, "active" some thousand times as long. ``GOMP_SPINCOUNT`` is the number.
    """
    policy, count = (os.environ.get(name, "").strip().lower() for name in WAITING)
    if count in ("infinite", "infinity"):
        return sys.maxsize
    if count.isdecimal():
        return min(int(count), sys.maxsize)
    return {"passive": 0, "active": 1000 * usual}.get(policy, usual)


BRIEFLY = {"GOMP_SPINCOUNT": "1000", "KMP_BLOCKTIME": "0"}
"""For GNU's OpenMP and for LLVM's or Intel's: how long threads of a prange wait for the next one before they sleep."""


@contextmanager
def waiting_briefly() -> Iterator[None]:
    """Within the block a library of OpenMP that is loaded finds :data:`BRIEFLY`; afterwards, and children, don't.

    It isn't asked again. Threads that wait for milliseconds, as is usual, keep the cores from other processes. What the
    user has set stays.
    """
    if any(os.environ.get(name) for name in (*WAITING, *BRIEFLY)):
        yield
        return
    os.environ.update(BRIEFLY)
    try:
        yield
    finally:
        for name in BRIEFLY:
            os.environ.pop(name, None)


@cache
def prepare() -> None:
    """Take out of the environment what Numba or LLVM would stumble over. Call it before Numba is imported.

    Numba reads its settings when it is imported. It refuses to be imported with 0 threads, and LLVM ends the process
    at a processor feature without its sign.
    """
    if "numba" not in sys.modules:
        _prepare_threads()
    _prepare_features()


def _prepare_threads() -> None:
    given = os.environ.get(NUM_THREADS)
    if given is None:
        return
    most = MOST_PER_CORE * cores()
    try:
        problem = "" if 1 <= int(given) <= most else f"is not between 1 and {most}"
    except ValueError:
        problem = "is not a whole number"
    if problem:
        del os.environ[NUM_THREADS]
        warn_once(
            f"{NUM_THREADS}={given!r} {problem}",
            f"it is ignored, and kernels run on {cores()} threads, one for each core; "
            f"set it to a number from 1 to {cores()}, or unset it",
        )


def _prepare_features() -> None:
    given = os.environ.get(CPU_FEATURES)
    if not given:
        return
    items = [item.strip() for item in given.split(",")]
    present = _host_features()
    kept = [item for item in items if item[:1] == "-" or (item[:1] == "+" and present.get(item[1:], False))]
    refused = ", ".join(repr(item) for item in items if item not in kept)
    if not refused:
        return
    if kept:
        os.environ[CPU_FEATURES] = ",".join(kept)
    else:
        del os.environ[CPU_FEATURES]
    if "numba" in sys.modules:
        sys.modules["numba"].config.reload_config()
    warn_once(
        f"{CPU_FEATURES} names what this processor doesn't have, or names it without + or -: {refused}",
        "that is ignored; unset it to use all that the processor has",
    )


def _host_features() -> dict[str, bool]:
    try:
        import llvmlite.binding as llvm

        return dict(llvm.get_host_cpu_features())
    except (ImportError, OSError, RuntimeError):  # then Numba doesn't compile either, or not for this processor
        return {}


# --- libraries that can't be loaded -----------------------------------------------------------------------------------


def package_at_fault(failure: BaseException) -> str:
    """The package that an import failed on: the one that is missing, or the one whose own modules didn't load.

    A kernel that calls Numba while it is imported, with a mistake in it, is itself at fault, although Numba raises.
    """
    if isinstance(failure, ImportError) and failure.name:
        return failure.name.partition(".")[0]
    frames = [frame for frame, _ in traceback.walk_tb(failure.__traceback__) if frame.f_code.co_name == "<module>"]
    packages = [str(frame.f_globals.get("__name__", "")).partition(".")[0] for frame in frames]
    return next((name for name in reversed(packages) if name not in _NOBODY), "")


def cure(failure: BaseException) -> str:
    """What to do about an import that failed: a command, if there is one; empty if the message itself says it."""
    package = package_at_fault(failure)
    if package == "cupy":
        return cupy_cure(failure)
    if isinstance(failure, ModuleNotFoundError):
        return f"pip install {package}"
    if package in ("numba", "llvmlite"):  # they fit each other in pairs
        return "pip install --upgrade --force-reinstall numba"
    return ""


def warn_unusable(implementation: str, failure: BaseException, device: str) -> None:
    """Warn once for each ``failure`` that ``implementation`` can't be used because of it, and slower ones are.

    Arrays on the CPU need no library for GPUs: that one is missing is no news.
    """
    if device == "cpu" and package_at_fault(failure) == "cupy":
        return
    remedy = cure(failure)
    warn_once(
        f"{type(failure).__name__}: {failure}",
        f"{implementation}, and whatever else needs this, can't be used, and slower kernels compute instead"
        + (f"; {remedy}" if remedy else ""),
    )
