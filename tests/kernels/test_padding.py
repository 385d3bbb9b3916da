"""Windows that see padding alone, or nearly: every way to lie beside an image, down and across, at once.

Fast implementations pack images with the zeros around them; where a window, a stride or a dilation is longer than the
image, what is to be packed may have less room than the zeros.
"""

from itertools import product

import numpy as np
import pytest

from minires_kernels import available, convolution, patches, using
from minires_kernels.window import Window
from tests import oracles
from tests.kernels.cases import convolved

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
@pytest.mark.parametrize("implementation", available("convolution", "cpu"))
def test_convolutions(implementation, down, across, groups, rng):
    (H, W), window = geometry(down, across)
    x, weight = rng.normal(size=(2, 4, H, W)), rng.normal(size=(6, 4 // groups, *window.size))
    grad_output = rng.normal(size=(2, 6, *window.output_size(H, W)))
    with using(implementation):
        results = (
            convolution.forward(x, weight, window, groups),
            convolution.grad_input(grad_output, weight, x.shape, window, groups),
            convolution.grad_weight(grad_output, x, window, groups),
        )
    for result, expected in zip(results, convolved(x, weight, grad_output, window, groups), strict=True):
        np.testing.assert_allclose(result, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize(("down", "across"), PAIRS)
@pytest.mark.parametrize("implementation", available("patches", "cpu"))
def test_patches(implementation, down, across, rng):
    (H, W), window = geometry(down, across)
    x, options = rng.normal(size=(2, 3, H, W)), (window.size, window.stride, window.padding, window.dilation)
    expected = oracles.im2col(x, *options)
    columns = rng.normal(size=expected.shape)
    with using(implementation):
        np.testing.assert_array_equal(patches.im2col(x, window), expected)
        image = patches.col2im(columns, x.shape, window)
    np.testing.assert_allclose(image, oracles.col2im(columns, x.shape, *options), rtol=0, atol=1e-12)
