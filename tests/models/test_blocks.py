"""Blocks: the equations of both papers, as identities that hold to rounding."""

from __future__ import annotations

import numpy as np
import pytest

from minires import Tensor, functional, models, nn
from minires.models.resnet import stages
from tests.questions import graph

OPTIONS = {"fan": "fan_in"}


def rng(seed=0):
    return np.random.default_rng(seed)


def images(*shape, seed=1):
    return Tensor(rng(seed).standard_normal(shape), requires_grad=True)


def basic(shortcut="A", in_channels=4, channels=4, stride=1):
    return models.BasicBlock(in_channels, channels, stride, shortcut=shortcut, rng=rng(), **OPTIONS).astype(np.float64)


def bottleneck(shortcut="B", in_channels=8, channels=2, stride=1):
    return models.Bottleneck(in_channels, channels, stride, shortcut=shortcut, rng=rng(), **OPTIONS).astype(np.float64)


def preactivation(kind=models.PreActivationBlock, in_channels=4, channels=4, stride=1, **options):
    return kind(in_channels, channels, stride, rng=rng(), **{"shortcut": "A", **OPTIONS, **options}).astype(np.float64)


def residual(block, x):
    """F(x), written out from the papers: what a block adds to its shortcut."""
    if isinstance(block, models.PlainBlock):
        return block.bn2(block.conv2(functional.relu(block.bn1(block.conv1(x)))))
    if isinstance(block, models.Bottleneck):
        inner = functional.relu(block.bn2(block.conv2(functional.relu(block.bn1(block.conv1(x))))))
        return block.bn3(block.conv3(inner))
    activated = functional.relu(block.bn1(x)) if block.activates != "nothing" else x
    inner = block.conv2(functional.relu(block.bn2(block.conv1(activated))))
    return block.conv3(functional.relu(block.bn3(inner))) if hasattr(block, "conv3") else inner


# ---- one block -----------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [basic, bottleneck])
def test_a_block_of_2015_is_relu_of_f_plus_x(make):
    """Equation (1) and the second nonlinearity behind the addition."""
    block = make()
    x = images(2, block.conv1.in_channels, 5, 6)
    np.testing.assert_allclose(block(x).data, np.maximum(residual(block, x).data + x.data, 0), atol=1e-14)


@pytest.mark.parametrize("kind", [models.PreActivationBlock, models.PreActivationBottleneck])
def test_a_block_of_2016_is_f_plus_x(kind):
    """Figure 4e: nothing behind the addition."""
    block = preactivation(kind, 4 * kind.expansion)
    x = images(2, 4 * kind.expansion, 5, 6)
    np.testing.assert_allclose(block(x).data, residual(block, x).data + x.data, atol=1e-14)


def test_a_plain_block_has_no_shortcut():
    block = models.PlainBlock(3, 4, 2, rng=rng(), **OPTIONS).astype(np.float64)
    x = images(2, 3, 5, 6)
    np.testing.assert_allclose(block(x).data, np.maximum(residual(block, x).data, 0), atol=1e-14)


@pytest.mark.parametrize("make", [basic, bottleneck])
def test_a_block_of_2015_without_residual_is_relu_both_ways(make):
    block = make()
    last = block.bn3 if isinstance(block, models.Bottleneck) else block.bn2
    last.weight.data[:] = 0
    x = images(2, block.conv1.in_channels, 5, 6)
    y = block(x)
    np.testing.assert_array_equal(y.data, np.maximum(x.data, 0))
    upstream = rng(2).standard_normal(y.shape)
    y.backward(upstream)
    np.testing.assert_array_equal(x.grad, upstream * (x.data > 0))
    for name, parameter in block.named_parameters():
        assert parameter.grad.any() == (parameter is last.weight or parameter is last.bias), name


@pytest.mark.parametrize("kind", [models.PreActivationBlock, models.PreActivationBottleneck])
def test_a_block_of_2016_without_residual_is_the_identity_both_ways(kind):
    block = preactivation(kind, 4 * kind.expansion)
    last = block.conv3 if hasattr(block, "conv3") else block.conv2
    last.weight.data[...] = 0
    x = images(2, 4 * kind.expansion, 5, 6)
    y = block(x)
    np.testing.assert_array_equal(y.data, x.data)
    upstream = rng(2).standard_normal(y.shape)
    y.backward(upstream)
    np.testing.assert_array_equal(x.grad, upstream)


def test_a_projection_that_is_the_identity_matrix_equals_no_projection_in_2016():
    """Equation (2) with W_s = I is equation (1)."""
    plain, projected = preactivation(), preactivation(shortcut="C")
    state = plain.state_dict()
    projected.load_state_dict({**state, "downsample.0.weight": np.eye(4)[:, :, None, None]})
    x = images(2, 4, 5, 6)
    np.testing.assert_array_equal(projected(x).data, plain(x).data)


def test_a_projection_that_is_the_identity_matrix_equals_no_projection_in_2015():
    """Its batch norm is the identity, too, when it evaluates with mean 0 and variance 1 - eps."""
    plain, projected = basic().eval(), basic("C").eval()
    norm = {"weight": np.ones(4), "bias": np.zeros(4), "running_mean": np.zeros(4), "running_var": np.full(4, 1 - 1e-5)}
    identity = {f"downsample.1.{name}": array for name, array in {**norm, "num_batches_tracked": 0}.items()}
    identity["downsample.0.weight"] = np.eye(4)[:, :, None, None]
    projected.load_state_dict({**plain.state_dict(), **identity})
    x = images(2, 4, 5, 6)
    np.testing.assert_allclose(projected(x).data, plain(x).data, rtol=1e-14)


@pytest.mark.parametrize("shortcut", ["A", "B", "C"])
def test_where_dimensions_change_the_shortcut_changes_them(shortcut):
    block = basic(shortcut, in_channels=3, channels=5, stride=2)
    x = images(2, 3, 5, 6)
    way = block.downsample(x)
    assert way.shape == (2, 5, 3, 3)
    np.testing.assert_allclose(block(x).data, np.maximum(residual(block, x).data + way.data, 0), atol=1e-14)
    if shortcut == "A":
        np.testing.assert_array_equal(way.data[:, :3], x.data[:, :, ::2, ::2])
        assert not way.data[:, 3:].any()


def test_shortcuts_are_identities_where_dimensions_stay_in_options_a_and_b():
    make = models.make_shortcut
    for option in ("A", "B"):
        assert isinstance(make(option, 4, 4, 1, normalized=True, rng=rng()), nn.Identity)
    assert isinstance(make("C", 4, 4, 1, normalized=True, rng=rng()), nn.Sequential)
    assert isinstance(make("A", 4, 8, 2, normalized=True, rng=rng()), models.SubsampleAndPad)
    with pytest.raises(ValueError, match="shortcut: option must be 'A', 'B' or 'C', got 'a'"):
        make("a", 4, 8, 2, normalized=True, rng=rng())
    with pytest.raises(ValueError, match="option A can't go from 8 to 4 channels; use option 'B'"):
        make("A", 8, 4, 2, normalized=True, rng=rng())


# ---- many blocks ---------------------------------------------------------------------------------


def deep(name, widths=(4, 4, 4)):
    return models.create(name, widths=widths, num_classes=3, rng=rng()).astype(np.float64)


def test_every_output_of_a_2015_net_is_at_least_zero_and_of_a_2016_net_takes_both_signs():
    for name, both_signs in (("resnet20", False), ("preact_resnet20", True)):
        net = deep(name)
        x = images(2, 3, 8, 8)
        x = net.bn1(net.conv1(x), relu=True) if name == "resnet20" else net.conv1(x)
        for stage in stages(net):
            for block in stage:
                x = block(x)
                assert x.data.max() > 0
                assert (x.data.min() < 0) == both_signs


def units_and_residuals(blocks, x):
    """[x_l, ..., x_L] and [F(x_l), ..., F(x_{L-1})]."""
    states, residuals = [x], []
    for block in blocks:
        residuals.append(residual(block, x))
        x = block(x)
        states.append(x)
    return states, residuals


def test_equation_4_of_2016_any_state_is_any_earlier_one_plus_the_residuals_between():
    blocks = [preactivation(activates="residual") for _ in range(10)]
    for seed, block in enumerate(blocks):
        block.conv2.weight.data[...] = rng(seed).standard_normal(block.conv2.weight.shape) * 0.2
    states, residuals = units_and_residuals(blocks, images(2, 4, 6, 5))
    for l, L in [(0, 10), (0, 1), (3, 7), (9, 10), (2, 10)]:
        between = sum(each.data for each in residuals[l:L])
        assert np.abs(states[L].data - (states[l].data + between)).max() < 1e-12


def test_equation_4_fails_for_blocks_of_2015_once_a_sum_is_negative():
    blocks = [basic() for _ in range(4)]
    states, residuals = units_and_residuals(blocks, images(2, 4, 6, 5))
    between = sum(each.data for each in residuals)
    assert np.abs(states[-1].data - (states[0].data + between)).max() > 0.1


def test_equation_5_of_2016_the_gradient_is_the_upstream_one_plus_a_term_through_the_residuals():
    blocks = [preactivation() for _ in range(5)]
    upstream = rng(3).standard_normal((2, 4, 6, 5))
    whole, parts = images(2, 4, 6, 5), images(2, 4, 6, 5)
    units_and_residuals(blocks, whole)[0][-1].backward(upstream)
    _, residuals = units_and_residuals(blocks, parts)
    total = residuals[0]
    for each in residuals[1:]:
        total = total + each
    total.backward(upstream)
    assert np.abs(whole.grad - (upstream + parts.grad)).max() < 1e-12


def test_appended_blocks_without_residual_leave_a_net_s_loss_unchanged():
    """Why a deeper net should not be worse: the construction of the 2015 paper's introduction."""
    for name in ("resnet8", "preact_resnet8"):
        net = deep(name)
        x, target = images(2, 3, 8, 8), [0, 2]
        before = functional.cross_entropy(net(x), target).item()
        for position, stage in enumerate(stages(net), start=1):
            block = basic() if name == "resnet8" else preactivation()
            (block.bn2 if name == "resnet8" else block.conv2).weight.data[...] = 0
            setattr(net, f"layer{position}", nn.Sequential(*stage, block))
        assert sum(len(stage) for stage in stages(net)) == 6
        assert functional.cross_entropy(net(x), target).item() == before


# ---- the first and last unit of pre-activation nets ----------------------------------------------


def consumers(tensor):
    """Creator -> the Functions that read its output, in the graph of ``tensor``."""
    readers = {}
    for function in graph(tensor):
        for source in function.inputs:
            if source is not None and source.creator is not None:
                readers.setdefault(source.creator, []).append(function)
    return readers


def creator_of(tensor, weight):
    """The convolution or linear layer of the graph that reads ``weight``."""
    return next(function for function in graph(tensor) if any(weight is source for source in function.inputs))


def kinds(functions):
    return sorted(type(function).__name__ for function in functions)


def test_exactly_one_activation_stands_between_the_stem_and_both_ways_of_the_first_unit():
    """He et al. 2016, appendix: "right after conv1, before splitting into two paths"."""
    net = deep("preact_resnet14")
    logits = net(images(2, 3, 8, 8))
    readers = consumers(logits)
    (norm,) = readers[creator_of(logits, net.conv1.weight)]
    (relu,) = readers[norm]
    assert kinds([norm, relu]) == ["BatchNorm", "ReLU"]
    ways = readers[relu]
    assert kinds(ways) == ["Add", "Conv2d"]
    assert creator_of(logits, net.layer1[0].conv1.weight) in ways
    (addition,) = (way for way in ways if type(way).__name__ == "Add")
    # the second unit's shortcut takes the raw sum, its residual branch the activated one
    assert kinds(readers[addition]) == ["Add", "BatchNorm"]


def test_the_stem_of_an_imagenet_net_activates_and_its_first_unit_does_not():
    net = models.create("preact_resnet18", widths=(64, 2, 2, 2), num_classes=3)
    logits = net(Tensor(images(1, 3, 64, 64).data.astype(np.float32)))
    readers = consumers(logits)
    (norm,) = readers[creator_of(logits, net.conv1.weight)]
    (relu,) = readers[norm]
    (pool,) = readers[relu]
    assert kinds([norm, relu, pool]) == ["BatchNorm", "MaxPool2d", "ReLU"]
    assert kinds(readers[pool]) == ["Add", "Conv2d"]


def test_where_channels_change_both_ways_take_the_activated_input():
    net = models.create("preact_resnet164", widths=(1, 1, 2)).astype(np.float64)
    logits = net(images(1, 3, 8, 8))
    for stage in stages(net):
        first = creator_of(logits, stage[0].conv1.weight)
        projection = creator_of(logits, stage[0].downsample[0].weight)
        assert first.inputs[0] is projection.inputs[0]
        assert type(first.inputs[0].creator).__name__ == "ReLU"


def test_an_activation_follows_the_last_addition():
    net = deep("preact_resnet8")
    logits = net(images(2, 3, 8, 8))
    source, chain = logits.creator.inputs[0], []
    while len(chain) < 5:
        chain.append(type(source.creator).__name__)
        source = source.creator.inputs[0]
    assert chain == ["Reshape", "AdaptiveAvgPool2d", "ReLU", "BatchNorm", "Add"]


def test_a_2016_net_without_residuals_is_its_shortcut_chain():
    """logits = fc(pool(relu(bn(shortcuts)))): what the signal passes when every F is 0."""
    net = deep("preact_resnet14", widths=(2, 4, 6))
    for stage in stages(net):
        for block in stage:
            block.conv2.weight.data[...] = 0
    x = images(2, 3, 8, 8)
    way = net.conv1(x)
    for position, stage in enumerate(stages(net)):
        way = functional.relu(stage[0].bn1(way))
        if position:
            way = functional.subsample_and_pad(way, (2, 4, 6)[position], 2)
    way = functional.relu(net.bn_last(way)).mean((2, 3))
    np.testing.assert_allclose(net(x).data, net.fc(way).data, atol=1e-13)
