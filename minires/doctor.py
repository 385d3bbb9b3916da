"""What is installed, what is missing, and the command that mends it: ``minires doctor``."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import import_module, metadata

import numpy as np


@dataclass(frozen=True)
class Finding:
    """One line: ``subject``, what was found, and, when something is missing, the command that mends it."""

    subject: str
    found: str
    cure: str = ""


def examine() -> Iterator[Finding]:
    """Each finding in turn. It never raises: what can't be examined is a finding."""
    yield Finding("Python", f"{platform.python_version()} on {platform.system()} {platform.machine()}")
    yield Finding("NumPy", f"{np.__version__}, {_blas()}")
    yield from _numba()
    for package, purpose in (("rich", "progress bars"), ("matplotlib", "plots"), ("safetensors", "checkpoints")):
        yield _package(package, purpose)
    yield from _cupy()


def _blas() -> str:
    try:
        dependencies = np.show_config(mode="dicts")["Build Dependencies"]
        blas = f"BLAS {dependencies['blas']['name']} {dependencies['blas']['version']}"
    except (KeyError, TypeError):
        blas = "BLAS unknown"
    threads = next((os.environ[name] for name in _THREAD_VARIABLES if os.environ.get(name)), str(os.cpu_count()))
    return f"{blas}, {threads} threads"


_THREAD_VARIABLES = ("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OMP_NUM_THREADS")


def _numba() -> Iterator[Finding]:
    try:
        numba = import_module("numba")
        kinds = import_module("minires_kernels.simd.kinds")
    except ImportError as missing:
        yield Finding("Numba", f"missing ({missing}); the CPU runs on NumPy, many times slower", "pip install numba")
        return
    yield Finding("Numba", f"{numba.__version__}, {numba.get_num_threads()} threads of {os.cpu_count()} cores")
    width = kinds.REGISTER_BYTES
    yield Finding(
        "vector width", f"{8 * width} bits: {max(1, width // 4)} float32 or {max(1, width // 8)} float64 lanes"
    )


def _package(package: str, purpose: str) -> Finding:
    try:
        return Finding(package, metadata.version(package))
    except metadata.PackageNotFoundError:
        return Finding(package, f"missing; it is for {purpose}", f"pip install {package}")


def _cupy() -> Iterator[Finding]:
    driver = _driver()
    yield Finding(
        "NVIDIA driver", driver or "none found", "" if driver else "needed only for a GPU: install NVIDIA's driver"
    )
    try:
        cupy = import_module("cupy")
    except ImportError:
        cure = "pip install -e '.[cuda12x]' (CUDA 12) or '.[cuda13x]' (CUDA 13)"
        yield Finding("CuPy", "missing; it is for GPUs", cure)
        return
    try:
        count = cupy.cuda.runtime.getDeviceCount()
        names = [cupy.cuda.runtime.getDeviceProperties(i)["name"].decode() for i in range(count)]
        yield Finding("CuPy", cupy.__version__)
        yield Finding("GPU", ", ".join(names))
    except cupy.cuda.runtime.CUDARuntimeError as error:
        yield Finding("GPU", f"none usable ({error})", "check the driver with nvidia-smi")


def _driver() -> str | None:
    try:
        with open("/proc/driver/nvidia/version") as file:
            return file.readline().strip()
    except OSError:
        return None
