"""Windows that see padding alone, or nearly: every way to lie beside an image, down and across, at once.

Fast implementations pack images with the zeros around them; where a window, a stride or a dilation is longer than the
image, what is to be packed may have less room than the zeros.
"""

from itertools import product

import pytest

from minires_kernels.window import Window
from tests import oracles
from tests.kernels.cases import convolved
from tests.kernels.test_contract import assert_near, call, every_implementation_of

# Along one axis: pixels, and size, stride, padding and dilation of the window
AXES = {
    "sees pixels": (3, 2, 1, 1, 1),
    "before the image": (1, 1, 5, 2, 1),
    "just before the image": (4, 2, 9, 2, 1),
    "before and behind it": (2, 1, 7, 3, 1),
    "before, on and behind it": (2, 2, 2, 4, 1),
    "taps on both sides of it": (2, 2, 1, 3, 5),
    "every second tap, far before it": (1, 3, 6, 8, 2),
}
PAIRS = list(product(AXES, AXES))


def geometry(down, across):
    """(H, W) and the window."""
    pixels, *options = zip(AXES[down], AXES[across], strict=True)
    size, stride, padding, dilation = options
    return pixels, Window(size, stride, padding, dilation)


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize(("down", "across"), PAIRS)
@every_implementation_of("convolution")
def test_convolutions(implementation, down, across, groups, rng):
    (H, W), window = geometry(down, across)
    x, weight = rng.normal(size=(2, 4, H, W)), rng.normal(size=(6, 4 // groups, *window.size))
    grad_output = rng.normal(size=(2, 6, *window.output_size(H, W)))
    calls = (
        ("forward", x, weight, window, groups),
        ("grad_input", grad_output, weight, x.shape, window, groups),
        ("grad_weight", grad_output, x, window, groups),
    )
    for arguments, expected in zip(calls, convolved(x, weight, grad_output, window, groups), strict=True):
        assert_near(call("convolution", implementation, *arguments), (expected,), 1e-12)


@pytest.mark.parametrize(("down", "across"), PAIRS)
@every_implementation_of("patches")
def test_patches(implementation, down, across, rng):
    (H, W), window = geometry(down, across)
    x, options = rng.normal(size=(2, 3, H, W)), (window.size, window.stride, window.padding, window.dilation)
    columns = oracles.im2col(x, *options)
    assert_near(call("patches", implementation, "im2col", x, window), (columns,), 0)
    upstream = rng.normal(size=columns.shape)
    image = oracles.col2im(upstream, x.shape, *options)
    assert_near(call("patches", implementation, "col2im", upstream, x.shape, window), (image,), 1e-12)
