"""Kinks inside whole nets: a right net placed on them checks clean, and the report says what was left out, and why."""

import numpy as np
import pytest

import minires
from minires import Tensor, functional, models
from minires.checking.kinks import choices_of


def images(*shape):
    return np.random.default_rng(4).standard_normal(shape)


@pytest.mark.parametrize("name", ["resnet8", "resnet20"])
def test_a_resnet_with_channels_on_the_kink_checks_clean(name):
    net = models.create(name, widths=(2, 3, 4), rng=np.random.default_rng(0))
    norm = net.layer1[0].bn1
    norm.weight.data[1] = norm.bias.data[1] = 0.0  # every number of this channel is exactly 0 in front of its ReLU
    report = minires.gradcheck(net, images(2, 3, 6, 6), mode="fast")
    assert report
    assert report.excluded == 2
    assert report.kinks == {"layer1.0.bn1 (BatchNormReLU)": 2}
    excluded = {comparison.name: comparison.excluded for comparison in report.comparisons if comparison.excluded}
    assert excluded == {"layer1.0.bn1.weight": 1, "layer1.0.bn1.bias": 1}
    assert "1 on kinks of layer1.0.bn1" in str(report)


def test_an_image_on_the_kink_is_excluded_and_the_other_is_checked():
    net = models.create("preact_resnet8", widths=(2, 3, 4), rng=np.random.default_rng(0)).eval()
    x = images(2, 3, 4, 4)
    x[0] = 0.0  # in evaluation, with zero running means and biases, every pre-activation of this image is 0
    report = minires.gradcheck(net, x, mode="fast")
    assert report
    assert report.comparisons[0].excluded == 48
    checked = [p for p in report.comparisons[0].points if not p.numeric.excluded]
    assert sum(len(point.direction.elements) for point in checked) >= 48


def test_a_wrong_net_on_kinks_still_fails():
    net = models.create("resnet8", widths=(2, 3, 4), rng=np.random.default_rng(0))
    norm = net.layer1[0].bn1
    norm.weight.data[1] = norm.bias.data[1] = 0.0
    from minires.checking.mutants import MUTANTS, planted

    with planted(MUTANTS["conv_grad_x_border"]):
        report = minires.gradcheck(net, images(2, 3, 6, 6), mode="fast")
    assert not report
    assert "minires.checking.blame" in str(report)


def test_signatures_tell_the_piece():
    x = Tensor(np.array([[-2.0, 0.0, 3.0], [1.0, 1.0, -4.0]]), requires_grad=True)

    def signatures(y):
        return [signature.tolist() for signature in choices_of(y, {}).signatures]

    assert signatures(functional.relu(x)) == [[[False, False, True], [True, True, False]]]
    assert signatures(abs(x)) == [[[-1, 0, 1], [1, 1, -1]]]
    assert signatures(x.clip(-1, 2)) == [[[-1, 0, 1], [0, 0, -1]]]
    assert signatures(x.clip(None, 2)) == [[[0, 0, 1], [0, 0, 0]]]
    assert signatures(x.max(1)) == [[2, 0]]
    assert signatures(x.max()) == [2]
    assert signatures(functional.max_pool2d(x.reshape(1, 1, 2, 3), (2, 3))) == [[[[[2]]]]]
    assert signatures(functional.where(x.data > 0, x, -x)) == [(x.data > 0).tolist()]
    assert signatures(functional.tanh(x * x)) == []


def test_the_count_of_crossed_choices_is_by_node():
    x = Tensor(np.array([-1.0, 1.0, 2.0]), requires_grad=True)
    y = Tensor(np.array([1.0, -1.0, 2.0]), requires_grad=True)
    one, two = (choices_of(abs(functional.relu(t)), {}) for t in (x, y))
    assert one.crossed(two) == {"ReLU": 2, "Abs": 2}
    assert one.crossed(one) == {}
    assert one.crossed(choices_of(abs(x), {})) == {"another branch of the code": 1}
