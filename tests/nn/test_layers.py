"""Layers: each equals its function with its own parameters; constructors refuse what can't be built."""

from __future__ import annotations

import numpy as np
import pytest

from minires import Parameter, Tensor, functional, nn


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def images(*shape, dtype=np.float32):
    return Tensor(np.random.default_rng(1).standard_normal(shape or (2, 4, 6, 5)).astype(dtype))


def test_conv2d_has_torch_s_names_and_computes_the_function(rng):
    layer = nn.Conv2d(4, 6, (3, 2), stride=(2, 1), padding=(1, 0), dilation=(1, 2), groups=2, rng=rng)
    assert [name for name, _ in layer.named_parameters()] == ["weight", "bias"]
    assert layer.weight.shape == (6, 2, 3, 2)
    assert not layer.bias.data.any()
    layer.bias.data[:] = np.arange(6)
    x = images()
    expected = functional.conv2d(x, layer.weight, layer.bias, stride=(2, 1), padding=(1, 0), dilation=(1, 2), groups=2)
    np.testing.assert_array_equal(layer(x).data, expected.data)
    assert nn.Conv2d(4, 6, 3, bias=False, rng=rng).bias is None


def test_linear_has_torch_s_names_and_computes_the_function(rng):
    layer = nn.Linear(5, 3, rng=rng)
    assert [name for name, _ in layer.named_parameters()] == ["weight", "bias"]
    assert layer.weight.shape == (3, 5)
    layer.bias.data[:] = np.arange(3)
    x = images(2, 5)
    np.testing.assert_array_equal(layer(x).data, functional.linear(x, layer.weight, layer.bias).data)
    assert [name for name, _ in nn.Linear(5, 3, bias=False, rng=rng).named_parameters()] == ["weight"]


def test_batch_norm_has_torch_s_names_and_starting_values():
    layer = nn.BatchNorm2d(4)
    state = layer.state_dict()
    assert list(state) == ["weight", "bias", "running_mean", "running_var", "num_batches_tracked"]
    assert [float(array.mean()) for array in state.values()] == [1, 0, 0, 1, 0]
    assert state["num_batches_tracked"].dtype == np.int64


def test_batch_norm_trains_and_evaluates():
    layer, x = nn.BatchNorm2d(4, eps=1e-3, momentum=0.3), images()
    running = layer.running_mean.copy(), layer.running_var.copy()
    expected = functional.batch_norm(x, *running, layer.weight, layer.bias, training=True, momentum=0.3, eps=1e-3)
    np.testing.assert_array_equal(layer(x).data, expected.data)
    np.testing.assert_array_equal(layer.running_mean, running[0])
    np.testing.assert_array_equal(layer.running_var, running[1])
    assert layer.num_batches_tracked == 1
    layer.eval()
    evaluated = functional.batch_norm(x, *running, layer.weight, layer.bias, eps=1e-3)
    np.testing.assert_array_equal(layer(x).data, evaluated.data)
    assert layer.num_batches_tracked == 1
    assert isinstance(layer.num_batches_tracked, np.ndarray)


def test_batch_norm_fused_with_what_follows():
    x, shortcut = images(), images() * 2
    for plus in (None, shortcut):
        alone, fused = nn.BatchNorm2d(4), nn.BatchNorm2d(4)
        y = alone(x)
        expected = functional.relu(y if plus is None else y + plus)
        np.testing.assert_allclose(fused(x, plus=plus, relu=True).data, expected.data, rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(fused.running_var, alone.running_var, rtol=1e-6)
    with pytest.raises(ValueError, match=r"BatchNorm2d: plus is added in front of the ReLU, so it needs relu=True"):
        nn.BatchNorm2d(4)(x, plus=shortcut)


def test_batch_norm_counts_no_batch_that_it_refused():
    layer = nn.BatchNorm2d(3)
    with pytest.raises(ValueError, match="weight must have shape"):
        layer(images())
    assert layer.num_batches_tracked == 0


def test_dropout_is_active_in_training_alone():
    layer, x = nn.Dropout(0.5, rng=np.random.default_rng(3)), images()
    expected = functional.dropout(x, 0.5, training=True, rng=np.random.default_rng(3))
    np.testing.assert_array_equal(layer(x).data, expected.data)
    assert layer.eval()(x) is x


@pytest.mark.parametrize(
    ("layer", "expected"),
    [
        (nn.ReLU(), functional.relu),
        (nn.MaxPool2d(3, 2, 1), lambda x: functional.max_pool2d(x, 3, stride=2, padding=1)),
        (
            nn.MaxPool2d(2, dilation=2, ceil_mode=True),
            lambda x: functional.max_pool2d(x, 2, dilation=2, ceil_mode=True),
        ),
        (nn.AvgPool2d(2), lambda x: functional.avg_pool2d(x, 2)),
        (
            nn.AvgPool2d((3, 2), 2, 1, ceil_mode=True, count_include_pad=False),
            lambda x: functional.avg_pool2d(x, (3, 2), stride=2, padding=1, ceil_mode=True, count_include_pad=False),
        ),
        (nn.AdaptiveAvgPool2d((1, 2)), lambda x: functional.adaptive_avg_pool2d(x, (1, 2))),
        (nn.Flatten(), lambda x: x.flatten(1)),
    ],
    ids=lambda value: type(value).__name__,
)
def test_layer_without_parameters_is_its_function(layer, expected):
    x = images()
    np.testing.assert_array_equal(layer(x).data, expected(x).data)
    assert not list(layer.parameters())
    assert not layer.state_dict()


def test_identity_is_the_same_tensor():
    x = images()
    assert nn.Identity()(x) is x


def test_sequential_is_a_list_of_modules_in_order(rng):
    layers = nn.Flatten(), nn.Linear(120, 3, rng=rng), nn.ReLU()
    net, x = nn.Sequential(*layers), images()
    np.testing.assert_array_equal(net(x).data, layers[2](layers[1](layers[0](x))).data)
    assert len(net) == 3
    assert net[1] is layers[1]
    assert tuple(net) == layers
    assert [name for name, _ in net.named_parameters()] == ["1.weight", "1.bias"]
    assert nn.Sequential()(x) is x
    with pytest.raises(TypeError, match="Sequential: item 1 must be a Module, got Parameter"):
        nn.Sequential(nn.ReLU(), Parameter([1.0]))


@pytest.mark.parametrize(
    ("build", "error", "message"),
    [
        (lambda r: nn.Conv2d(3, 4, 3, groups=2, rng=r), ValueError, r"Conv2d: groups .*in_channels = 3.*groups = 2"),
        (lambda r: nn.Conv2d(0, 4, 3, rng=r), ValueError, "Conv2d: groups must be a positive divisor"),
        (lambda r: nn.Conv2d(3, 4, 0, rng=r), ValueError, "Conv2d: kernel_size must be at least 1, got 0"),
        (lambda r: nn.Conv2d(3, 4, 3, stride=0, rng=r), ValueError, "Conv2d: stride must be at least 1, got 0"),
        (lambda r: nn.Conv2d(3, 4, 3, padding=-1, rng=r), ValueError, "Conv2d: padding must be at least 0, got -1"),
        (
            lambda r: nn.Conv2d(3, 4, 3, padding="same", rng=r),
            TypeError,
            "Conv2d: padding must be an integer or a pair",
        ),
        (lambda r: nn.Conv2d(3, 4, 3, rng=r, fan="out"), ValueError, "fan must be 'fan_in' or 'fan_out', got 'out'"),
        (
            lambda r: nn.Linear(0, 4, rng=r),
            ValueError,
            "Linear: in_features and out_features must be at least 1, got 0, 4",
        ),
        (lambda r: nn.BatchNorm2d(0), ValueError, "BatchNorm2d: num_features must be at least 1, got 0"),
    ],
)
def test_constructor_refuses(rng, build, error, message):
    with pytest.raises(error, match=message):
        build(rng)


def test_relu_in_place_is_refused_with_the_reason():
    with pytest.raises(ValueError, match=r"ReLU: inplace=True would write into x, .* leave it out"):
        nn.ReLU(inplace=True)
    with pytest.raises(TypeError, match="ReLU: inplace must be True or False, got 1"):
        nn.ReLU(1)
    assert nn.ReLU(inplace=False)(Tensor(np.array([-1.0, 2.0]))).data.tolist() == [0.0, 2.0]
