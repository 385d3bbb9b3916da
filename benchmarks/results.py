"""Result files: JSON Lines, one environment line and one line per measurement.

What somebody tries goes to ``runs/benchmarks``, which isn't part of the repository. The results that are, and that the
tables are made of, are replaced only by whoever says ``--record``.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path
from typing import Any

from benchmarks.timing import RETAINING_MALLOC

SCHEMA = "minires.benchmark/1"
FOLDER = Path(__file__).parent / "results"
TRIED = Path(__file__).parents[1] / "runs" / "benchmarks"
GENERATED = ":(top,exclude)benchmarks/results", ":(top,exclude)README.md"


def environment(threads: int) -> dict[str, Any]:
    """The machine, the versions, the threads, the commit: what a number means nothing without."""
    root = Path(__file__).parent.parent

    def git(*words: str) -> str:
        done = subprocess.run(["git", *words], cwd=root, capture_output=True, text=True, check=False)
        return done.stdout.strip() if done.returncode == 0 else "unknown"

    def version(package: str) -> str | None:
        try:
            return metadata.version(package)
        except metadata.PackageNotFoundError:
            return None

    from minires_kernels.simd import kinds

    return {
        "schema": SCHEMA,
        "kind": "environment",
        "machine": {"cpu": _cpu_name(), "cores": os.cpu_count(), "system": platform.system(), "threads": threads},
        "register_bytes": kinds.REGISTER_BYTES,
        "python": platform.python_version(),
        "versions": {name: version(name) for name in ("numpy", "numba", "llvmlite", "torch", "cupy")},
        "commit": git("rev-parse", "--short", "HEAD"),
        # What is generated doesn't count: other results of the same run, and the tables made of them.
        "dirty": bool(git("status", "--porcelain", "--untracked-files=no", "--", ":/", *GENERATED)),
        "load_average": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
        "page_retaining_malloc": all(os.environ.get(name) == value for name, value in RETAINING_MALLOC.items()),
    }


def _cpu_name() -> str:
    try:
        with open("/proc/cpuinfo") as info:
            return next(line.split(":", 1)[1].strip() for line in info if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def add_record_option(parser: argparse.ArgumentParser) -> None:
    """``--record``, which :func:`write` obeys."""
    parser.add_argument(
        "--record", action="store_true", help="replace the repository's own results, not those in runs/benchmarks"
    )


def write(name: str, rows: Iterable[dict[str, Any]], threads: int, *, record: bool) -> Path:
    """Write ``<name>.jsonl``, in ``results`` or, unless ``record``, in ``runs/benchmarks``: environment, then ``rows``.

    Returns its path.
    """
    folder = FOLDER if record else TRIED
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.jsonl"
    unfinished = path.with_suffix(".unfinished")
    lines = [environment(threads), *({"kind": "measurement", "benchmark": name, **row} for row in rows)]
    unfinished.write_text("".join(json.dumps(line) + "\n" for line in lines))
    unfinished.replace(path)
    return path


def read(path: str | Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """(environment, measurements) of a result file. Raises ValueError when it isn't one, or of another schema."""
    try:
        lines = [json.loads(line) for line in Path(path).read_text().splitlines()]
    except json.JSONDecodeError as error:
        raise ValueError(f"{path}: not a result file ({error})") from error
    if not lines or lines[0].get("schema") != SCHEMA:
        raise ValueError(f"{path}: not a result file of schema {SCHEMA}")
    return lines[0], lines[1:]
