"""Changes of shape: torch's keywords, and what is refused, in our words."""

from __future__ import annotations

import inspect

import numpy as np
import pytest

from minires import Tensor

x = Tensor(np.random.default_rng(0).standard_normal((2, 3, 4)))


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        (lambda: x.flatten(start_dim=1), lambda: x.flatten(start_axis=1)),
        (lambda: x.flatten(0, end_dim=1), lambda: x.flatten(0, 1)),
        (lambda: x.transpose(dim0=0, dim1=1), lambda: x.transpose(0, 1)),
    ],
)
def test_torch_s_keywords_mean_ours(theirs, ours):
    np.testing.assert_array_equal(theirs().data, ours().data)


def test_both_names_are_refused_and_help_shows_ours():
    with pytest.raises(TypeError, match="flatten: start_axis and start_dim are two names of one argument"):
        x.flatten(1, start_dim=1)
    assert list(inspect.signature(Tensor.flatten).parameters) == ["self", "start_axis", "end_axis"]
    assert list(inspect.signature(Tensor.sum).parameters) == ["self", "axis", "keepdims"]
    assert Tensor.sum.__doc__.startswith("The sum over ")


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: x.reshape(None), TypeError, "reshape: each length must be an integer, got None"),
        (lambda: x.reshape(2.0, 12), TypeError, r"reshape: each length must be an integer, got 2\.0"),
        (lambda: x.reshape((True, 24)), TypeError, "reshape: each length must be an integer, got True"),
        (lambda: x.reshape("ab"), TypeError, "reshape: each length must be an integer, got 'a'"),
        (lambda: x.reshape((2, 3), 4), TypeError, r"reshape: each length must be an integer, got \(2, 3\)"),
        (lambda: x.reshape(), ValueError, r"reshape: shape \(2, 3, 4\) has 24 elements, \(\) has 1"),
        (lambda: x.reshape(2**70, 24), ValueError, "reshape: each length must be an integer of 64 bits, got 1180"),
        (lambda: x.reshape(2**60, 24), ValueError, r"reshape: shape \(2, 3, 4\) has 24 elements, \(1152"),
        (lambda: x.reshape(0, -1), ValueError, r"reshape: cannot turn shape \(2, 3, 4\) into \(0, -1\)"),
        (lambda: x[:0].reshape(0, 2**40, 2**40), ValueError, r"reshape: .*\(0, 3, 4\).*too large"),
        (lambda: x[:0].reshape([1] * 65 + [0]), ValueError, "reshape: .*66 axes; NumPy has at most 64"),
        (lambda: x.permute(None), TypeError, "permute: each axis must be an integer, got None"),
        (lambda: x.permute(0, 1.0, 2), TypeError, r"permute: each axis must be an integer, got 1\.0"),
        (lambda: x.permute(), ValueError, r"permute: \(\) doesn't name each axis of shape \(2, 3, 4\) once"),
        (lambda: x.transpose("a"), TypeError, "transpose: axis0 must be an integer, got 'a'"),
        (lambda: x.transpose(0, None), TypeError, "transpose: axis1 must be an integer, got None"),
        (lambda: x.transpose(0, 3), ValueError, r"transpose: axis1 3 doesn't exist in shape \(2, 3, 4\)"),
        (lambda: Tensor(1.0).transpose(), ValueError, r"transpose: axis0 -2 doesn't exist in shape \(\)"),
        (lambda: x.flatten("a"), TypeError, "flatten: start_axis must be an integer, got 'a'"),
        (lambda: x.flatten(0, None), TypeError, "flatten: end_axis must be an integer, got None"),
        (lambda: x.flatten(3), ValueError, r"flatten: start_axis 3 doesn't exist in shape \(2, 3, 4\)"),
        (lambda: x.flatten(0, -4), ValueError, r"flatten: end_axis -4 doesn't exist in shape \(2, 3, 4\)"),
    ],
)
def test_what_does_not_fit_is_refused_in_our_words(call, error, message):
    with pytest.raises(error, match=f"^{message}"):
        call()


def test_lists_and_numpy_integers_are_shapes_too():
    assert x.reshape([np.int64(6), -1]).shape == (6, 4)
    assert x.permute([2, 0, 1]).shape == x.permute(np.int8(2), 0, 1).shape == (4, 2, 3)
    assert Tensor(1.0).flatten().shape == (1,)
