"""The guilty node of a whole net is found, alone, with its line; right nets are left in peace."""

import json
from types import SimpleNamespace

import numpy as np
import pytest

from minires import Tensor, functional, graph, models, nn, record
from minires.checking import blame
from minires.checking.kinks import graph_of
from minires.checking.mutants import MUTANTS, planted
from minires.checking.sums import SumWatcher
from minires_kernels import activation


def loss_of(net, dtype=np.float32, size=8):
    rng = np.random.default_rng(3)
    images = Tensor(rng.standard_normal((4, 3, size, size)).astype(dtype))
    return functional.cross_entropy(net(images), rng.integers(0, 10, 4))


def tiny(name, dtype=np.float32):
    return models.create(name, widths=(4, 6, 8), rng=np.random.default_rng(0)).astype(dtype)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", ["plain20", "resnet20", "preact_resnet20"])
def test_a_right_net_has_no_guilty_node(name, dtype):
    report = blame(loss_of(tiny(name, dtype), dtype))
    assert report
    assert max(node.units for node in report.nodes) < 100


def test_one_wrong_node_of_a_110_layer_net_is_named_alone():
    net = tiny("resnet110")
    loss = loss_of(net)
    convolutions = [node for node in graph_of(loss) if type(node).__name__ == "Conv2d"]
    assert len(convolutions) == 109
    node = convolutions[57]
    right = node.backward
    node.backward = lambda grad_output: (right(grad_output)[0], right(grad_output)[1] * np.float32(1.01), None)
    report = blame(loss, net)
    assert not report
    assert len(report.guilty) == 1
    guilty = report.guilty[0]
    assert guilty.name == "layer2.10.conv1 (Conv2d)"
    assert guilty.inputs == ("weight",)
    assert "resnet.py:" in guilty.origin
    assert "1 of 224 nodes guilty" in str(report)


@pytest.mark.parametrize(
    "name",
    [
        "conv_kernel_flipped",
        "conv_grad_x_border",
        "batch_norm_relu_mask_forgotten",
        "batch_norm_relu_addend_forgotten",
        "global_average_not_divided",
        "linear_grad_weight_averaged",
        "linear_grad_bias_not_summed",
        "cross_entropy_target_off_by_one",
        "shortcut_pixels_shifted",
    ],
)
def test_a_wrong_kind_of_node_is_named_wherever_it_occurs(name):
    net = tiny("resnet8")
    mutant = MUTANTS[name]
    with planted(mutant):
        report = blame(loss_of(net), net)
    assert {node.function.split("(")[0] for node in report.guilty} == {mutant.target.__name__}


@pytest.mark.parametrize("name", ["fan_out_overwritten", "fan_out_added_twice"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_sum_that_the_engine_gets_wrong_is_named_with_its_uses(name, dtype):
    net = tiny("resnet20", dtype)
    loss = loss_of(net, dtype)
    with planted(MUTANTS[name]):
        report = blame(loss, net)
    assert not report
    assert not report.guilty
    assert len(report.wrong_sums) == len(report.sums) == 9  # one in front of each block
    first, *_, last = report.wrong_sums
    assert first.name == "the output of bn1 (BatchNormReLU)"
    assert set(first.consumers) == {"layer1.0.conv1 (Conv2d)", "layer1.0.bn2 (BatchNormReLU)"}
    assert last.name == "the output of layer3.1.bn2 (BatchNormReLU)"
    assert "resnet.py:" in first.origin
    assert "9 of 9 sums at fan-outs wrong" in str(report)
    assert f"sum at {first.name}: its gradient isn't the sum of what {' and '.join(first.consumers)} send" in str(
        report
    )
    assert blame(loss, net)


def test_a_single_wrong_sum_of_a_110_layer_net_is_named_alone(monkeypatch):
    net = tiny("resnet110")
    loss = loss_of(net)
    calls = []

    def add(pending, contribution):
        calls.append(1)
        return activation.add(pending, contribution * np.float32(1.001 if len(calls) == 20 else 1))

    monkeypatch.setattr(graph, "activation", SimpleNamespace(add=add))
    report = blame(loss, net)
    assert len(calls) == len(report.sums) == 54
    assert [report.sums.index(each) for each in report.wrong_sums] == [54 - 20]  # backward meets the last one first
    assert not report.guilty
    assert report.wrong_sums[0].name == "the output of layer2.15.bn2 (BatchNormReLU)"


def test_sums_of_many_uses_are_judged_in_any_order_of_addition(monkeypatch):
    x = Tensor(np.random.default_rng(0).standard_normal((50, 40)).astype(np.float32), requires_grad=True)
    loss = sum((functional.tanh(x * float(k)) for k in range(1, 7)), x).mean()
    (each,) = blame(loss).sums
    assert (each.name, len(each.consumers), each.units) == ("an input", 7, 0.0)
    monkeypatch.setattr(graph, "activation", SimpleNamespace(add=lambda a, b: ((a + 1) + b) - 1))  # another rounding
    report = blame(loss)
    assert report.sums[0].units > 0
    monkeypatch.setattr(graph, "activation", SimpleNamespace(add=lambda a, b: a + b * np.float32(1 + 1e-5)))
    assert blame(loss).wrong_sums


@pytest.mark.parametrize("needed", [(0,), (1,), (2,), (0, 1), (0, 2), (1, 2), (0, 1, 2)])
@pytest.mark.parametrize("kind", ["conv2d", "linear"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_products_are_judged_whichever_inputs_need_a_gradient(needed, kind, dtype):
    shapes = {"conv2d": ((2, 4, 7, 6), (6, 2, 3, 2), (6,)), "linear": ((5, 4), (3, 4), (3,))}[kind]
    rng = np.random.default_rng(2)
    inputs = [Tensor(rng.standard_normal(shape).astype(dtype), slot in needed) for slot, shape in enumerate(shapes)]
    settings = {"stride": (2, 1), "padding": 1, "dilation": (1, 2), "groups": 2} if kind == "conv2d" else {}
    loss = getattr(functional, kind)(*inputs, **settings)
    report = blame(loss)
    assert report
    assert report.nodes[0].units < 100
    node = loss.creator
    for slot in needed:
        node.backward = lambda grad_output, slot=slot: tuple(
            None if grad is None else grad * dtype(1.01 if position == slot else 1)
            for position, grad in enumerate(type(node).backward(node, grad_output))
        )
        assert blame(loss).guilty[0].inputs == (("x", "weight", "bias")[slot],)


def test_a_wrong_node_does_not_make_a_sum_wrong():
    x = Tensor(np.ones((3, 4)), requires_grad=True)
    y = x * 2.0
    loss = (y.exp() + functional.tanh(y)).sum()
    node = next(node for node in graph_of(loss) if type(node).__name__ == "Exp")
    for returned in ((np.full((3, 4), np.nan),), (np.ones(3),), (None,), None, (np.ones((3, 4), np.float32),)):
        node.backward = lambda grad_output, returned=returned: returned
        report = blame(loss)
        assert [each.name for each in report.guilty] == ["Exp"]
        assert not report.wrong_sums
        assert json.loads(json.dumps(report.to_dict(), allow_nan=False))["guilty"] == [report.guilty[0].position]


def test_contributions_that_come_late_twice_or_never_are_noticed():
    x = Tensor(np.ones(3), requires_grad=True)
    loss = (x * 2.0 + x.exp()).sum()
    nodes = graph_of(loss)
    first, second = (node for node in nodes if any(x is tensor for tensor in node.inputs))
    one = np.ones(3)

    def sums(*events):
        watcher = SumWatcher(nodes, loss)
        for node in nodes:  # everything else goes well
            for tensor in node.inputs:
                if tensor is not x and tensor is not None and tensor.requires_grad:
                    watcher.on_contribution(tensor, node, 0, one)
                    watcher.on_gradient(tensor, one)
        watcher.on_contribution(loss, None, 0, loss.data)
        watcher.on_gradient(loss, loss.data)
        for event in events:
            if event is None:
                watcher.on_gradient(x, 2 * one)
            else:
                watcher.on_contribution(x, event, 0, one)
        (found,) = watcher.sums(lambda tensor: "x", lambda node: type(node).__name__)
        return found

    assert sums(first, second, None).units == 0.0
    for events in ((first, None, second), (first, second, None, second), (first, None), (first, second), (None,), ()):
        assert sums(*events).wrong
        assert sums(*events).units == np.inf
    assert sums(first, None, second).consumers == tuple(type(node).__name__ for node in (first, second))


def test_gradients_that_were_there_stay_and_a_tape_that_records_sees_nothing():
    x = Tensor(np.ones((3, 4)), requires_grad=True)
    y = (x * 2.0).retain_grad()
    loss = (y * y.exp()).sum()
    x.grad = kept = np.full((3, 4), 7.0)
    with record() as tape:
        assert blame(loss)
    assert x.grad is kept
    np.testing.assert_array_equal(kept, 7.0)
    assert y.grad is None
    assert not tape.nodes
    assert all("backward" not in vars(node) for node in graph_of(loss))


def test_nothing_is_changed():
    net = nn.Sequential(tiny("preact_resnet8"), nn.Dropout(0.3, rng=np.random.default_rng(5)))
    loss = loss_of(net)
    state = net.state_dict()
    generator = net[1]._rng.bit_generator.state
    assert blame(loss)
    assert net[1]._rng.bit_generator.state == generator
    for name, array in net.state_dict().items():
        np.testing.assert_array_equal(array, state[name])
    assert all(parameter.grad is None for parameter in net.parameters())
    loss.backward()
    gradients = [parameter.grad for parameter in net.parameters()]
    net.zero_grad()
    net.load_state_dict(state)
    net[1]._rng.bit_generator.state = generator
    assert all(gradient is not None for gradient in gradients)


def test_kinks_at_the_activations_do_not_vote():
    x = Tensor(np.zeros((3, 4)), requires_grad=True)
    assert blame(functional.relu(x).sum())
    assert blame(abs(x).max())
    assert blame(abs(x).min((0, 1), keepdims=True))
    assert blame(abs(x).maximum(x))


def test_bad_arguments():
    with pytest.raises(RuntimeError, match="no graph"):
        blame(Tensor(1.0))
    loss = Tensor(np.ones(3), requires_grad=True).exp().sum()
    loss.backward()
    with pytest.raises(RuntimeError, match="was freed"):
        blame(loss)


def test_the_report_fits_into_json_and_a_notebook():
    report = blame(Tensor(np.ones(3), requires_grad=True).exp().sum())
    assert json.loads(json.dumps(report.to_dict()))["ok"]
    assert "all 2 nodes" in report._repr_html_()
