"""What is installed, what is missing, and the command that mends it: ``minires doctor``."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import import_module, metadata
from pathlib import Path

import numpy as np

from minires_kernels.arrays import cupy_cure

DRIVER_VERSION = Path("/proc/driver/nvidia/version")
THREAD_VARIABLES = ("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OMP_NUM_THREADS")


@dataclass(frozen=True)
class Finding:
    """One line: ``subject``, what was found, and, when something is missing, the command that mends it."""

    subject: str
    found: str
    cure: str = ""


def examine() -> Iterator[Finding]:
    """Each finding in turn; what is missing or doesn't work is a finding too, not an error."""
    yield Finding("Python", f"{platform.python_version()} on {platform.system()} {platform.machine()}")
    yield Finding("NumPy", f"{np.__version__}, {_blas()}")
    yield from _numba()
    for package, purpose in (("rich", "progress bars"), ("matplotlib", "plots"), ("safetensors", "checkpoints")):
        yield _package(package, purpose)
    yield from _gpu()


def _blas() -> str:
    try:
        dependencies = np.show_config(mode="dicts")["Build Dependencies"]
        blas = f"BLAS {dependencies['blas']['name']} {dependencies['blas']['version']}"
    except (KeyError, TypeError):
        blas = "BLAS unknown"
    limits = [f"{name}={os.environ[name]}" for name in THREAD_VARIABLES if os.environ.get(name)]
    return f"{blas}, threads: {limits[0] if limits else f'one for each of {os.cpu_count()} cores'}"


def _numba() -> Iterator[Finding]:
    try:
        numba = import_module("numba")
        kinds = import_module("minires_kernels.simd.kinds")
    except ImportError as missing:
        yield Finding("Numba", f"missing ({missing}); the CPU runs on NumPy, many times slower", "pip install numba")
        return
    yield Finding("Numba", f"{numba.__version__}, {numba.get_num_threads()} threads of {os.cpu_count()} cores")
    width = kinds.REGISTER_BYTES
    lanes = f"{max(1, width // 4)} float32 or {max(1, width // 8)} float64 lanes"
    yield Finding("vector width", f"{8 * width} bits: {lanes}")


def _package(package: str, purpose: str) -> Finding:
    try:
        return Finding(package, metadata.version(package))
    except metadata.PackageNotFoundError:
        return Finding(package, f"missing; it is for {purpose}", f"pip install {package}")


def _gpu() -> Iterator[Finding]:
    driver = _driver()
    if driver is None:
        cure = "only for a GPU; on Ubuntu: sudo ubuntu-drivers install, elsewhere: https://www.nvidia.com/drivers"
        yield Finding("NVIDIA driver", "none found", cure)
    else:
        yield Finding("NVIDIA driver", driver)
    wheels = sorted({name for each in metadata.distributions() if (name := each.name.lower()).startswith("cupy")})
    if len(wheels) > 1:
        cure = f"pip uninstall {' '.join(wheels)}, then install one of them again"
        yield Finding("CuPy", f"{len(wheels)} wheels at once, which overwrite each other: {', '.join(wheels)}", cure)
    try:
        cupy = import_module("cupy")
    except Exception as failure:  # whatever the libraries that it loads raise
        what = "missing" if isinstance(failure, ModuleNotFoundError) else "can't be loaded"
        yield Finding("CuPy", f"{what} ({failure})", f"only for a GPU; {cupy_cure(failure)}")
        return
    yield Finding("CuPy", cupy.__version__)
    runtime = cupy.cuda.runtime
    try:
        for device in range(runtime.getDeviceCount()):
            known = runtime.getDeviceProperties(device)
            size = f"{known['totalGlobalMem'] / 2**30:.0f} GiB"
            yield Finding("GPU", f"{known['name'].decode()}, compute {known['major']}.{known['minor']}, {size}")
    except runtime.CUDARuntimeError as error:
        yield Finding("GPU", f"none usable ({error})", "nvidia-smi  (says what is wrong with the driver or the GPU)")


def _driver() -> str | None:
    try:
        with DRIVER_VERSION.open() as file:
            return file.readline().strip()
    except OSError:
        return None
