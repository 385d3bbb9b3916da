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
