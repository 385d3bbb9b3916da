"""A tensor as a number, as text and elsewhere: item, int, index, format, to."""

from __future__ import annotations

import operator
import sys
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest

from minires import Tensor, nn
from minires.algebra import Transfer
from minires.tensor import apply


def test_a_tensor_of_one_element_is_a_number():
    for tensor in (Tensor(3.75), Tensor([3.75]), Tensor([[3.75]], requires_grad=True)):
        assert (tensor.item(), float(tensor), int(tensor)) == (3.75, 3.75, 3)
        assert f"{tensor:.1f}" == "3.8"
    assert isinstance(Tensor(3).item(), int)
    assert [10, 20, 30][Tensor(1)] == 20
    assert list(range(Tensor([2]))) == [0, 1]
    assert operator.index(Tensor(True)) == 1


@pytest.mark.parametrize("convert", [int, float, Tensor.item])
def test_a_tensor_of_several_elements_is_not(convert):
    for array in (np.ones(2, np.float32), np.zeros(0, np.float32)):
        with pytest.raises(ValueError, match=r"item: the tensor must have one element, but its shape is \((2|0),\)"):
            convert(Tensor(array))


@pytest.mark.parametrize("tensor", [Tensor(2.0), Tensor([1, 2])])
def test_only_one_integer_is_an_index(tensor):
    with pytest.raises(TypeError, match="index: only a tensor of one integer can be an index or a length, got"):
        operator.index(tensor)


def test_text():
    assert f"{Tensor([1.0, 2.0])}" == repr(Tensor([1.0, 2.0]))
    assert f"{Tensor(2.5)}" == repr(Tensor(2.5))
    assert f"{Tensor(7):>4d}" == "   7"
    with pytest.raises(ValueError, match=r"item: the tensor must have one element, but its shape is \(2,\)"):
        format(Tensor([1.0, 2.0]), ".2f")


def test_lists():
    assert Tensor([[1, 2], [3, 4]]).tolist() == [[1, 2], [3, 4]]
    assert Tensor(2.5).tolist() == 2.5


# ---- devices -------------------------------------------------------------------------------------


def test_a_tensor_that_is_there_stays_itself():
    tensor = Tensor([1.0])
    assert tensor.to("cpu") is tensor
    assert tensor.cpu() is tensor


@pytest.mark.parametrize("device", ["cuda:1", "gpu", np.float64, None])
def test_another_device_is_refused(device):
    for refuses in (Tensor([1.0]).to, nn.Linear(1, 1, rng=np.random.default_rng(0)).to):
        with pytest.raises(
            ValueError, match=r"to: device must be 'cpu' or 'cuda', got .*; a dtype is chosen with \.astype"
        ):
            refuses(device)


def test_the_gradient_comes_back_from_the_other_device():
    x = Tensor(np.array([1.0, 2.0]), requires_grad=True)
    apply(Transfer("cpu"), x).backward(np.array([3.0, 4.0]))
    assert x.grad.tolist() == [3.0, 4.0]


def test_cuda_without_cupy_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "cupy", None)
    net = nn.Linear(1, 1, rng=np.random.default_rng(0))
    for attempt in (lambda: Tensor([1.0]).to("cuda"), Tensor([1.0]).cuda, lambda: net.to("cuda")):
        with pytest.raises(ImportError, match=r"CuPy is not installed; pip install"):
            attempt()


def test_cuda_without_a_driver_is_one_sentence(monkeypatch):
    class CUDARuntimeError(RuntimeError):
        pass

    def count():
        raise CUDARuntimeError("cudaErrorInsufficientDriver: CUDA driver version is insufficient")

    cupy = ModuleType("cupy")
    cupy.cuda = SimpleNamespace(runtime=SimpleNamespace(getDeviceCount=count))
    cupy.ndarray = type("ndarray", (), {})
    monkeypatch.setitem(sys.modules, "cupy", cupy)
    net = nn.Linear(1, 1, rng=np.random.default_rng(0))
    for attempt in (lambda: Tensor([1.0]).to("cuda"), Tensor([1.0]).cuda, lambda: net.to("cuda")):
        with pytest.raises(
            RuntimeError, match=r"to_gpu: CuPy finds no GPU.*InsufficientDriver.*nvidia-smi.*stay with 'cpu'"
        ):
            attempt()
    assert net.weight.device == "cpu"
