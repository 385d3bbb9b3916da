"""arrays: whose an array is, where it lies, how its elements are laid out. CuPy is played by a stand-in."""

import sys
import types

import numpy as np
import pytest

from minires_kernels.arrays import (
    array_module,
    channels_last,
    device_of,
    is_channels_last,
    to_cpu,
    to_gpu,
    total,
)


class FakeCupyArray:
    def __init__(self, values):
        self.values = values


@pytest.fixture
def cupy(monkeypatch):
    module = types.ModuleType("cupy")
    module.ndarray = FakeCupyArray
    module.asarray = FakeCupyArray
    module.asnumpy = lambda x: x.values
    module.cuda = types.SimpleNamespace(runtime=types.SimpleNamespace(getDeviceCount=lambda: 1))
    monkeypatch.setitem(sys.modules, "cupy", module)
    return module


def test_numpy_arrays_and_scalars_are_numpys_and_lie_on_the_cpu():
    for x in (np.zeros((2, 3)), np.float32(1), np.zeros(())):
        assert array_module(x) is np
        assert device_of(x) == "cpu"


def test_cupy_arrays_are_cupys_and_lie_on_the_gpu(cupy):
    x = FakeCupyArray(None)
    assert array_module(x) is cupy
    assert device_of(x) == "cuda"
    assert array_module(np.zeros(1)) is np


@pytest.mark.parametrize("value", [[1.0], 3.0, None, FakeCupyArray(None)])
def test_anything_else_is_refused_with_the_cure(value):
    with pytest.raises(TypeError, match=rf"got {type(value).__name__}; wrap it in numpy.asarray"):
        array_module(value)


def test_to_cpu_returns_numpy_arrays_themselves_and_copies_the_others(cupy):
    x = np.arange(3)
    assert to_cpu(x) is x
    assert to_cpu(FakeCupyArray(x)) is x
    assert to_gpu(x).values is x


def test_to_gpu_says_how_to_install_cupy(monkeypatch):
    monkeypatch.setitem(sys.modules, "cupy", None)  # what Python leaves there for a module that can't be imported
    with pytest.raises(ImportError, match=r"pip install -e '\.\[cuda12x\]' .* or '\.\[cuda13x\]'"):
        to_gpu(np.zeros(1))


def test_channels_last_changes_strides_and_nothing_else(rng):
    x = rng.normal(size=(2, 3, 4, 5)).astype(np.float32)
    y = channels_last(x)
    assert is_channels_last(y)
    assert not is_channels_last(x)
    assert y.strides == (4 * 5 * 3 * 4, 4, 5 * 3 * 4, 3 * 4)
    assert y.dtype == x.dtype
    np.testing.assert_array_equal(x, y)


def test_channels_last_copies_only_what_is_not():
    x = np.empty((2, 4, 5, 3), np.float32).transpose(0, 3, 1, 2)
    assert channels_last(x) is x
    assert not np.shares_memory(channels_last(x[:, :2]), x)


@pytest.mark.parametrize("keepdims", [False, True])
@pytest.mark.parametrize("axis", [None, 0, 1, -1, (0, 2), (-1, 1), (0, 1, 2), ()], ids=str)
@pytest.mark.parametrize("dtype", ["float32", "float64", "int64", "bool"])
def test_total_is_the_sum_in_the_same_dtype(axis, keepdims, dtype):
    x = np.random.default_rng(0).integers(0, 3, (20, 30, 40)).astype(dtype)
    for layout in (x, np.asfortranarray(x), x[::-1, ::2]):
        result, expected = total(layout, axis, keepdims), layout.sum(axis, keepdims=keepdims)
        assert result.dtype == expected.dtype
        np.testing.assert_array_equal(result, expected)  # whole numbers: exact in whatever order


def test_total_of_nothing_is_zero_and_of_an_infinity_infinite():
    assert total(np.zeros((0, 3), np.float32), 0).tolist() == [0, 0, 0]
    x = np.ones((1000, 2), np.float32)
    x[500, 0] = np.inf
    assert total(x, 0).tolist() == [np.inf, 1000]


@pytest.mark.parametrize("shape", [(1_000_000, 3), (1000, 1000, 3), (20_000_000, 1)])
def test_total_keeps_float32_s_digits_along_any_axis(shape):
    x = np.full(shape, 0.1, np.float32)
    axes = tuple(range(len(shape) - 1))
    np.testing.assert_allclose(total(x, axes), np.float64(np.float32(0.1)) * (x.size // shape[-1]), rtol=1e-7)


class NoDriver:
    """Finds CuPy, which then can't load what it needs."""

    def __init__(self, failure):
        self.failure = failure

    def find_spec(self, name, *_):
        if name == "cupy":
            raise self.failure


@pytest.mark.parametrize("failure", [
    ImportError("libcuda.so.1: cannot open shared object file"), OSError("libcuda.so.1: cannot open shared object"),
    ModuleNotFoundError("No module named 'fastrlock'", name="fastrlock"),
], ids=lambda failure: type(failure).__name__)  # fmt: skip
def test_a_cupy_that_cannot_be_loaded_is_not_called_missing(monkeypatch, failure):
    monkeypatch.delitem(sys.modules, "cupy", raising=False)
    monkeypatch.setattr(sys, "meta_path", [NoDriver(failure), *sys.meta_path])
    with pytest.raises(ImportError, match="to_gpu: CuPy can't be loaded") as caught:
        to_gpu(np.zeros(1))
    assert "not installed" not in str(caught.value)
    assert str(failure) in str(caught.value)
    cure = "pip install" if isinstance(failure, ModuleNotFoundError) else "`nvidia-smi`"
    assert cure in str(caught.value)
