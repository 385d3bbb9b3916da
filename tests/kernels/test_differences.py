"""Where two results differ: counted, named by their axes, the pattern seen; equal ones say nothing."""

import doctest

import numpy as np
import pytest

from minires_kernels import differences
from minires_kernels.differences import difference

NAMES = "y n o oh ow"


def test_the_example_is_right():
    assert doctest.testmod(differences).failed == 0


@pytest.mark.parametrize("dtype", ["float32", "float64", "int32"])
def test_equal_and_near_results_say_nothing(dtype):
    x = np.arange(24).reshape(2, 3, 4).astype(dtype)
    assert difference(x, x.astype("float64"), 0) == ""
    assert difference(x + 1, x, 1) == ""


def test_infinities_and_nan_must_stand_where_they_are_expected():
    expected = np.array([np.inf, -np.inf, np.nan, 1.0])
    assert difference(expected.copy(), expected, 1e-6) == ""
    for position, value in ((0, -np.inf), (1, 5.0), (2, 1.0), (3, np.nan), (3, np.inf)):
        found = expected.copy()
        found[position] = value
        assert f"1 of 4 elements is wrong; at ({position},): " in difference(found, expected, 1e300)


def test_a_difference_that_overflows_float32_is_one():
    x = np.array([3e38], "float32")
    assert "1 of 1 elements is wrong" in difference(-x, x, 1e-6)


def test_a_forgotten_border_is_seen_as_one():
    expected = np.ones((2, 3, 4, 5))
    found = expected.copy()
    found[:, :, 3] = 0
    text = difference(found, expected, 1e-6, NAMES)
    assert text.startswith(
        "y: 30 of 120 elements are wrong, all at oh = 3 (the last); (n, o, oh, ow) = (0, 0, 3, 0): 0 "
    )
    assert text.endswith("; and 27 more; 1e-06 is allowed")


def test_the_worst_are_named_first():
    expected = np.zeros((1, 1, 2, 3))
    found = expected.copy()
    found[0, 0, :, 1] = 0.5, -7
    found[0, 0, 0, 2] = np.nan
    text = difference(found, expected, 1e-6, NAMES)
    assert "(n, o, oh, ow) = (0, 0, 0, 2): nan where 0 is expected; (0, 0, 1, 1): -7 where 0" in text
    assert "all at" not in text


def test_axes_without_names_have_numbers():
    found = np.zeros((2, 3))
    found[1] = 1
    assert difference(found, np.zeros((2, 3)), 0.5).startswith(
        "result: 3 of 6 elements are wrong, all at axis 0 = 1 (the"
    )


def test_other_shapes_are_a_difference():
    assert (
        difference(np.zeros((2, 3)), np.zeros((3, 2)), 1, "y n k") == "y: the shape is (2, 3), but (3, 2) is expected"
    )
    assert difference(np.zeros((0, 3)), np.zeros((0, 3)), 1) == ""
