"""The five questions, as far as they can be asked of any operation on tensors.

An *operation* here is a function of tensors that returns a tensor, with everything else bound. *Is the gradient
right?* is :func:`check_gradients`, *is it polite?* is :func:`check_politeness`; values and errors are each test's own.
"""

from __future__ import annotations

import itertools

import numpy as np

from minires import Tensor
from tests.finite_differences import numerical_gradients


def forward_backward(operation, arrays, upstream=None):
    """(output array, gradients, all saved arrays) of ``operation`` on leaves that hold ``arrays``."""
    leaves = [Tensor(array, requires_grad=True) for array in arrays]
    output = operation(*leaves)
    functions = graph(output)
    saved = [array for function in functions for array in function.saved_arrays().values()]
    output.backward(np.ones(output.shape, output.dtype) if upstream is None else upstream)
    return output.data, [leaf.grad for leaf in leaves], saved


def graph(tensor):
    """Every Function that ``tensor`` depends on, each once, the last first."""
    found, waiting = {}, [tensor]
    while waiting:
        function = waiting.pop().creator
        if function is not None and function not in found:
            found[function] = None
            waiting.extend(source for source in function.inputs if source is not None)
    return list(found)


def check_gradients(operation, *arrays, seed=0, tolerance=1e-9):
    """Every gradient against finite differences, in float64, for a random upstream gradient.

    ``tolerance`` is relative to the largest entry of the gradients: the stencil's own error is about 1e-11 of that.
    """
    arrays = [np.array(array, np.float64) for array in arrays]
    shape = operation(*map(Tensor, arrays)).shape
    upstream = _upstream(seed, shape)
    _, gradients, _ = forward_backward(operation, arrays, upstream)
    expected = numerical_gradients(lambda *values: operation(*map(Tensor, values)).data, arrays, upstream)
    scale = max((np.abs(gradient).max(initial=0) for gradient in expected), default=0) + 1e-3
    for position, (gradient, number) in enumerate(zip(gradients, expected, strict=True)):
        np.testing.assert_allclose(
            gradient, number, rtol=0, atol=tolerance * scale, err_msg=f"gradient of input {position}"
        )


def _upstream(seed, shape):
    """Random, and independent of what a test draws from the same ``seed``."""
    return np.random.default_rng([seed, 0xBAC]).standard_normal(shape)


def check_politeness(operation, *arrays, seed=0):
    """float32 stays float32, inputs and upstream stay as they are, gradients own their memory, strides are free."""
    _check_float32_and_values(operation, arrays, seed)
    _check_strides(operation, arrays, seed)


def _check_float32_and_values(operation, arrays, seed):
    arrays = [frozen(np.asarray(array, np.float32)) for array in arrays]
    copies = [array.copy() for array in arrays]
    plain = operation(*map(Tensor, arrays))
    assert isinstance(plain.data, np.ndarray)
    upstream = frozen(_upstream(seed, plain.shape).astype(np.float32))
    upstream_copy = upstream.copy()
    output, gradients, saved = forward_backward(operation, arrays, upstream)
    for array in (output, *gradients, *saved):
        assert array.dtype == np.float32 or array.dtype.kind in "iub", f"float32 became {array.dtype}"
    for array, copy in zip((*arrays, upstream), (*copies, upstream_copy), strict=True):
        np.testing.assert_array_equal(array, copy, "an operation wrote into its input")
    for gradient, array in zip(gradients, arrays, strict=True):
        assert isinstance(gradient, np.ndarray)
        assert gradient.shape == array.shape
    for gradient, other in itertools.combinations((*gradients, *arrays, upstream), 2):
        if any(gradient is each for each in gradients):
            assert not np.may_share_memory(gradient, other), "a gradient shares memory with another array"


def _check_strides(operation, arrays, seed):
    arrays = [np.array(array, np.float64) for array in arrays]
    shape = operation(*map(Tensor, arrays)).shape
    upstream = _upstream(seed, shape)
    output, gradients, _ = forward_backward(operation, arrays, upstream)
    for layout in (fortran, reversed_, spaced, channels_last):
        strided, strided_gradients, _ = forward_backward(operation, list(map(layout, arrays)), layout(upstream))
        for got, expected in zip((strided, *strided_gradients), (output, *gradients), strict=True):
            scale = np.abs(expected).max(initial=0)
            np.testing.assert_allclose(got, expected, rtol=0, atol=1e-13 * (1 + scale), err_msg=layout.__name__)


def frozen(array):
    """A copy of ``array`` that can't be written."""
    copy = array.copy()
    copy.flags.writeable = False
    return copy


def fortran(array):
    """The same numbers, first axis fastest."""
    return np.array(array, order="F")


def reversed_(array):
    """The same numbers with negative strides."""
    backwards = (slice(None, None, -1),) * array.ndim
    return array[backwards].copy()[backwards] if array.ndim else array


def spaced(array):
    """The same numbers, a gap of one NaN after each: reading a gap shows."""
    if not array.ndim:
        return array
    wide = np.full((*array.shape[:-1], 2 * array.shape[-1]), np.nan, array.dtype)
    wide[..., ::2] = array
    return wide[..., ::2]


def channels_last(array):
    """The same numbers, axis 1 fastest."""
    if array.ndim < 2:
        return array
    return np.moveaxis(np.ascontiguousarray(np.moveaxis(array, 1, -1)), -1, 1)
