"""Recording: the same results, and every node by name, with its inputs, its line and its row in the table."""

from __future__ import annotations

import inspect
import io

import numpy as np
import pytest

from minires import Parameter, Tensor, functional, models, nn, no_grad, record, using
from tests.inspection.recording import Net, leaf, one_step, recorded_net


@pytest.fixture(autouse=True)
def reference_kernels():
    with using("reference"):
        yield


# ---- the same results ----------------------------------------------------------------------------


@pytest.mark.parametrize("check", [False, True])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", ["plain8", "resnet8", "preact_resnet8"])
def test_a_training_step_is_bitwise_the_same_with_and_without_recording(name, dtype, check):
    plain, recorded = one_step(name, dtype, None), one_step(name, dtype, check)
    assert plain.keys() == recorded.keys()
    for key in plain:
        assert plain[key].dtype == recorded[key].dtype
        np.testing.assert_array_equal(plain[key], recorded[key], err_msg=key)


def test_after_the_block_nothing_is_recorded():
    with record() as tape:
        first = leaf(2) * 2
    first.sum().backward()
    assert [node.name for node in tape.nodes] == ["input", "input#2", "mul"]
    assert tape.loss is None


def test_an_inner_tape_takes_over_within_its_block():
    x = leaf(2)
    with record() as outer:
        y = x * 2
        with record() as inner:
            (y * 3).sum()
        y.exp()
    assert [node.op for node in outer.nodes if node.kind == "op"] == ["mul", "exp"]
    assert [node.op for node in inner.nodes if node.kind == "op"] == ["mul", "mul", "sum"]  # y's own graph comes along


# ---- nodes ---------------------------------------------------------------------------------------


def test_nodes_are_named_by_the_path_of_the_module_at_work():
    _, _, tape = recorded_net()
    assert [(node.name, node.kind) for node in tape.nodes] == [
        ("input", "input"),
        ("conv.weight", "param"),
        ("conv.bias", "param"),
        ("conv.conv2d", "op"),
        ("branches.0.0.weight", "param"),
        ("branches.0.0.bias", "param"),
        ("branches.0.0.batch_norm", "op"),
        ("branches.0.1.relu", "op"),
        ("add", "op"),
        ("scale", "buffer"),
        ("reshape", "op"),
        ("mul", "op"),
        ("sum", "loss"),
    ]


def test_the_nodes_of_a_residual_net_have_its_state_dicts_names():
    net = models.create("resnet8", widths=(2, 3, 4))
    with record() as tape:
        net(leaf(2, 3, 4, 4, dtype=np.float32))
    parameters = [node.name for node in tape.nodes if node.kind == "param"]
    assert sorted(parameters) == sorted(name for name, _ in net.named_parameters())
    block = [node.name for node in tape.nodes if node.kind == "op" and node.scope.startswith("layer2.0")]
    assert block == [
        "layer2.0.conv1.conv2d",
        "layer2.0.bn1.batch_norm",
        "layer2.0.bn1.relu",
        "layer2.0.conv2.conv2d",
        "layer2.0.downsample.subsample_and_pad",
        "layer2.0.bn2.batch_norm",
        "layer2.0.bn2.add",
        "layer2.0.bn2.relu",
    ]


def test_a_module_that_is_used_twice_numbers_its_nodes_and_its_outputs():
    net = nn.Sequential(nn.ReLU())
    with record() as tape:
        first = net(leaf(3))
        second = net(first)
    assert [node.name for node in tape.nodes] == ["input", "0.relu", "0.relu#2"]
    assert tape["0"] is tape[first]
    assert tape["0#2"] is tape[second]


def test_a_module_that_stands_in_two_places_has_the_first_ones_path():
    class Tied(nn.Module):
        def __init__(self):
            self.first = nn.Linear(3, 3, rng=np.random.default_rng(0))
            self.second = self.first

        def forward(self, x):
            return self.second(self.first(x))

    with record() as tape:
        Tied()(leaf(2, 3, dtype=np.float32))
    names = [node.name for node in tape.nodes]
    assert names == ["input", "first.weight", "first.bias", "first.linear", "first.linear#2"]


def test_paths_are_those_of_the_module_that_was_called():
    net, x = Net(), leaf(2, 2, 5, 4, dtype=np.float32)
    with record() as tape:
        y = net.conv(x)
        net.branches[0](y)
        (y * net.branches[0][0].weight.reshape(1, 3, 1, 1)).sum()
    assert [node.name for node in tape.nodes[:7]] == [
        "input", "weight", "bias", "conv2d", "0.weight", "0.bias", "0.batch_norm"
    ]  # fmt: skip
    assert [node.name for node in tape.nodes[7:]] == ["1.relu", "reshape", "mul", "sum"]


def test_outside_of_modules_a_parameter_has_no_path():
    class Idle(nn.Module):
        def __init__(self):
            self.weight = Parameter(np.ones(2, np.float32))

        def forward(self, x):
            return x

    module = Idle()
    with record() as tape:
        (module(leaf(2, dtype=np.float32)) * module.weight).sum()
    assert tape[module.weight].name == "param"


def test_a_module_outside_the_tree_is_named_by_its_class():
    class Hides(nn.Module):
        def forward(self, x):
            return nn.Sequential(nn.ReLU())(x)

    class Outer(nn.Module):
        def __init__(self):
            self.inner = Hides()

        def forward(self, x):
            return self.inner(x)

    with record() as tape:
        Outer()(leaf(2))
    assert tape.nodes[-1].name == "inner.sequential.relu.relu"


def test_a_modules_path_names_its_output():
    _, _, tape = recorded_net()
    assert tape["branches.0"] is tape["branches.0.1.relu"]
    assert tape["conv"] is tape["conv.conv2d"]


def test_a_node_knows_how_it_was_made():
    net, x, tape = recorded_net()
    node = tape["conv.conv2d"]
    assert node.function == "Conv2d(window=3x3, stride 2, padding 1, groups=1)"
    assert set(node.hyper_parameters) == {"window", "groups"}
    assert [(source.name, slot) for source, slot in node.inputs] == [("input", 0), ("conv.weight", 1), ("conv.bias", 2)]
    assert tape[x].value is x.data
    assert node.shape == (2, 3, 3, 2)
    assert node.dtype == np.float32
    assert node.saved == {"x": x.data.nbytes, "weight": net.conv.weight.data.nbytes}
    assert repr(tape["conv.weight"]) == "Node(1, 'conv.weight', param, (3, 2, 3, 3) float32)"


def test_absent_inputs_leave_their_slot_empty():
    x, weight, addend = leaf(2, 3, 4, 4), leaf(3, seed=1), leaf(2, 3, 4, 4, seed=2)
    with record() as tape:
        functional.batch_norm_relu(x, None, None, weight, None, addend, training=True)
    assert [slot for _, slot in tape["batch_norm"].inputs] == [0, 1]


def test_a_node_knows_the_line_that_applied_it():
    x = leaf(2)
    with record() as tape:
        line = inspect.currentframe().f_lineno + 1
        x.exp().log()
    assert tape["exp"].origin == (__file__, line)
    assert tape["log"].where() == f"test_record.py:{line}"
    assert tape["input"].where() == ""


def test_every_nodes_inputs_come_before_it():
    _, _, tape = recorded_net()
    assert [node.id for node in tape.nodes] == list(range(len(tape.nodes)))
    assert all(source.id < node.id for node in tape.nodes for source, _ in node.inputs)


def test_nodes_that_need_no_gradient_save_nothing():
    x = leaf(2)
    with record() as tape:
        with no_grad():
            x.exp()
        x.exp()
    assert tape["exp"].saved == {}
    assert not tape["exp"].requires_grad
    assert tape["exp#2"].saved == {"exponential": 16}


def test_a_graph_built_before_recording_is_put_on_the_tape():
    x = leaf(3)
    y = x.exp()
    z = y * y
    with record() as tape:
        (z + y).sum().backward()
    assert [node.name for node in tape.nodes] == ["input", "exp", "mul", "add", "sum"]
    assert len(tape.contributions(y)) == 3
    np.testing.assert_array_equal(tape.gradient(x).array, x.grad)


def test_what_was_made_before_recording_is_not_named_after_the_module_that_uses_it():
    y = leaf(3).exp()
    with record() as tape:
        nn.Sequential(nn.ReLU())(y)
    assert [node.name for node in tape.nodes] == ["input", "exp", "0.relu"]


def test_a_tape_may_begin_after_the_forward_pass():
    net, x = models.create("resnet8", widths=(2, 3, 4)), leaf(2, 3, 4, 4, dtype=np.float32)
    loss = net(x).sum()
    with record() as tape:
        loss.backward()
    assert tape.loss is tape[loss]
    assert tape.nodes[-1] is tape.loss
    np.testing.assert_array_equal(tape.gradient(x).array, x.grad)


def test_an_unknown_name_gets_the_nearest_ones():
    _, _, tape = recorded_net()
    with pytest.raises(KeyError, match=r"there is no node 'conv\.conv3d'; the nearest: conv\.conv2d"):
        tape["conv.conv3d"]
    with pytest.raises(KeyError, match="this tensor of shape \\(7,\\) was not recorded"):
        tape[leaf(7)]
    with record() as empty, pytest.raises(KeyError, match="the tape is empty"):
        empty["x"]


def test_the_table_has_a_line_for_each_node():
    _, _, tape = recorded_net()
    file = io.StringIO()
    tape.print(file)
    lines = file.getvalue().splitlines()
    assert len(lines) == 1 + len(tape.nodes)
    conv = next(line for line in lines if " conv.conv2d " in line)
    assert "Conv2d(" in conv
    assert "2×3×3×2" in conv
    assert f"{np.linalg.norm(tape.gradient('conv').array):.4g}" in conv
    assert next(line for line in lines if " scale " in line).rstrip().endswith("no path")


def test_the_table_goes_to_the_terminal_by_default(capsys):
    _, _, tape = recorded_net()
    tape.print()
    assert capsys.readouterr().out == f"{tape}\n"


def test_integers_and_parameters_outside_of_modules_are_recorded_too():
    weight, indices = Parameter(np.arange(6.0).reshape(3, 2)), np.array([2, 0, 2])
    with record() as tape:
        counts = Tensor(indices) + Tensor(indices)
        weight[indices].sum().backward()
    assert tape[counts].dtype.kind == "i"
    assert tape[weight].name == "param"
    assert tape["index"].hyper_parameters == {"index": "array (3,) int64"}
    assert tape.first_nonfinite() is None


@pytest.mark.parametrize("key", [0, None, ("a", "b"), ["a"], slice(2), np.zeros(2)], ids=repr)
def test_a_key_that_is_neither_name_nor_tensor_is_refused(key):
    _, _, tape = recorded_net()
    for ask in (lambda: tape[key], lambda: tape.gradient(key), lambda: tape.contributions(key)):
        with pytest.raises(TypeError, match=r"tape: a node is asked for by its name or its tensor, got .*tape\.nodes"):
            ask()
