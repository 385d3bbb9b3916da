"""Hypothesis strategies and decorators for people who test operations: theirs or ours. Needs ``hypothesis``.

::

    @check_backward(x=tensors(shapes(min_dims=1), avoid=[0.0], min_gap=1e-2))
    def test_my_activation(x):
        return my_activation(x)

    @check_forward(numpy.tanh, x=tensors(shapes()))
    def test_tanh(x):
        return minires.functional.tanh(x)
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

try:
    import hypothesis
    from hypothesis import strategies as st
    from hypothesis.extra import numpy as hypothesis_numpy
except ImportError as missing:
    raise ImportError("minires.checking.strategies needs hypothesis: pip install hypothesis") from missing

from minires.checking.gradcheck import gradcheck
from minires.tensor import Tensor
from minires_kernels.arrays import Array

Shape = tuple[int, ...]

PROFILE = hypothesis.settings(deadline=None, max_examples=25, derandomize=bool(os.environ.get("CI")))
"""What the decorators run under: no deadline, 25 examples, the same ones every time where ``CI`` is set."""


def shapes(*, min_dims: int = 0, max_dims: int = 4, min_side: int = 1, max_side: int = 5) -> st.SearchStrategy[Shape]:
    """Shapes of arrays, small ones first."""
    return hypothesis_numpy.array_shapes(min_dims=min_dims, max_dims=max_dims, min_side=min_side, max_side=max_side)


def broadcastable(count: int, *, max_dims: int = 4, max_side: int = 4) -> st.SearchStrategy[tuple[Shape, ...]]:
    """``count`` shapes that broadcast with each other."""
    drawn = hypothesis_numpy.mutually_broadcastable_shapes(
        num_shapes=count, min_dims=0, max_dims=max_dims, min_side=1, max_side=max_side
    )
    return drawn.map(lambda result: tuple(result.input_shapes))


@st.composite
def tensors(
    draw: st.DrawFn,
    shape: Shape | st.SearchStrategy[Shape],
    *,
    avoid: Sequence[float] = (),
    min_gap: float = 0.0,
    low: float = -3.0,
    high: float = 3.0,
    dtype: Any = np.float64,
) -> Tensor:
    """Tensors with elements between ``low`` and ``high``, no two of them closer than ``min_gap``, nor to ``avoid``.

    So there is no tie for a maximum to choose from, and no kink near. Raises ValueError when there isn't room for that.
    """
    lengths = draw(shape) if isinstance(shape, st.SearchStrategy) else shape
    size = int(np.prod(lengths, dtype=int))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    if not min_gap:
        return Tensor(rng.uniform(low, high, lengths).astype(dtype))
    places = np.arange(low, high, 2 * min_gap)
    places = places[[all(abs(place - each) >= 1.5 * min_gap for each in avoid) for place in places]]
    if len(places) < size:
        raise ValueError(
            f"tensors: no room for {size} elements {min_gap} apart between {low} and {high}; shape {lengths}"
        )
    chosen = rng.choice(places, size, replace=False) + rng.uniform(-min_gap / 2, min_gap / 2, size)
    return Tensor(chosen.reshape(lengths).astype(dtype))


def layouts() -> st.SearchStrategy[Callable[[Array], Array]]:
    """Functions that return an array's values in another memory layout: Fortran, strided, reversed, channels-last."""
    return st.sampled_from([_c_order, _fortran_order, _every_second, _backwards, _channels_last])


def _c_order(x: Array) -> Array:
    return np.ascontiguousarray(x)


def _fortran_order(x: Array) -> Array:
    return np.asfortranarray(x)


def _every_second(x: Array) -> Array:
    room = np.empty([2 * length for length in x.shape], x.dtype)[tuple(slice(None, None, 2) for _ in x.shape)]
    room[...] = x
    return room


def _backwards(x: Array) -> Array:
    place = tuple(slice(None, None, -1) for _ in x.shape)
    return np.ascontiguousarray(x[place])[place]


def _channels_last(x: Array) -> Array:
    return np.moveaxis(np.ascontiguousarray(np.moveaxis(x, 1, -1)), -1, 1) if x.ndim > 2 else x.copy()


@dataclass(frozen=True)
class ConvCase:
    """A convolution's shapes and options; they always fit."""

    x: Shape
    weight: Shape
    stride: tuple[int, int]
    padding: tuple[int, int]
    dilation: tuple[int, int]
    groups: int

    @property
    def options(self) -> dict[str, Any]:
        """The keyword arguments of :func:`minires.functional.conv2d`."""
        return {"stride": self.stride, "padding": self.padding, "dilation": self.dilation, "groups": self.groups}


@st.composite
def conv_cases(draw: st.DrawFn, *, max_side: int = 7) -> ConvCase:
    """Convolutions of all kinds: rectangular, strided beyond the kernel, dilated, grouped, of one pixel or channel."""
    pair = st.tuples(st.integers(1, 3), st.integers(1, 3))
    kernel, stride, dilation = draw(pair), draw(pair), draw(pair)
    padding = draw(st.tuples(st.integers(0, 2), st.integers(0, 2)))
    groups = draw(st.integers(1, 3))
    per_group, outputs = draw(st.integers(1, 2)), draw(st.integers(1, 2))
    sides = []
    for axis in (0, 1):
        least = max(1, dilation[axis] * (kernel[axis] - 1) + 1 - 2 * padding[axis])
        sides.append(draw(st.integers(least, max(least, max_side))))
    N = draw(st.integers(1, 2))
    return ConvCase(
        (N, groups * per_group, *sides), (groups * outputs, per_group, *kernel), stride, padding, dilation, groups
    )


def check_backward(
    *, rtol: float = 1e-6, **inputs: st.SearchStrategy[Tensor]
) -> Callable[[Callable[..., Tensor]], Any]:
    """Make a test of a function that returns what an operation computes: its gradients are checked on drawn inputs."""

    def decorate(fn: Callable[..., Tensor]) -> Any:
        def test(**drawn: Tensor) -> None:
            names = list(drawn)
            gradcheck(
                lambda *tensors: fn(**dict(zip(names, tensors, strict=True))), *drawn.values(), rtol=rtol
            ).raise_if_wrong()

        return _as_test(fn, test, inputs)

    return decorate


def check_forward(
    reference: Callable[..., Array], *, units: float = 64.0, **inputs: st.SearchStrategy[Tensor]
) -> Callable[[Callable[..., Tensor]], Any]:
    """Make a test of a function that returns what an operation computes: it must equal ``reference`` of the arrays.

    ``units``: how many units in the last place, of the largest element, they may lie apart.
    """

    def decorate(fn: Callable[..., Tensor]) -> Any:
        def test(**drawn: Tensor) -> None:
            got = fn(**drawn).data
            expected = np.asarray(reference(*(tensor.data for tensor in drawn.values())))
            assert got.shape == expected.shape, f"shape {got.shape}, but the reference's is {expected.shape}"
            bound = units * np.finfo(got.dtype).eps * max(float(np.abs(expected).max(initial=0.0)), 1e-30)
            np.testing.assert_allclose(got, expected, rtol=0, atol=bound)

        return _as_test(fn, test, inputs)

    return decorate


def _as_test(fn: Callable[..., Any], test: Callable[..., None], inputs: dict[str, Any]) -> Any:
    functools.update_wrapper(test, fn, assigned=("__name__", "__qualname__", "__module__", "__doc__"))
    del test.__wrapped__  # type: ignore[attr-defined]  # else pytest reads fn's parameters, as fixtures
    return PROFILE(hypothesis.given(**inputs)(test))
