"""The guilty node of a whole net is found, alone, with its line; right nets are left in peace."""

import numpy as np
import pytest

from minires import Tensor, functional, models, nn
from minires.checking import blame
from minires.checking.kinks import graph_of
from minires.checking.mutants import MUTANTS, planted


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


def test_bad_arguments():
    with pytest.raises(RuntimeError, match="no graph"):
        blame(Tensor(1.0))
    loss = Tensor(np.ones(3), requires_grad=True).exp().sum()
    loss.backward()
    with pytest.raises(RuntimeError, match="was freed"):
        blame(loss)


def test_the_report_fits_into_json_and_a_notebook():
    import json

    report = blame(Tensor(np.ones(3), requires_grad=True).exp().sum())
    assert json.loads(json.dumps(report.to_dict()))["ok"]
    assert "all 2 nodes" in report._repr_html_()
