"""Window: the one equation of output sizes, against counting; its slices, against the definition of a tap."""

import dataclasses

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from minires_kernels import Window
from minires_kernels.window import as_pair
from tests.oracles import output_length

pairs_from_1 = st.tuples(st.integers(1, 5), st.integers(1, 5))
windows = st.builds(Window, pairs_from_1, pairs_from_1, st.tuples(st.integers(0, 5), st.integers(0, 5)), pairs_from_1)
lengths = st.integers(1, 14)


@given(windows, lengths, lengths, st.booleans())
def test_output_size_counts_the_positions_where_the_window_fits(window, H, W, ceil_mode):
    if ceil_mode:  # pooling's own limit: with more padding a whole window could lie behind the image
        assume(all(2 * padding <= span for padding, span in zip(window.padding, window.span, strict=True)))
    axes = zip((H, W), window.size, window.stride, window.padding, window.dilation, strict=True)
    counted = tuple(output_length(*axis, ceil_mode) for axis in axes)
    if 0 in counted:
        with pytest.raises(ValueError, match="smaller than the window"):
            window.output_size(H, W, ceil_mode=ceil_mode)
    else:
        assert window.output_size(H, W, ceil_mode=ceil_mode) == counted


@given(windows, lengths, lengths)
def test_taps_slice_the_padded_image_at_the_pixels_of_the_definition(window, H, W):
    (PH, PW), (SH, SW), (DH, DW) = window.padding, window.stride, window.dilation
    assume(window.span[0] <= H + 2 * PH and window.span[1] <= W + 2 * PW)
    OH, OW = window.output_size(H, W)
    rows, columns = np.indices((H + 2 * PH, W + 2 * PW))
    taps = list(window.taps(OH, OW))
    assert [(i, j) for i, j, _ in taps] == list(np.ndindex(*window.size))
    for i, j, pixels in taps:
        assert (rows[pixels] == np.arange(OH)[:, None] * SH + i * DH + np.zeros((1, OW))).all()
        assert (columns[pixels] == np.arange(OW) * SW + j * DW + np.zeros((OH, 1))).all()


def test_integers_count_for_both_directions_and_pairs_are_vertical_first():
    window = Window.of(3, stride=(2, 1), padding=np.int64(1), dilation=[1, 2])
    assert window == Window((3, 3), (2, 1), (1, 1), (1, 2))
    assert window.span == (3, 5)
    assert all(type(number) is int for number in window.padding)


def test_is_a_value_that_can_key_a_cache():
    assert len({Window.of(3), Window.of((3, 3)), Window.of(3, stride=2)}) == 2
    with pytest.raises(dataclasses.FrozenInstanceError):
        Window.of(3).size = (1, 1)


def test_reads_as_people_say_it():
    assert str(Window.of(3, stride=2, padding=1)) == "3x3, stride 2, padding 1"
    assert str(Window.of((7, 1), dilation=(2, 1))) == "7x1, dilation (2, 1)"


@pytest.mark.parametrize("value", [1.0, True, "3", None, (1, 2, 3), (), (1, 2.0)])
def test_refuses_what_is_neither_an_integer_nor_a_pair(value):
    with pytest.raises(TypeError, match="conv2d: stride must be an integer or a pair of integers, got "):
        Window.of(3, stride=value, op="conv2d")


@pytest.mark.parametrize(("name", "least"), [("stride", 1), ("dilation", 1), ("padding", 0)])
def test_refuses_what_is_too_small(name, least):
    with pytest.raises(ValueError, match=rf"max_pool2d: {name} must be at least {least}, got \(1, {least - 1}\)"):
        Window.of(3, op="max_pool2d", **{name: (1, least - 1)})
    with pytest.raises(ValueError, match="Window: kernel_size must be at least 1, got 0"):
        Window.of(0)


def test_as_pair_names_the_operation_and_the_argument():
    assert as_pair(4, "size", least=0) == (4, 4)
    with pytest.raises(ValueError, match="pad: widths must be at least 0, got -1"):
        as_pair(-1, "widths", least=0, op="pad")


def test_too_large_a_window_is_refused_with_every_size_and_the_cure():
    window = Window.of((3, 5), padding=(0, 1), dilation=2)
    with pytest.raises(ValueError, match="smaller than the window") as error:
        window.output_size(6, 6, op="conv2d")
    for part in ("conv2d:", "(6, 8)", "(5, 9)", "(H, W) = (6, 6)", "(3, 5)", "(0, 1)", "(2, 2)", "smaller kernel"):
        assert part in str(error.value)


@pytest.mark.parametrize("size", [3, (3,), (3, 2.0), (0, 3), "33", None])
def test_what_no_window_can_be_is_refused_with_the_cure(size):
    with pytest.raises(
        ValueError, match=r"Window: sizes, .* pairs of integers from 1 .*; Window\.of takes plain integers"
    ):
        Window(size)
