"""The calls on which every implementation of every kernel is tried, each with its oracle: shapes odd on purpose.

``CASES[family, kernel]`` lists them. A new implementation needs nothing here; a new kernel needs a ``_cases`` line.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from minires_kernels import Window
from tests import oracles


@dataclass(frozen=True)
class Case:
    """One call: ``make(rng)`` gives its arguments in float64, ``oracle(*arguments)`` the expected results."""

    family: str
    kernel: str
    name: str
    make: Callable[[np.random.Generator], tuple[Any, ...]]
    oracle: Callable[..., Any]

    def arguments(self, dtype: str) -> tuple[Any, ...]:
        """The arguments, floating-point arrays rounded to ``dtype``; the same ones each time, in new arrays."""
        return tuple(_rounded(argument, dtype) for argument in _drawn(self))

    def expected(self, dtype: str) -> tuple[Any, ...]:
        """What the oracle makes of these arguments, in float64, as a tuple."""
        return _expected(self, dtype)

    def __str__(self) -> str:
        return self.name


@cache
def _drawn(case: Case) -> tuple[Any, ...]:
    return case.make(np.random.default_rng(zlib.crc32(case.name.encode())))


@cache
def _expected(case: Case, dtype: str) -> tuple[Any, ...]:
    result = case.oracle(*case.arguments(dtype))
    return result if isinstance(result, tuple) else (result,)


def _rounded(argument: Any, dtype: str) -> Any:
    if isinstance(argument, np.ndarray):
        return argument.astype(dtype if argument.dtype.kind == "f" else argument.dtype)
    return argument


CASES: dict[tuple[str, str], list[Case]] = {}


def _case(family, kernel, name, make, oracle):
    CASES.setdefault((family, kernel), []).append(Case(family, kernel, name, make, oracle))


def _spread(window):
    return window.size, window.stride, window.padding, window.dilation


# ---- patches and convolution: name, (N, C, H, W), O, groups, window

GEOMETRIES = [
    ("one pixel", (1, 1, 1, 1), 1, 1, Window.of(1)),
    ("3x3", (2, 3, 5, 7), 4, 1, Window.of(3, padding=1)),
    ("3x3 unpadded", (2, 5, 9, 6), 3, 1, Window.of(3)),
    ("3x3 stride 2, even", (2, 4, 8, 6), 5, 1, Window.of(3, stride=2, padding=1)),
    ("3x3 stride 2, odd", (1, 4, 7, 9), 6, 1, Window.of(3, stride=2, padding=1)),
    ("1x1", (2, 7, 4, 3), 5, 1, Window.of(1)),
    ("1x1 stride 2", (2, 16, 5, 6), 32, 1, Window.of(1, stride=2)),
    ("7x7 stem", (1, 3, 11, 9), 8, 1, Window.of(7, stride=2, padding=3)),
    ("2x2, stride > kernel, remainder", (2, 3, 9, 7), 2, 1, Window.of(2, stride=3)),
    ("rectangular everything", (2, 3, 8, 11), 4, 1, Window.of((2, 5), stride=(2, 3), padding=(1, 2), dilation=(3, 1))),
    ("padding with remainder", (2, 2, 6, 5), 3, 1, Window.of(4, stride=3, padding=2)),
    ("padding > kernel", (1, 2, 3, 4), 3, 1, Window.of(3, padding=(4, 5))),
    ("dilation", (2, 3, 7, 8), 4, 1, Window.of(3, padding=2, dilation=2)),
    ("dilation and stride", (1, 3, 9, 10), 2, 1, Window.of(3, stride=2, padding=1, dilation=(2, 3))),
    ("kernel as large as the image", (2, 3, 4, 5), 3, 1, Window.of((4, 5))),
    ("single row", (2, 3, 1, 9), 4, 1, Window.of((1, 3), padding=(0, 1))),
    ("C = 1, O = 1", (1, 1, 6, 7), 1, 1, Window.of(3, padding=1)),
    ("C = 16, O = 16", (1, 16, 6, 7), 16, 1, Window.of(3, padding=1)),
    ("C = 32, O = 16", (1, 32, 4, 5), 16, 1, Window.of(3, padding=1)),
    ("C = 16, O = 32, stride 2", (1, 16, 7, 6), 32, 1, Window.of(3, stride=2, padding=1)),
    ("C = 40, O = 24", (1, 40, 3, 5), 24, 1, Window.of(3, padding=1)),
    ("C = 17, O = 33", (2, 17, 3, 2), 33, 1, Window.of(3, padding=1)),
    ("wide, past one tile", (3, 2, 6, 37), 3, 1, Window.of(3, padding=1)),
    ("groups", (2, 6, 5, 7), 4, 2, Window.of(3, padding=1)),
    ("groups of 8", (1, 32, 4, 5), 32, 4, Window.of(3, stride=2, padding=1)),
    ("depthwise", (2, 9, 5, 6), 9, 9, Window.of(3, padding=1)),
    ("depthwise, two outputs each", (2, 3, 6, 5), 6, 3, Window.of((3, 2), stride=2, dilation=2)),
    ("series: all columns left of it", (2, 3, 11, 1), 4, 1, Window.of((5, 1), stride=5, padding=2)),
    ("series, groups and dilation", (2, 4, 6, 1), 6, 2, Window.of((5, 1), stride=(3, 5), padding=(3, 2), dilation=2)),
    ("no window meets the pixels", (1, 1, 5, 1), 1, 1, Window.of(1, stride=5, padding=2)),
    ("windows beyond all four sides", (2, 2, 3, 2), 3, 1, Window.of(2, stride=2, padding=(4, 5))),
    ("taps around the image", (2, 3, 2, 3), 2, 1, Window.of(2, padding=(3, 4), dilation=(5, 6))),
    ("3x3, two zeros around one column", (2, 3, 2, 1), 4, 1, Window.of(3, padding=2)),
    ("no channel in", (2, 0, 5, 6), 4, 2, Window.of(3, padding=1)),
    ("no channel out", (2, 3, 5, 6), 0, 1, Window.of(3, padding=1)),
    ("no pixel but padding", (2, 3, 0, 2), 4, 1, Window.of((1, 2), padding=1)),
    ("empty batch", (0, 3, 5, 6), 4, 1, Window.of(3, padding=1)),
    ("empty batch, groups and stride", (0, 4, 5, 6), 4, 2, Window.of(3, stride=2, padding=1)),
]


def _convolution(name, x_shape, O, groups, window):
    weight_shape = (O, x_shape[1] // groups, *window.size)
    y_shape = (x_shape[0], O, *window.output_size(*x_shape[2:]))
    size, *rest = _spread(window)
    _case(
        "convolution",
        "forward",
        name,
        lambda rng: (rng.normal(size=x_shape), rng.normal(size=weight_shape), window, groups),
        lambda x, weight, *_: oracles.conv_forward(x, weight, *rest, groups),
    )
    _case(
        "convolution",
        "grad_input",
        name,
        lambda rng: (rng.normal(size=y_shape), rng.normal(size=weight_shape), x_shape, window, groups),
        lambda grad_output, weight, *_: oracles.conv_grad_input(grad_output, weight, x_shape, *rest, groups),
    )
    _case(
        "convolution",
        "grad_weight",
        name,
        lambda rng: (rng.normal(size=y_shape), rng.normal(size=x_shape), window, groups),
        lambda grad_output, x, *_: oracles.conv_grad_weight(grad_output, x, size, *rest, groups),
    )


def _patches(name, x_shape, window):
    K, L = x_shape[1] * np.prod(window.size), np.prod(window.output_size(*x_shape[2:]))
    _case(
        "patches",
        "im2col",
        name,
        lambda rng: (rng.normal(size=x_shape), window),
        lambda x, _: oracles.im2col(x, *_spread(window)),
    )
    _case(
        "patches",
        "col2im",
        name,
        lambda rng: (rng.normal(size=(x_shape[0], K, L)), x_shape, window),
        lambda columns, *_: oracles.col2im(columns, x_shape, *_spread(window)),
    )


for _name, _x_shape, _O, _groups, _window in GEOMETRIES:
    _convolution(_name, _x_shape, _O, _groups, _window)
    if _groups == 1:
        _patches(_name, _x_shape, _window)


_convolved: dict[tuple[Any, ...], tuple[np.ndarray, np.ndarray, np.ndarray]] = {}


def convolved(x, weight, grad_output, window, groups=1):
    """What the oracles make of one convolution: (y, grad_x, grad_weight); the same numbers are computed once."""
    key = window, groups, *((array.shape, array.dtype, array.tobytes()) for array in (x, weight, grad_output))
    if key not in _convolved:
        size, *rest = _spread(window)
        _convolved[key] = (
            oracles.conv_forward(x, weight, *rest, groups),
            oracles.conv_grad_input(grad_output, weight, x.shape, *rest, groups),
            oracles.conv_grad_weight(grad_output, x, size, *rest, groups),
        )
    return _convolved[key]


# ---- normalization

NORMALIZED_SHAPES = [
    (2, 3, 4, 5),
    (1, 1, 1, 7),
    (3, 16, 2, 3),
    (2, 40, 3, 1),
    (4, 2, 9, 7),
    (1, 17, 5, 2),
    (3, 32, 2, 2),
]


def _statistics(x):
    mean, variance = oracles.batch_statistics(x) if x.size else (np.zeros(x.shape[1]), np.ones(x.shape[1]))
    return mean, 1 / np.sqrt(variance + 1e-5)


def _normalization(shape, relu, addend):
    C = shape[1]
    name = f"{shape}{' + addend' * addend}{' + relu' * relu}"

    def forward(rng):
        x = rng.normal(rng.normal(size=(C, 1, 1)), 2.0, shape)
        mean, inverse_std = _statistics(x)
        other = rng.normal(size=shape) if addend else None
        return x, mean, inverse_std, rng.normal(size=C), rng.normal(size=C), other, relu

    def backward(rng):
        x, mean, inverse_std, weight, bias, other, _ = forward(rng)
        output = oracles.normalize(x, mean, inverse_std, weight, bias, other, relu) if relu else None
        again = bias if relu and not addend else None  # the gate may be computed again
        return rng.normal(size=shape), x, mean, inverse_std, weight, output, addend, again

    def without_unneeded(oracle):
        def call(*arguments):
            *gradients, grad_addend = oracle(*arguments[:6])
            return (*gradients, grad_addend if addend else None)

        return call

    _case("normalization", "normalize", name, forward, oracles.normalize)
    _case("normalization", "normalize_backward", name, backward, without_unneeded(oracles.normalize_backward))
    if shape[0]:
        _case("normalization", "batch_norm_backward", name, backward, without_unneeded(oracles.batch_norm_backward))


for _shape in NORMALIZED_SHAPES:
    _case("normalization", "batch_statistics", f"{_shape}",
          lambda rng, shape=_shape: (rng.normal(3.0, 2.0, shape),), oracles.batch_statistics)  # fmt: skip
    for _relu in (False, True):
        for _addend in (False, True):
            _normalization(_shape, _relu, _addend)
_normalization((0, 3, 4, 5), True, True)
# E[x^2] - mean^2 would be wrong by the variance itself here, in float32
_case("normalization", "batch_statistics", "mean 2000 times the deviation",
      lambda rng: (rng.normal(2000.0, 1.0, (2, 3, 9, 7)),), oracles.batch_statistics)  # fmt: skip


# ---- activation

ELEMENTWISE_SHAPES = [
    (),
    (1,),
    (7,),
    (257,),
    (5, 33),
    (3, 0, 2),
    (2, 3, 4, 5),
    (2, 16, 3, 3),
    (3, 5, 1, 7),
    (0, 3, 2, 2),
]


def _half_zero(rng, shape):
    return np.maximum(rng.normal(size=shape), 0)


for _shape in ELEMENTWISE_SHAPES:
    _case("activation", "relu", f"{_shape}",
          lambda rng, shape=_shape: (np.asarray(rng.normal(size=shape)),), oracles.relu)  # fmt: skip
    _case("activation", "relu_backward", f"{_shape}",
          lambda rng, shape=_shape: (np.asarray(rng.normal(size=shape)), np.asarray(_half_zero(rng, shape))),
          oracles.relu_backward)  # fmt: skip
    for _kernel, _oracle in (("add", oracles.add), ("add_relu", lambda x, y: oracles.relu(oracles.add(x, y)))):
        _case("activation", _kernel, f"{_shape}",
              lambda rng, shape=_shape: (np.asarray(rng.normal(size=shape)), np.asarray(rng.normal(size=shape))),
              _oracle)  # fmt: skip
_SPECIAL = np.array([np.nan, -np.inf, np.inf, 0.0, -0.0, 1e-40, -1e-40, 5.0] * 5)
_case("activation", "relu", "NaN, infinities, zeros", lambda rng: (_SPECIAL.copy(),), oracles.relu)
_case("activation", "relu_backward", "NaN and infinite gradients where the output is 0",
      lambda rng: (_SPECIAL.copy(), np.tile([0.0, 0.0, 0.0, 1.0], 10)), oracles.relu_backward)  # fmt: skip
_case("activation", "add_relu", "NaN, infinities, zeros",
      lambda rng: (_SPECIAL.copy(), np.ones(40)), lambda x, y: oracles.relu(oracles.add(x, y)))  # fmt: skip


# ---- pooling: name, (N, C, H, W), window, ceil_mode

POOLS = [
    ("2x2", (2, 3, 6, 8), Window.of(2, stride=2), False),
    ("2x2 remainder", (2, 3, 7, 5), Window.of(2, stride=2), False),
    ("2x2 remainder, ceil", (2, 3, 7, 5), Window.of(2, stride=2), True),
    ("3x3 stem", (1, 16, 7, 8), Window.of(3, stride=2, padding=1), False),
    ("3x3 ceil, padded", (1, 5, 6, 8), Window.of(3, stride=2, padding=1), True),
    ("3x3 overlapping", (2, 4, 5, 6), Window.of(3, padding=1), False),
    ("rectangular", (2, 3, 8, 9), Window.of((2, 3), stride=(3, 1), padding=(1, 0)), False),
    ("stride > kernel", (1, 33, 7, 8), Window.of(2, stride=(3, 4)), False),
    ("stride > kernel, ceil drops a window", (1, 2, 7, 8), Window.of(1, stride=3), True),
    ("ceil: last window starts in the padding", (1, 2, 4, 5), Window.of(2, stride=3, padding=1), True),
    ("global", (2, 17, 4, 3), Window.of((4, 3)), False),
    ("C = 1", (1, 1, 5, 4), Window.of(2), False),
    ("C = 40", (2, 40, 4, 5), Window.of(3, stride=2, padding=1), False),
    ("much padding: windows beyond all four sides", (2, 3, 4, 2), Window.of(2, stride=3, padding=(3, 4)), False),
    ("much padding: no window meets the pixels", (1, 2, 2, 1), Window.of(1, stride=7, padding=(2, 3)), False),
    ("empty batch", (0, 3, 6, 5), Window.of(3, stride=2, padding=1), False),
]
DILATED_POOLS = [
    ("dilation", (2, 3, 8, 7), Window.of(3, stride=2, padding=1, dilation=2), False),
    ("dilation, ceil", (2, 3, 8, 9), Window.of(2, stride=3, dilation=(3, 1)), True),
    ("a window without a pixel", (2, 3, 4, 4), Window.of(2, padding=1, dilation=5), False),
]


def _max_pool(name, x_shape, window, ceil_mode, values):
    def forward(rng):
        return values(rng, x_shape), window, ceil_mode

    def backward(rng):
        x, _, _ = forward(rng)
        y, argmax = oracles.max_pool(x, *_spread(window), ceil_mode)
        return rng.normal(size=y.shape), argmax.astype(np.int32), x_shape

    _case("pooling", "max_pool", name, forward, lambda x, *_: oracles.max_pool(x, *_spread(window), ceil_mode))
    _case("pooling", "max_pool_backward", name, backward, oracles.max_pool_backward)


def _avg_pool(name, x_shape, window, ceil_mode, count_include_pad):
    y_shape = (*x_shape[:2], *window.output_size(*x_shape[2:], ceil_mode=ceil_mode))
    options = (window.size, window.stride, window.padding, ceil_mode, count_include_pad)
    name = f"{name}{', padding counted' * count_include_pad}"
    _case(
        "pooling",
        "avg_pool",
        name,
        lambda rng: (rng.normal(size=x_shape), window, ceil_mode, count_include_pad),
        lambda x, *_: oracles.avg_pool(x, *options),
    )
    _case(
        "pooling",
        "avg_pool_backward",
        name,
        lambda rng: (rng.normal(size=y_shape), x_shape, window, ceil_mode, count_include_pad),
        lambda grad_output, *_: oracles.avg_pool_backward(grad_output, x_shape, *options),
    )


def _normal(rng, shape):
    return rng.normal(size=shape)


def _tied(rng, shape):
    return rng.integers(-1, 2, shape).astype(float)


def _with_nan(rng, shape):
    return np.where(rng.random(shape) < 0.2, np.nan, rng.normal(size=shape))


def _lowest(rng, shape):
    return np.where(rng.random(shape) < 0.7, -np.inf, -rng.random(shape))


for _name, _x_shape, _window, _ceil in POOLS:
    _max_pool(_name, _x_shape, _window, _ceil, _normal)
    _avg_pool(_name, _x_shape, _window, _ceil, True)
    _avg_pool(_name, _x_shape, _window, _ceil, False)
for _name, _x_shape, _window, _ceil in DILATED_POOLS:
    _max_pool(_name, _x_shape, _window, _ceil, _normal)
for _name, _values in (("ties", _tied), ("NaN", _with_nan), ("-inf, which padding must not beat", _lowest)):
    _max_pool(_name, (2, 3, 6, 7), Window.of(3, stride=2, padding=1), False, _values)
    _max_pool(f"{_name}, C = 16", (1, 16, 5, 6), Window.of(2, stride=2), True, _values)


# ---- update

for _shape in [(1,), (5,), (259,), (0,), (3, 4, 2, 2), (17, 33)]:
    for _momentum, _decay, _nesterov, _caffe in [
        (0.0, 0.0, False, False),
        (0.0, 1e-2, False, False),
        (0.9, 0.0, False, False),
        (0.9, 1e-2, False, False),
        (0.9, 1e-2, True, False),
        (0.9, 1e-2, False, True),
        (0.9, 1e-2, True, True),
    ]:
        _options = (0.1, _momentum, _decay, _nesterov, _caffe)

        def _update(rng, shape=_shape, options=_options):
            parameter, grad, velocity = (rng.normal(size=shape) for _ in range(3))
            return parameter, grad, velocity if options[1] else None, *options

        _case("update", "sgd", f"{_shape} lr, momentum, decay, nesterov, caffe = {_options}", _update, oracles.sgd)


# ---- shortcut: (N, C, H, W), channels, stride

SHORTCUTS = [
    ((2, 2, 4, 6), 4, 2),
    ((1, 3, 7, 5), 3, 2),
    ((2, 1, 5, 5), 3, 1),
    ((1, 2, 7, 8), 5, 3),
    ((2, 16, 5, 4), 32, 2),
    ((1, 19, 3, 6), 40, 2),
    ((0, 2, 4, 4), 4, 2),
]

for _shape, _channels, _stride in SHORTCUTS:
    _y_shape = (_shape[0], _channels, -(-_shape[2] // _stride), -(-_shape[3] // _stride))
    _case("shortcut", "subsample_and_pad", f"{_shape} to {_channels} channels, stride {_stride}",
          lambda rng, shape=_shape, rest=(_channels, _stride): (rng.normal(size=shape), *rest),
          oracles.subsample_and_pad)  # fmt: skip
    _case("shortcut", "subsample_and_pad_backward", f"{_shape} to {_channels} channels, stride {_stride}",
          lambda rng, y=_y_shape, rest=(_shape, _stride): (rng.normal(size=y), *rest),
          oracles.subsample_and_pad_backward)  # fmt: skip


# ---- cross-entropy: (N, K), label smoothing


def _logits(rng, shape, masked=False):
    logits, target = rng.normal(0.0, 3.0, shape), rng.integers(0, shape[1], shape[0])
    if masked:  # every class but a row's own may be ruled out
        logits[(rng.random(shape) < 0.3) & (np.arange(shape[1]) != target[:, None])] = -np.inf
    return logits, target


def _cross_entropy(name, shape, smoothing, masked=False):
    def backward(rng):
        logits, target = _logits(rng, shape, masked)
        probabilities = oracles.cross_entropy(logits, target, smoothing)[1]
        return probabilities, target, smoothing, rng.normal(size=shape[0])

    _case("cross_entropy", "cross_entropy", name, lambda rng: (*_logits(rng, shape, masked), smoothing),
          oracles.cross_entropy)  # fmt: skip
    _case("cross_entropy", "cross_entropy_backward", name, backward, oracles.cross_entropy_backward)


for _shape in [(1, 1), (3, 2), (5, 10), (17, 33), (7, 1000), (0, 4)]:
    for _smoothing in (0.0, 0.1, 1.0):
        _cross_entropy(f"{_shape}, smoothing {_smoothing}", _shape, _smoothing)
_cross_entropy("masked classes", (9, 12), 0.0, masked=True)
for _offset in (1e3, -1e8):  # what is common to all logits of a row changes nothing, and costs no digits
    for _smoothing in (0.0, 0.1):
        _case("cross_entropy", "cross_entropy", f"logits around {_offset:g}, smoothing {_smoothing}",
              lambda rng, offset=_offset, smoothing=_smoothing: (
                  offset + rng.integers(-4, 5, (6, 11)) * 8.0, rng.integers(0, 11, 6), smoothing
              ),
              oracles.cross_entropy)  # fmt: skip
