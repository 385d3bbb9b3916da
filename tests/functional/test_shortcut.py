"""subsample_and_pad: the parameter-free shortcut, option A."""

from __future__ import annotations

import numpy as np
import pytest

from minires import Tensor
from minires.functional import subsample_and_pad
from tests import oracles_net
from tests.questions import check_gradients, check_politeness, forward_backward

CASES = [((2, 2, 4, 6), 4, 2), ((1, 3, 7, 5), 3, 2), ((2, 1, 5, 5), 3, 1), ((1, 2, 7, 8), 5, 3), ((0, 2, 4, 4), 4, 2)]


@pytest.mark.parametrize(("shape", "channels", "stride"), CASES)
def test_value_gradient_and_manners(shape, channels, stride):
    x = np.random.default_rng(0).standard_normal(shape)
    y = subsample_and_pad(Tensor(x), channels, stride)
    np.testing.assert_array_equal(y.data, oracles_net.subsample_and_pad(x, channels, stride))
    check_gradients(lambda t: subsample_and_pad(t, channels, stride), x)
    check_politeness(lambda t: subsample_and_pad(t, channels, stride), x)


@pytest.mark.parametrize(("shape", "channels", "stride"), CASES)
def test_backward_is_the_exact_adjoint(shape, channels, stride):
    rng = np.random.default_rng(1)
    x = rng.standard_normal(shape)
    upstream = rng.standard_normal(subsample_and_pad(Tensor(x), channels, stride).shape)
    y, (grad_x,), _ = forward_backward(lambda t: subsample_and_pad(t, channels, stride), [x], upstream)
    assert (y * upstream).sum() == pytest.approx((x * grad_x).sum(), abs=1e-13)


def test_new_channels_are_appended_and_pixels_are_taken_from_the_corner():
    x = np.arange(1, 10, dtype=np.float32).reshape(1, 1, 3, 3)
    y = subsample_and_pad(Tensor(x), 2, 2).data
    assert y[0, 0].tolist() == [[1, 3], [7, 9]]
    assert not y[0, 1].any()


def test_odd_sizes_are_halved_upwards_as_a_padded_3x3_convolution_halves_them():
    assert subsample_and_pad(Tensor(np.zeros((1, 1, 7, 9), np.float32)), 1, 2).shape == (1, 1, 4, 5)


@pytest.mark.parametrize(("channels", "stride"), [(2, 1), (3, 0), (0, 1)])
def test_fewer_channels_or_no_stride_is_refused(channels, stride):
    message = (
        rf"subsample_and_pad: channels must be at least C = 3 and stride at least 1, got channels = {channels}, "
        rf"stride = {stride}; x \(1, 3, 4, 4\)"
    )
    with pytest.raises(ValueError, match=message):
        subsample_and_pad(Tensor(np.zeros((1, 3, 4, 4), np.float32)), channels, stride)


def test_another_rank_or_type_is_refused():
    with pytest.raises(ValueError, match=r"subsample_and_pad: x must be \(N, C, H, W\), got shape \(3, 4, 4\)"):
        subsample_and_pad(Tensor(np.zeros((3, 4, 4), np.float32)), 4)
    with pytest.raises(TypeError, match="subsample_and_pad: x must be a Tensor"):
        subsample_and_pad(np.zeros((1, 3, 4, 4)), 4)
