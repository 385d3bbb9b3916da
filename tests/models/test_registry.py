"""models.create: shapes at many sizes, options, and what is said about names and options that don't exist."""

from __future__ import annotations

import numpy as np
import pytest

from minires import Tensor, models, no_grad
from minires.models.resnet import stages


def walk(name, size, **options):
    """((channels, height) behind each stage, output shape) of a net on two square images of ``size``."""
    net = models.create(name, **options).eval()
    x = Tensor(np.random.default_rng(0).standard_normal((2, 3, size, size)).astype(np.float32))
    seen = []
    for stage in stages(net):
        stage.forward = _noting(stage.forward, seen)
    with no_grad():
        logits = net(x)
    assert np.isfinite(logits.data).all()
    return seen, logits.shape


def _noting(forward, seen):
    def noting(x):
        y = forward(x)
        assert y.shape[2] == y.shape[3]
        seen.append(y.shape[1:3])
        return y

    return noting


SIZES = {32: (32, 16, 8), 28: (28, 14, 7), 8: (8, 4, 2), 7: (7, 4, 2), 5: (5, 3, 2), 13: (13, 7, 4), 1: (1, 1, 1)}


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(
    ("name", "options"),
    [("plain8", {}), *((f"{kind}8", {"shortcut": option}) for kind in ("resnet", "preact_resnet") for option in "ABC")],
)
def test_cifar_nets_halve_upwards_at_any_size(name, options, size):
    seen, output = walk(name, size, widths=(3, 5, 6), **options)
    assert seen == list(zip((3, 5, 6), SIZES[size], strict=True))
    assert output == (2, 10)


@pytest.mark.parametrize(("size", "heights"), [(16, (16, 8, 4)), (9, (9, 5, 3))])
@pytest.mark.parametrize("name", ["resnet164", "preact_resnet164"])
def test_cifar_bottlenecks_have_four_times_the_width(name, size, heights):
    seen, output = walk(name, size, widths=(1, 2, 3))
    assert seen == list(zip((4, 8, 12), heights, strict=True))
    assert output == (2, 10)


@pytest.mark.parametrize(
    ("size", "heights"), [(64, (16, 8, 4, 2)), (32, (8, 4, 2, 1)), (33, (9, 5, 3, 2)), (57, (15, 8, 4, 2))]
)
@pytest.mark.parametrize(
    ("name", "expansion"),
    [("plain18", 1), ("resnet18", 1), ("resnet50", 4), ("preact_resnet18", 1), ("preact_resnet50", 4)],
)
def test_imagenet_nets_shrink_by_thirty_two(name, expansion, size, heights):
    seen, output = walk(name, size, widths=(1, 2, 3, 4), num_classes=7)
    assert seen == list(zip([expansion * width for width in (1, 2, 3, 4)], heights, strict=True))
    assert output == (2, 7)


def test_imagenet_s_own_size():
    assert walk("resnet18", 224, widths=(1, 1, 1, 1))[0] == [(1, 56), (1, 28), (1, 14), (1, 7)]


@pytest.mark.parametrize("name", ["plain20", "resnet20", "preact_resnet20"])
def test_other_inputs_and_classes(name):
    net = models.create(name, in_channels=1, num_classes=4, widths=(2, 3, 4))
    assert net(Tensor(np.zeros((3, 1, 8, 8), np.float32))).shape == (3, 4)


def test_input_of_the_wrong_depth_is_named_by_the_first_convolution():
    with pytest.raises(ValueError, match=r"conv2d: weight has 3 input channels per group, but x has C = 1"):
        models.create("resnet8")(Tensor(np.zeros((1, 1, 8, 8), np.float32)))


@pytest.mark.parametrize("stride_on_3x3", [False, True])
def test_stride_placement_of_bottlenecks(stride_on_3x3):
    net = models.create("resnet50", widths=(1, 1, 1, 1), stride_on_3x3=stride_on_3x3)
    for stage in stages(net)[1:]:
        block = stage[0]
        expected = ((1, 1), (2, 2)) if stride_on_3x3 else ((2, 2), (1, 1))
        assert (block.conv1.stride, block.conv2.stride) == expected
        assert block.conv3.stride == (1, 1)
        assert block.downsample[0].stride == (2, 2)
        assert stage[1].conv1.stride == (1, 1)


def test_preactivation_bottlenecks_stride_on_the_first_1x1():
    block = models.create("preact_resnet164", widths=(1, 1, 1)).layer2[0]
    assert (block.conv1.stride, block.conv2.stride, block.conv3.stride) == ((2, 2), (1, 1), (1, 1))


def test_projections_are_normalized_in_2015_and_bare_in_2016():
    assert len(models.create("resnet8", shortcut="B").layer2[0].downsample) == 2
    assert len(models.create("preact_resnet8", shortcut="B").layer2[0].downsample) == 1


# ---- names and options ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("resent20", "resnet20"),
        ("resnet57", "resnet56"),
        ("preactresnet110", "preact_resnet110"),
        ("resnet_18", "resnet18"),
        ("plain50", "plain20"),
        ("ResNet50", "resnet50"),
        ("resnet2", "resnet20"),
        ("resnet", "resnet"),
    ],
)
def test_an_unknown_name_is_answered_with_the_nearest(name, nearest):
    message = rf"models.create: there is no model '{name}'; the nearest: .*{nearest}.*every depth 6n \+ 2"
    with pytest.raises(ValueError, match=message):
        models.create(name)


def test_a_name_like_none_is_answered_with_all_names():
    with pytest.raises(ValueError, match=r"nearest: plain20, plain32, .*preact_resnet200"):
        models.create("xyz")


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("plain20", {"shortcut": "B"}, "models.create: plain20 has no option shortcut"),
        ("resnet20", {"stride_on_3x3": True}, "models.create: resnet20 has no option stride_on_3x3"),
        ("resnet18", {"stride_on_3x3": True}, "models.create: resnet18 has no option stride_on_3x3"),
        ("preact_resnet50", {"stride_on_3x3": True}, "models.create: preact_resnet50 has no option stride_on_3x3"),
        ("resnet20", {"shortcut": "D"}, "shortcut: option must be 'A', 'B' or 'C', got 'D'"),
        ("resnet20", {"widths": (1, 2)}, r"one positive width per stage, got units \(3, 3, 3\), widths \(1, 2\)"),
        ("resnet20", {"widths": (1, 2, 0)}, r"one positive width per stage, .* widths \(1, 2, 0\)"),
        ("resnet20", {"widths": (0, 2, 3)}, r"one positive width per stage, .* widths \(0, 2, 3\)"),
        ("resnet20", {"widths": ()}, r"one positive width per stage, .* widths \(\)"),
        ("preact_resnet20", {"widths": ()}, r"one positive width per stage, .* widths \(\)"),
        ("resnet18", {"widths": (1, 2, 3)}, r"one positive width per stage, .* widths \(1, 2, 3\)"),
        ("resnet20", {"widths": (4, 2, 3)}, "option A can't go from 4 to 2 channels; use option 'B'"),
        ("resnet20", {"num_classes": 0}, "out_features must be at least 1, got 64, 0"),
        ("resnet20", {"in_channels": 0}, "in_channels = 0"),
        ("resnet20", {"fan": "fan_both"}, "fan must be 'fan_in' or 'fan_out', got 'fan_both'"),
    ],
)
def test_an_option_that_does_not_apply_is_refused(name, options, message):
    with pytest.raises(ValueError, match=message):
        models.create(name, **options)


@pytest.mark.parametrize("name", [None, 20, b"resnet20"], ids=repr)
def test_a_name_that_is_no_text_is_refused(name):
    with pytest.raises(TypeError, match=r"models.create: name must be a text such as 'resnet20', got ") as caught:
        models.create(name)
    assert repr(name) in str(caught.value)
