"""Every argument of every public function, given what it isn't made for: a documented error, or the right thing.

Each function is called with one argument after the other replaced by each of ``VALUES``, the others as they should be.
What comes out must be a tensor (some values do fit), or a ValueError or TypeError that begins with the function's name
(or its Function's, where floating-point types differ, or Tensor's, where an array can't become one); never an error in
Python's or NumPy's words, another exception, or a warning.
"""

from __future__ import annotations

import inspect

import numpy as np
import pytest

from minires import Tensor, functional


def tensor(*shape, dtype=np.float32):
    return Tensor(np.random.default_rng(0).standard_normal(shape).astype(dtype))


class Nothing:
    """An object of no use."""


VALUES = {
    "None": None,
    "True": True,
    "a NumPy boolean": np.True_,
    "0": 0,
    "-1": -1,
    "2": 2,
    "2.0": 2.0,
    "0.5": 0.5,
    "NaN": np.nan,
    "infinity": np.inf,
    "1e300": 1e300,
    "2**40": 2**40,
    "2**63": 2**63,
    "-2**70": -(2**70),
    "10**400": 10**400,
    "a complex number": 1j,
    "a string": "3",
    "an empty string": "",
    "bytes": b"ab",
    "()": (),
    "[]": [],
    "(1,)": (1,),
    "(1, 2.0)": (1, 2.0),
    "(-1, 1)": (-1, 1),
    "(2**70, 1)": (2**70, 1),
    "(2**30, 2**30)": (2**30, 2**30),
    "(1, 2, 3)": (1, 2, 3),
    "a pair": [(1, 1)],
    "enormous pairs": [(0, 0), (0, 0), (2**40, 0), (0, 2**40)],
    "a ragged list": [[1, 2], [3]],
    "a long list": list(range(10_000)),
    "a 0-d array": np.array(2),
    "an array": np.array([2, 2]),
    "an array of fractions": np.array([1.5]),
    "a matrix": np.zeros((2, 3)),
    "an array of objects": np.array([None, 1], dtype=object),
    "an array of strings": np.array(["a"]),
    "a dict": {},
    "a set": {1},
    "a generator": (number for number in [1, 2]),
    "a function": len,
    "a type": int,
    "an object": Nothing(),
    "a 0-d tensor": Tensor(0.5),
    "a tensor of one axis": tensor(3),
    "a tensor of integers": Tensor(np.ones((2, 4, 5, 6), int)),
    "a tensor of booleans": Tensor(np.ones((2, 4, 5, 6), bool)),
    "an empty tensor": tensor(0),
    "a tensor without channels": tensor(2, 0, 5, 6),
    "a tensor of seven axes": tensor(1, 2, 1, 2, 1, 2, 1),
    "tensors of two shapes": [tensor(2, 3), tensor(4)],
    "a tensor and a number": [tensor(2, 3), 1.0],
    "tensors with gradients": [Tensor([1.0], requires_grad=True)],
}

GENERATOR = np.random.default_rng(0)
STATISTICS = {"running_mean": np.zeros(4, np.float32), "running_var": np.ones(4, np.float32)}
NORM = STATISTICS | {"weight": tensor(4), "bias": tensor(4), "training": True, "momentum": 0.1, "eps": 1e-5}
POOL = {"x": tensor(2, 4, 5, 6), "kernel_size": 2, "stride": 2, "padding": 1, "ceil_mode": False}
GOOD = {
    "relu": {"x": tensor(2, 3), "inplace": False},
    "sigmoid": {"x": tensor(2, 3)},
    "tanh": {"x": tensor(2, 3)},
    "softmax": {"x": tensor(2, 3), "axis": 1},
    "log_softmax": {"x": tensor(2, 3), "axis": 1},
    "linear": {"x": tensor(2, 3), "weight": tensor(4, 3), "bias": tensor(4)},
    "conv2d": {
        "x": tensor(2, 4, 5, 6),
        "weight": tensor(4, 4, 3, 3),
        "bias": tensor(4),
        "stride": 1,
        "padding": 1,
        "dilation": 1,
        "groups": 1,
    },
    "max_pool2d": POOL | {"dilation": 1, "return_indices": False},
    "avg_pool2d": POOL | {"count_include_pad": True},
    "adaptive_avg_pool2d": {"x": tensor(2, 4, 5, 6), "output_size": 2},
    "batch_norm": {"x": tensor(2, 4, 5, 6), **NORM},
    "batch_norm_relu": {"x": tensor(2, 4, 5, 6), "addend": tensor(2, 4, 5, 6), **NORM},
    "concatenate": {"tensors": [tensor(2, 3), tensor(2, 3)], "axis": 0},
    "stack": {"tensors": [tensor(2, 3), tensor(2, 3)], "axis": 0},
    "pad": {"x": tensor(2, 4, 5, 6), "widths": [(0, 0), (0, 0), (1, 1), (1, 0)], "value": 0},
    "where": {"condition": np.ones((2, 3), bool), "x": tensor(2, 3), "y": tensor(2, 3)},
    "cross_entropy": {
        "logits": tensor(2, 4),
        "target": np.array([1, 3]),
        "weight": np.ones(4, np.float32),
        "ignore_index": -100,
        "label_smoothing": 0.1,
        "reduction": "mean",
    },
    "dropout": {"x": tensor(2, 3), "p": 0.5, "training": True, "rng": GENERATOR, "inplace": False},
    "subsample_and_pad": {"x": tensor(2, 4, 5, 6), "channels": 4, "stride": 2},
}


def test_no_function_and_no_argument_is_left_out():
    assert sorted(GOOD) == sorted(functional.__all__)
    for name, arguments in GOOD.items():
        assert set(arguments) == set(inspect.signature(getattr(functional, name)).parameters), name


@pytest.mark.filterwarnings("ignore:overflow encountered in cast")  # 1e300 becomes infinite in float32, as in x + 1e300
@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    ("name", "argument"), [(name, argument) for name, arguments in GOOD.items() for argument in arguments]
)
def test_a_documented_error_or_the_right_thing(name, argument):
    function, faults = getattr(functional, name), []
    for kind, value in VALUES.items():
        kept = {key: array.copy() for key, array in GOOD[name].items() if isinstance(array, np.ndarray)}
        arguments = GOOD[name] | kept | {argument: value}
        try:
            result = function(**arguments)
        except (ValueError, TypeError) as error:
            named = str(error).partition(": ")[0].lower() in (name, name.replace("_", ""), "tensor")
            if not named or len(str(error)) > 600:
                faults.append(f"{kind}: {type(error).__name__}: {str(error)[:200]}")
            faults += [f"{kind}: {key} was changed" for key in kept if key != argument and not same(name, kept, key)]
        except Exception as error:
            faults.append(f"{kind}: {type(error).__name__}: {str(error)[:200]}")
        else:
            for each in result if type(result) is tuple and argument == "return_indices" else (result,):
                if not isinstance(each, Tensor) or each.dtype == np.float64:
                    faults.append(f"{kind}: gave {type(each).__name__} {getattr(each, 'dtype', '')}")
    assert faults == []


def same(name, kept, key):
    return np.array_equal(kept[key], GOOD[name][key])


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: functional.pad(tensor(2, 3), 1), TypeError, "pad: widths must be 2 pairs"),
        (lambda: functional.softmax(tensor(2, 3), None), TypeError, "softmax: axis must be an integer, got None"),
        (
            lambda: functional.concatenate([tensor(2, 3)], None),
            TypeError,
            "concatenate: axis must be an integer, got None",
        ),
        (
            lambda: functional.conv2d(tensor(1, 1, 4, 4), tensor(1, 1, 3, 3), groups=2**70),
            ValueError,
            "conv2d: groups must be an integer of 64 bits, got 1180591620717411303424",
        ),
        (
            lambda: functional.subsample_and_pad(tensor(1, 1, 4, 4), 2**62),
            ValueError,
            r"subsample_and_pad: it would need an array of shape \(1, 4611686018427387904, 4, 4\), more than a process",
        ),
        (
            lambda: functional.max_pool2d(tensor(1, 1, 4, 4), 2, list(range(10_000))),
            TypeError,
            r"max_pool2d: stride must be .*, got \[0, 1, 2, .* \.\.\. \(list\)",
        ),
    ],
)
def test_what_it_says(call, error, message):
    with pytest.raises(error, match=message):
        call()
