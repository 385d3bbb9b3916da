"""Every block of both papers, with every shortcut, stride and activation order, gradient-checked."""

import itertools

import numpy as np
import pytest

import minires
from minires.models.preactivation import PreActivationBlock, PreActivationBottleneck
from minires.models.resnet import BasicBlock, Bottleneck, PlainBlock


def normal(*shape):
    return np.random.default_rng(7).standard_normal(shape)


def settings():
    return {"rng": np.random.default_rng(1), "fan": "fan_in"}


def randomized(block):
    """Batch norms with weights and biases that aren't 1 and 0, so that their gradients have something to show."""
    rng = np.random.default_rng(2)
    for name, parameter in block.named_parameters():
        if parameter.ndim == 1:
            parameter.data = (parameter.data + 0.3 * rng.standard_normal(parameter.shape)).astype(np.float32)
        assert name
    return block


def assert_right(block, x):
    report = minires.gradcheck(randomized(block), x, mode="fast")
    assert report
    assert {"x"} < {comparison.name for comparison in report.comparisons}
    assert all(comparison.analytic is not None for comparison in report.comparisons)


@pytest.mark.parametrize("stride", [1, 2])
def test_plain_block(stride):
    assert_right(PlainBlock(2, 3, stride, **settings()), normal(2, 2, 4, 3))


SHORTCUTS = [
    (option, channels, stride) for option, channels, stride in itertools.product("ABC", (2, 4), (1, 2))
]  # channels kept or doubled, size kept or halved


@pytest.mark.parametrize(("option", "channels", "stride"), SHORTCUTS)
def test_basic_block(option, channels, stride):
    assert_right(BasicBlock(2, channels, stride, shortcut=option, **settings()), normal(2, 2, 4, 3))


@pytest.mark.parametrize("stride_on_3x3", [False, True], ids=["stride first", "stride on 3x3"])
@pytest.mark.parametrize(("option", "in_channels", "stride"), [("A", 4, 1), ("A", 2, 2), ("B", 2, 2), ("C", 4, 1)])
def test_bottleneck(option, in_channels, stride, stride_on_3x3):
    block = Bottleneck(in_channels, 1, stride, shortcut=option, stride_on_3x3=stride_on_3x3, **settings())
    assert_right(block, normal(3, in_channels, 4, 3))


@pytest.mark.parametrize("activates", ["residual", "both", "nothing"])
@pytest.mark.parametrize(("option", "channels", "stride"), SHORTCUTS)
def test_pre_activation_block(option, channels, stride, activates):
    block = PreActivationBlock(2, channels, stride, shortcut=option, activates=activates, **settings())
    assert_right(block, normal(2, 2, 4, 3))


@pytest.mark.parametrize("activates", ["residual", "both", "nothing"])
@pytest.mark.parametrize(("option", "in_channels", "stride"), [("A", 4, 1), ("A", 2, 2), ("B", 2, 2), ("C", 4, 1)])
def test_pre_activation_bottleneck(option, in_channels, stride, activates):
    block = PreActivationBottleneck(in_channels, 1, stride, shortcut=option, activates=activates, **settings())
    assert_right(block, normal(3, in_channels, 4, 3))


def test_a_block_in_evaluation():
    block = BasicBlock(2, 3, 2, shortcut="B", **settings())
    block.bn1.running_mean += 0.1
    block.eval()
    assert_right(block, normal(2, 2, 4, 3))


@pytest.mark.parametrize("part", ["identity", "branch"])
def test_a_block_that_loses_a_part_of_the_gradient_fails(part):
    class Detached(BasicBlock):
        def forward(self, x):
            inner, outer = (x, x.detach()) if part == "identity" else (x.detach(), x)
            inner = self.bn2(self.conv2(self.bn1(self.conv1(inner), relu=True)))
            return inner + self.downsample(outer)

    block = Detached(2, 2, 1, shortcut="A", **settings())
    report = minires.gradcheck(block, normal(2, 2, 4, 3), mode="fast")
    assert not report
    assert [comparison.name for comparison in report.comparisons if not comparison.ok] == ["x"]
