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


def test_batch_norm_without_affine_only_normalizes():
    layer, x = nn.BatchNorm2d(4, affine=False), images()
    assert list(layer.state_dict()) == ["running_mean", "running_var", "num_batches_tracked"]
    assert not list(layer.parameters())
    np.testing.assert_array_equal(layer(x).data, nn.BatchNorm2d(4)(x).data)
    fused = nn.BatchNorm2d(4, affine=False)
    np.testing.assert_allclose(fused(x, relu=True).data, np.maximum(layer(x).data, 0), rtol=1e-5, atol=1e-6)


def test_batch_norm_that_tracks_nothing_uses_the_batch_in_evaluation_too():
    layer, x = nn.BatchNorm2d(4, track_running_stats=False), images()
    assert list(layer.state_dict()) == ["weight", "bias"]
    expected = nn.BatchNorm2d(4)(x).data
    np.testing.assert_array_equal(layer(x).data, expected)
    np.testing.assert_array_equal(layer.eval()(x).data, expected)
    layer(x, relu=True)
    assert list(layer.state_dict()) == ["weight", "bias"]


def test_batch_norm_without_momentum_averages_all_batches_equally():
    layer = nn.BatchNorm2d(4, momentum=None)
    batches = [np.random.default_rng(seed).standard_normal((3, 4, 5, 2)) + seed for seed in range(5)]
    for position, batch in enumerate(batches):
        layer(Tensor(batch.astype(np.float32)), relu=position % 2 == 1)
    mean = np.mean([batch.mean((0, 2, 3)) for batch in batches], 0)
    variance = np.mean([batch.var((0, 2, 3), ddof=1) for batch in batches], 0)
    np.testing.assert_allclose(layer.running_mean, mean, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(layer.running_var, variance, rtol=1e-5)
    assert layer.num_batches_tracked == 5
    assert layer.running_mean.dtype == np.float32


def test_batch_norm_of_features_normalizes_each():
    layer, x = nn.BatchNorm1d(3), np.random.default_rng(0).standard_normal((6, 3)).astype(np.float32)
    x64 = x.astype(np.float64)
    expected = (x64 - x64.mean(0)) / np.sqrt(x64.var(0) + 1e-5)
    np.testing.assert_allclose(layer(Tensor(x)).data, expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(layer.running_mean, 0.1 * x64.mean(0), rtol=1e-5)


def test_batch_norm_of_series_normalizes_each_channel():
    layer, x = nn.BatchNorm1d(3), np.random.default_rng(0).standard_normal((4, 3, 5)).astype(np.float32)
    x64 = x.astype(np.float64)
    expected = (x64 - x64.mean((0, 2), keepdims=True)) / np.sqrt(x64.var((0, 2), keepdims=True) + 1e-5)
    np.testing.assert_allclose(layer(Tensor(x)).data, expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(layer.running_var, 0.9 + 0.1 * x64.var((0, 2), ddof=1), rtol=1e-5)


@pytest.mark.parametrize(
    ("layer", "shape", "form"),
    [
        (nn.BatchNorm2d(4), (2, 4), r"BatchNorm2d: x must be \(N, C, H, W\), got shape \(2, 4\)"),
        (nn.BatchNorm1d(4), (2, 4, 3, 3), r"BatchNorm1d: x must be \(N, C\) or \(N, C, L\), got shape \(2, 4, 3, 3\)"),
    ],
)
def test_batch_norm_takes_what_its_name_says(layer, shape, form):
    with pytest.raises(ValueError, match=form):
        layer(images(*shape))
    assert layer.num_batches_tracked == 0


@pytest.mark.witness
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("options", [{}, {"affine": False}, {"track_running_stats": False}, {"momentum": None},
                                     {"momentum": 0.0}, {"momentum": None, "track_running_stats": False}])  # fmt: skip
def test_batch_norm_is_torch_s(options, training):
    torch = pytest.importorskip("torch")
    ours, theirs = nn.BatchNorm2d(4, **options), torch.nn.BatchNorm2d(4, **options)
    for seed in range(3):
        batch = np.random.default_rng(seed).standard_normal((3, 4, 5, 2)).astype(np.float32) + seed
        upstream = np.random.default_rng(9).standard_normal(batch.shape).astype(np.float32)
        if seed == 2:
            ours.train(training)
            theirs.train(training)
        x, other = Tensor(batch, requires_grad=True), torch.tensor(batch, requires_grad=True)
        y, expected = ours(x), theirs(other)
        y.backward(upstream)
        expected.backward(torch.from_numpy(upstream))
        np.testing.assert_allclose(y.data, expected.detach().numpy(), rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(x.grad, other.grad.numpy(), rtol=1e-3, atol=1e-5)
    assert list(ours.state_dict()) == list(theirs.state_dict())
    for name, tensor in theirs.state_dict().items():
        np.testing.assert_allclose(ours.state_dict()[name], tensor.numpy(), rtol=1e-5, atol=1e-6)


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
        (
            nn.AvgPool2d((3, 2), 2, 1, True, False),
            lambda x: functional.avg_pool2d(x, (3, 2), stride=2, padding=1, ceil_mode=True, count_include_pad=False),
        ),
        (nn.AdaptiveAvgPool2d((1, 2)), lambda x: functional.adaptive_avg_pool2d(x, (1, 2))),
        (nn.Flatten(), lambda x: x.flatten(1)),
        (nn.Flatten(1, 2), lambda x: x.reshape(2, 24, 5)),
        (nn.Flatten(start_dim=0), lambda x: x.reshape(240)),
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


@pytest.mark.parametrize(("padding", "shape"), [("same", (2, 6, 6, 5)), ("valid", (2, 6, 4, 4))])
def test_conv2d_takes_a_padding_by_its_name(rng, padding, shape):
    layer, x = nn.Conv2d(4, 6, (3, 2), padding=padding, rng=rng), images()
    assert layer(x).shape == shape
    expected = functional.conv2d(x, layer.weight, layer.bias, padding=padding)
    np.testing.assert_array_equal(layer(x).data, expected.data)


def test_dropout_in_place_is_refused_with_the_reason(rng):
    with pytest.raises(ValueError, match="Dropout: inplace=True would write into x, which the backward pass"):
        nn.Dropout(0.5, True, rng=rng)
    with pytest.raises(ValueError, match="dropout: inplace=True would write into x, which the backward pass"):
        functional.dropout(images(), 0.5, True, True, rng=rng)
    with pytest.raises(TypeError, match="Dropout: inplace must be True or False, got 0"):
        nn.Dropout(inplace=0, rng=rng)
    assert nn.Dropout(0.5, inplace=False, rng=rng).p == 0.5


def test_relu_in_place_is_refused_with_the_reason():
    with pytest.raises(ValueError, match="ReLU: inplace=True would write into x, which the backward pass"):
        nn.ReLU(True)
    with pytest.raises(TypeError, match="ReLU: inplace must be True or False, got 0"):
        nn.ReLU(inplace=0)
    assert repr(nn.ReLU(inplace=False)) == "ReLU()"
    assert nn.ReLU(inplace=False)(Tensor([-1.0, 2.0])).data.tolist() == [0.0, 2.0]


def test_conv2d_takes_its_settings_in_torch_s_order(rng):
    layer = nn.Conv2d(4, 6, 3, 2, (1, 0), 2, 2, False, rng=rng)
    assert (layer.stride, layer.padding, layer.dilation, layer.groups) == ((2, 2), (1, 0), (2, 2), 2)
    assert layer.bias is None


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
            lambda r: nn.Conv2d(3, 4, 3, padding="full", rng=r),
            ValueError,
            "Conv2d: padding must be numbers, 'same' or 'valid', got 'full'",
        ),
        (
            lambda r: nn.Conv2d(3, 4, 3, stride=(1, 2), padding="same", rng=r),
            ValueError,
            r"Conv2d: padding='same' is for stride 1, got stride \(1, 2\); give padding as numbers",
        ),
        (lambda r: nn.Dropout(1.5, rng=r), ValueError, "Dropout: p must be a number from 0 to 1, got 1.5"),
        (lambda r: nn.Dropout(None, rng=r), TypeError, "Dropout: p must be a number, got None"),
        (lambda r: nn.Dropout(rng=7), TypeError, r"Dropout: rng must be a numpy\.random\.Generator, got int"),
        (lambda r: nn.Conv2d(3.0, 4, 3, rng=r), TypeError, "Conv2d: in_channels must be an integer, got 3.0"),
        (lambda r: nn.Conv2d(3, 4, 3, groups=None, rng=r), TypeError, "Conv2d: groups must be an integer, got None"),
        (lambda r: nn.Conv2d(3, 4, 3, bias=r, rng=r), TypeError, "Conv2d: bias must be True or False, got Generator"),
        (lambda r: nn.Linear(3, 4, r, rng=r), TypeError, "Linear: bias must be True or False, got Generator"),
        (lambda r: nn.Linear("3", 4, rng=r), TypeError, "Linear: in_features must be an integer, got '3'"),
        (lambda r: nn.BatchNorm2d(None), TypeError, "BatchNorm2d: num_features must be an integer, got None"),
        (lambda r: nn.BatchNorm2d(3, np.nan), ValueError, "BatchNorm2d: eps must be a finite number of at least 0"),
        (lambda r: nn.BatchNorm2d(3, momentum=1.5), ValueError, "BatchNorm2d: momentum must be a number from 0 to 1"),
        (lambda r: nn.BatchNorm2d(3, momentum="no"), TypeError, "BatchNorm2d: momentum must be a number, got 'no'"),
        (lambda r: nn.BatchNorm2d(3, affine=0), TypeError, "BatchNorm2d: affine must be True or False, got 0"),
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
