"""The line at the end of a failing report, pasted where the function and its inputs have their names, fails alike."""

import numpy as np
import pytest

import minires
from minires import Function, nn
from minires.checking import check_arrays, check_torch

X = np.random.default_rng(1).standard_normal((4, 3))
WEIGHT = np.random.default_rng(2).standard_normal((3, 3))
INDEX = np.array([0, 2, 2])
MANY = np.random.default_rng(3).standard_normal((50, 60))


class Half(Function):
    def forward(self, x):
        self.save_for_backward(x=x)
        return x * x

    def backward(self, grad_output):
        return (self.saved.x * grad_output,)


def half(x):
    return minires.tensor.apply(Half(), x)


class HalfLayer(nn.Module):
    def forward(self, x):
        return half(x)


def scaled(x, scale):
    return half(x) * scale


def product(x, weight):
    return x @ weight


def product_backward(grad_output, x, weight):
    return grad_output @ weight, x.T @ grad_output


def chosen(x, index):
    return x[index]


def chosen_backward(grad_output, x, index):
    return np.ones_like(x)


def writes(x):
    x += 1
    return x


def line_of(report):
    assert not report
    assert str(report).splitlines()[-1] == f"  to repeat it: {report.repeat}"
    assert report.to_dict()["repeat"] == report.repeat
    return report.repeat


def repeated(line, **names):
    return eval(line, {**globals(), **names})


@pytest.mark.parametrize(
    ("line", "check", "names"),
    [
        ("minires.gradcheck(Half, x, seed=0)", lambda x: minires.gradcheck(Half, x), {"x": X}),
        (
            "minires.gradcheck(half, x, mode='fast', rtol=1e-05, seed=3)",
            lambda x: minires.gradcheck(half, x, mode="fast", rtol=1e-5, seed=3),
            {"x": MANY},
        ),
        (
            "minires.gradcheck(scaled, x, scale, seed=0)",
            lambda x, scale: minires.gradcheck(scaled, x, scale, mode="auto", rtol=1e-6),
            {"x": X, "scale": WEIGHT[0]},
        ),
        (
            "minires.gradcheck(fn, x, parameters=parameters, seed=0)",
            lambda fn, x, parameters: minires.gradcheck(fn, x, parameters=parameters),
            {"fn": lambda x: half(x), "x": X, "parameters": [minires.Parameter(WEIGHT[0])]},
        ),
        (
            "minires.gradcheck(fn, x, seed=0)",
            lambda fn, x: minires.gradcheck(fn, x),
            {"fn": HalfLayer(), "x": X},
        ),
        (
            "minires.gradcheck(fn, input_0, input_1, seed=0)",
            lambda fn, input_0, input_1: minires.gradcheck(fn, input_0, input_1),
            {"fn": lambda *inputs: scaled(*inputs), "input_0": X, "input_1": WEIGHT[0]},
        ),
        (
            "minires.checking.check_arrays(product, product_backward, x, weight, rtol=1e-12, seed=0, method='complex')",
            lambda x, weight: check_arrays(product, product_backward, x, weight, method="complex", rtol=1e-12),
            {"x": X, "weight": WEIGHT},
        ),
        (
            "minires.checking.check_arrays(chosen, chosen_backward, x, index, mode='full', seed=5)",
            lambda x, index: check_arrays(chosen, chosen_backward, x, index, mode="full", seed=5),
            {"x": X, "index": INDEX},
        ),
        (
            "minires.checking.check_arrays(writes, backward, x, seed=0)",
            lambda backward, x: check_arrays(writes, backward, x),
            {"backward": lambda g, x: g, "x": X},
        ),
    ],
)
def test_the_line_repeats_the_check(line, check, names):
    report = check(**names)
    assert line_of(report) == line
    assert repeated(line, **names).to_dict() == report.to_dict()


def test_a_function_from_within_a_function_has_its_own_name():
    class Quarter(Half):
        def backward(self, grad_output):
            return (grad_output,)

    report = minires.gradcheck(Quarter, X, seed=4)
    assert line_of(report) == "minires.gradcheck(Quarter, x, seed=4)"
    assert repeated(report.repeat, Quarter=Quarter, x=X).to_dict() == report.to_dict()


@pytest.mark.witness
def test_torch_functions_are_repeated_by_check_torch():
    torch = pytest.importorskip("torch")

    class Wrong(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x * 2

        @staticmethod
        def backward(ctx, grad_output):
            return grad_output

    report = check_torch(Wrong.apply, torch.tensor(X), mode="fast")
    assert line_of(report) == "minires.checking.check_torch(Wrong.apply, input_0, mode='fast', seed=0)"
    assert repeated(report.repeat, Wrong=Wrong, input_0=torch.tensor(X)).to_dict() == report.to_dict()
