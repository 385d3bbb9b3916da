"""float32 against float64 in units of rounding."""

import numpy as np
import pytest

from minires import Function, functional, models
from minires.checking import check_float32


def normal(*shape):
    return np.random.default_rng(8).standard_normal(shape)


RIGHT = {
    "conv2d": (lambda x, weight: functional.conv2d(x, weight, padding=1), normal(2, 3, 6, 5), normal(4, 3, 3, 3)),
    "batch_norm": (lambda x: functional.batch_norm(x, None, None, training=True), 3 + normal(4, 3, 5, 5)),
    "linear, large and small": (functional.linear, 1e4 * normal(3, 40), 1e-3 * normal(5, 40), normal(5)),
    "relu": (functional.relu, normal(30)),
    "cross_entropy": (lambda z: functional.cross_entropy(z, np.array([0, 2])), normal(2, 3)),
}


@pytest.mark.parametrize("name", RIGHT)
@pytest.mark.parametrize("seed", range(3))
def test_right_operations_stay_within_rounding(name, seed):
    report = check_float32(*RIGHT[name], seed=seed)
    assert report
    assert max(deviation.units for deviation in report.deviations) < 32


def test_one_wrong_border_pixel_exceeds_rounding_by_far():
    class Border(Function):
        """The identity; in float32 alone, one border element of its gradient is off by a thousandth."""

        def forward(self, x):
            return x.copy()

        def backward(self, grad_output):
            grad = grad_output.copy()
            if grad.dtype == np.float32:
                grad[0, -1] *= np.float32(1.001)
            return (grad,)

    report = check_float32(Border, normal(4, 5))
    assert not report
    worst = max(report.deviations, key=lambda deviation: deviation.units)
    assert worst.units > 1000
    assert worst.index == (0, 4)
    assert "DISAGREES" in str(report)


def test_a_float32_only_function_is_compared_with_a_reference():
    def single(x):
        assert x.dtype == np.float32
        return x * x

    assert check_float32(single, normal(5), reference=lambda x: x**2)
    assert not check_float32(single, normal(5), reference=lambda x: x**3)


def test_a_module_keeps_its_parameters():
    net = models.create("resnet8", widths=(2, 3, 4))
    state = net.state_dict()
    assert check_float32(net.eval(), normal(1, 3, 8, 8))
    for name, array in net.state_dict().items():
        assert array.dtype == state[name].dtype
        np.testing.assert_array_equal(array, state[name])
