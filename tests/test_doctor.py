"""The doctor says what is there, and for whatever is missing the command that mends it."""

import os
import sys
from importlib import metadata
from types import SimpleNamespace

import numpy as np
import pytest

from minires import doctor


def findings(subject):
    return [finding for finding in doctor.examine() if finding.subject == subject]


def hide(monkeypatch, *packages):
    """These packages can't be imported, as if they weren't installed."""
    for package in packages:
        for name in [name for name in sys.modules if name.partition(".")[0] == package]:
            monkeypatch.delitem(sys.modules, name)
        monkeypatch.setitem(sys.modules, package, None)


def test_python_and_numpy_are_described_with_blas_and_its_threads(monkeypatch):
    for variable in doctor.THREAD_VARIABLES:
        monkeypatch.delenv(variable, raising=False)
    (numpy,) = findings("NumPy")
    assert np.__version__ in numpy.found
    assert "BLAS" in numpy.found
    assert f"one for each of {os.cpu_count()} cores" in numpy.found
    assert not numpy.cure
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert "OMP_NUM_THREADS=3" in findings("NumPy")[0].found
    assert sys.version.split()[0] in findings("Python")[0].found


def test_numba_comes_with_its_threads_and_the_vector_width(monkeypatch):
    pytest.importorskip("numba", reason="describes Numba")
    from minires_kernels.simd import kinds

    assert "threads" in findings("Numba")[0].found
    monkeypatch.setattr(kinds, "REGISTER_BYTES", 32)
    assert findings("vector width")[0].found == "256 bits: 8 float32 or 4 float64 lanes"


def test_a_missing_numba_is_said_with_its_command(monkeypatch):
    hide(monkeypatch, "numba")
    (numba,) = findings("Numba")
    assert "missing" in numba.found
    assert numba.cure == "pip install numba"
    assert findings("vector width") == []


@pytest.mark.parametrize("package", ["rich", "matplotlib", "safetensors"])
def test_a_missing_package_is_said_with_its_command(package, monkeypatch):
    real = metadata.version

    def version(name):
        if name == package:
            raise metadata.PackageNotFoundError(name)
        return real(name)

    monkeypatch.setattr(metadata, "version", version)
    (finding,) = findings(package)
    assert "missing" in finding.found
    assert finding.cure == f"pip install {package}"


def test_a_missing_cupy_is_said_with_its_commands(monkeypatch):
    hide(monkeypatch, "cupy")
    (cupy,) = findings("CuPy")
    assert "missing" in cupy.found
    assert "pip install -e '.[cuda12x]' (CUDA 12) or '.[cuda13x]' (CUDA 13)" in cupy.cure
    assert findings("GPU") == []


def test_a_cupy_that_cannot_be_loaded_is_not_called_missing(monkeypatch):
    def load(name):
        raise ImportError("libcuda.so.1: cannot open shared object file")

    monkeypatch.setattr("minires.doctor.import_module", load)
    (cupy,) = findings("CuPy")
    assert cupy.found == "can't be loaded (libcuda.so.1: cannot open shared object file)"
    assert "`nvidia-smi`" in cupy.cure
    assert "pip install" not in cupy.cure


def fake_cupy(monkeypatch, device_count):
    class CUDARuntimeError(RuntimeError):
        pass

    def count():
        if device_count is None:
            raise CUDARuntimeError("cudaErrorInsufficientDriver")
        return device_count

    def properties(device):
        return {"name": f"Card {device}".encode(), "major": 9, "minor": 0, "totalGlobalMem": 80 * 2**30}

    runtime = SimpleNamespace(
        CUDARuntimeError=CUDARuntimeError, getDeviceCount=count, getDeviceProperties=properties
    )  # fmt: skip
    cupy = SimpleNamespace(__version__="14.0.1", cuda=SimpleNamespace(runtime=runtime))
    monkeypatch.setitem(sys.modules, "cupy", cupy)


def test_each_gpu_is_described(monkeypatch):
    fake_cupy(monkeypatch, 2)
    assert [finding.found for finding in findings("CuPy")] == ["14.0.1"]
    assert [finding.found for finding in findings("GPU")] == [
        "Card 0, compute 9.0, 80 GiB",
        "Card 1, compute 9.0, 80 GiB",
    ]


def test_a_gpu_that_doesnt_work_is_said(monkeypatch):
    fake_cupy(monkeypatch, None)
    (gpu,) = findings("GPU")
    assert "none usable (cudaErrorInsufficientDriver)" in gpu.found
    assert gpu.cure.startswith("nvidia-smi")


def test_two_cupy_wheels_at_once_are_said(monkeypatch):
    wheels = [SimpleNamespace(name=name) for name in ("cupy-cuda13x", "numpy", "cupy-cuda12x")]
    monkeypatch.setattr(metadata, "distributions", lambda: wheels)
    clash = findings("CuPy")[0]
    assert "2 wheels at once" in clash.found
    assert clash.cure.startswith("pip uninstall cupy-cuda12x cupy-cuda13x")


def test_the_driver_is_read_from_where_linux_shows_it(monkeypatch, tmp_path):
    monkeypatch.setattr(doctor, "DRIVER_VERSION", tmp_path / "version")
    (missing,) = findings("NVIDIA driver")
    assert missing.found == "none found"
    assert "only for a GPU" in missing.cure
    (tmp_path / "version").write_text("NVRM version: 570.1\nGCC version: 12\n")
    (found,) = findings("NVIDIA driver")
    assert (found.found, found.cure) == ("NVRM version: 570.1", "")


def test_unknown_blas_is_no_error(monkeypatch):
    monkeypatch.setattr(np, "show_config", lambda mode: {})
    assert "BLAS unknown" in findings("NumPy")[0].found


def test_nothing_is_printed_by_the_examination(capsys):
    list(doctor.examine())
    assert capsys.readouterr() == ("", "")
