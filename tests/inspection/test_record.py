"""Recording: the same results, every node by name, contributions before they are added, gradients' states."""

from __future__ import annotations

import gc
import inspect
import io
import weakref

import numpy as np
import pytest

from minires import Function, Parameter, Tensor, functional, models, nn, no_grad, optim, record, using
from minires.inspection import GradientState
from minires.tensor import apply


@pytest.fixture(autouse=True)
def reference_kernels():
    with using("reference"):
        yield


def leaf(*shape, seed=0, dtype=np.float64):
    return Tensor(np.random.default_rng(seed).standard_normal(shape).astype(dtype), requires_grad=True)


def one_step(name, dtype, recording):
    """Loss, gradients and state of one training step of a small net; ``recording``: None, or record()'s ``check``."""
    net = models.create(name, widths=(3, 4, 6)).astype(dtype)
    optimizer = optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
    images = Tensor(np.random.default_rng(5).standard_normal((3, 3, 6, 7)).astype(dtype))

    def step():
        loss = functional.cross_entropy(net(images), np.array([1, 7, 4]))
        loss.backward()
        optimizer.step()
        return loss.data

    if recording is None:
        loss = step()
    else:
        with record(check=recording):
            loss = step()
    gradients = {name: parameter.grad for name, parameter in net.named_parameters()}
    return {"loss": loss, **net.state_dict(), **{f"grad of {name}": grad for name, grad in gradients.items()}}


class Net(nn.Module):
    def __init__(self):
        rng = np.random.default_rng(3)
        self.conv = nn.Conv2d(2, 3, 3, stride=2, padding=1, rng=rng)
        self.branches = [nn.Sequential(nn.BatchNorm2d(3), nn.ReLU()), nn.Identity()]
        self.scale = np.full(3, 2.0, np.float32)

    def forward(self, x):
        x = self.conv(x)
        x = self.branches[0](x) + self.branches[1](x)
        return (x * Tensor(self.scale).reshape(1, 3, 1, 1)).sum()


def recorded_net(shape=(2, 2, 5, 4)):
    net, x = Net(), leaf(*shape, dtype=np.float32)
    with record() as tape:
        net(x).backward()
    return net, x, tape


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
    assert node.function.startswith("Conv2d(window=Window(")
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


# ---- contributions and gradients -----------------------------------------------------------------


@pytest.mark.parametrize("name", ["resnet8", "preact_resnet8"])
def test_contributions_added_in_order_are_the_gradient_bit_for_bit(name):
    net = models.create(name, widths=(3, 4, 6))
    with record() as tape:
        functional.cross_entropy(net(leaf(3, 3, 6, 7, dtype=np.float32)), np.array([1, 7, 4])).backward()
    assert tape.backward_order
    for node in tape.backward_order:
        first, *others = (each.array for each in tape.contributions(node))
        for each in others:
            first = first + each
        np.testing.assert_array_equal(first, tape.gradient(node).array, err_msg=node.name)
    assert sum(len(tape.contributions(node)) > 1 for node in tape.nodes) == 3


def test_each_use_of_a_tensor_is_a_contribution_of_its_own():
    x, y = leaf(4), leaf(4, seed=1)
    with record() as tape:
        (x * y + x).sum().backward()
    assert [(each.consumer.op, each.slot) for each in tape.contributions(x)] == [("add", 1), ("mul", 0)]
    np.testing.assert_array_equal(tape.contributions(x)[0].array, np.ones(4))
    np.testing.assert_array_equal(tape.contributions(x)[1].array, y.data)
    np.testing.assert_array_equal(tape.gradient(x).array, 1 + y.data)


def test_a_tensor_used_twice_by_one_operation_has_two_contributions():
    x = leaf(4)
    with record() as tape:
        (x * x).sum().backward()
    assert [(each.consumer.op, each.slot) for each in tape.contributions(x)] == [("mul", 0), ("mul", 1)]


def test_the_upstream_gradient_is_a_contribution_without_consumer():
    x, upstream = leaf(3), np.array([1.0, -2.0, 0.5])
    with record() as tape:
        y = x.exp()
        y.backward(upstream)
    (start,) = tape.contributions(y)
    assert start.consumer is None
    assert start.array is upstream
    assert tape[y].kind == "loss"


def test_backward_order_is_that_in_which_gradients_were_complete():
    x = leaf(3)
    with record() as tape:
        y = x.exp()
        (y * y + x).sum().backward()
    assert [node.name for node in tape.backward_order] == ["sum", "add", "mul", "exp", "input"]


def test_the_states_of_a_gradient_are_told_apart():
    x, unused, constant = leaf(3), leaf(3, seed=1), Tensor(np.ones(3))
    with record() as tape:
        y = x * constant
        aside = unused.exp()
        z = y * Tensor(np.zeros(3))
        every = (x, unused, y, aside, z)
        assert {tape.gradient(each).state for each in every} == {GradientState.NOT_COMPUTED}
        z.backward(np.array([1.0, 2.0, 3.0]))
        later = x.abs()
    assert tape.gradient(z).state is GradientState.VALUE
    assert tape.gradient(y).state is GradientState.ZERO
    assert tape.gradient(x).state is GradientState.ZERO
    assert not tape.gradient(x).array.any()
    assert tape.gradient(unused).state is GradientState.NO_PATH
    assert tape.gradient(aside).state is GradientState.NO_PATH
    assert tape.gradient(constant).state is GradientState.NO_PATH
    assert tape.gradient(later).state is GradientState.NOT_COMPUTED
    for each in (unused, aside, constant, later):
        assert tape.gradient(each).array is None
        assert tape.contributions(each) == ()


class Refuses(Function):
    def forward(self, x):
        return x + 0

    def backward(self, grad_output):
        raise ArithmeticError("no gradient today")


class PassesNothing(Function):
    def forward(self, x):
        return x + 0

    def backward(self, grad_output):
        return (None,)


def test_behind_a_backward_that_failed_gradients_are_not_computed():
    x, other = leaf(3), leaf(3, seed=1)
    with record() as tape:
        inner = x.exp()
        y = apply(Refuses(), inner)
        aside = other.exp()
        total = y + other * 2
        with pytest.raises(ArithmeticError):
            total.backward(np.ones(3))
    assert tape.gradient(y).state is GradientState.VALUE
    assert tape.gradient(inner).state is GradientState.NOT_COMPUTED
    assert tape.gradient(x).state is GradientState.NOT_COMPUTED
    assert tape.gradient(other).state is GradientState.NOT_COMPUTED  # it had a contribution, but not yet all
    assert tape.gradient(aside).state is GradientState.NO_PATH


@pytest.mark.parametrize("retain_graph", [False, True])
def test_behind_a_function_that_passes_nothing_there_is_no_path(retain_graph):
    x, other = leaf(3), leaf(3, seed=1)
    with record() as tape:
        inner = x.exp()
        (apply(PassesNothing(), inner) + other).sum().backward(retain_graph=retain_graph)
    assert tape.gradient(inner).state is GradientState.NO_PATH
    assert tape.gradient(x).state is GradientState.NO_PATH
    assert tape.gradient(other).state is GradientState.VALUE


def test_a_new_backward_pass_begins_with_a_clean_slate():
    x, y = leaf(3), leaf(3, seed=1)
    with record() as tape:
        first, second = (x * y).sum(), (x * 2).sum()
        first.backward()
        np.testing.assert_array_equal(tape.gradient(x).array, y.data)
        second.backward()
    np.testing.assert_array_equal(tape.gradient(x).array, [2, 2, 2])
    assert len(tape.contributions(x)) == 1
    assert tape.gradient(y).state is GradientState.NO_PATH
    assert tape.loss is tape[second]
    np.testing.assert_array_equal(x.grad, y.data + 2)


# ---- memory --------------------------------------------------------------------------------------


@pytest.mark.parametrize("check", [False, True])
def test_a_tape_and_what_it_holds_are_freed_without_the_garbage_collector(check):
    net, x = models.create("resnet8", widths=(2, 3, 4)), leaf(2, 3, 4, 4, dtype=np.float32)
    gc.collect()
    gc.disable()
    try:
        with record(check=check) as tape:
            loss = net(x).sum()
            loss.backward()
        watched = [weakref.ref(tape), weakref.ref(loss), *(weakref.ref(n.value) for n in tape.nodes if n.kind == "op")]
        watched += [weakref.ref(each.array) for node in tape.nodes for each in tape.contributions(node)
                    if node.kind == "op"]  # fmt: skip
        del loss
        assert all(each() is not None for each in watched[2:])  # as long as the tape lives
        del tape
        assert [each() for each in watched if each() is not None] == []
    finally:
        gc.enable()


def test_a_deep_graph_is_recorded_and_freed_without_recursion():
    x = leaf(2)
    with record() as tape:
        y = x
        for _ in range(5000):
            y = -y
        y.sum().backward()
    assert len(tape.nodes) == 5002
    np.testing.assert_array_equal(tape.gradient(x).array, [1, 1])
    with record() as late:
        y = x
    for _ in range(5000):
        y = -y
    with record() as late:
        y.sum().backward()
    assert len(late.nodes) == 5002
    del tape, late, y


# ---- the first NaN -------------------------------------------------------------------------------


def test_a_tape_of_finite_numbers_has_no_first_nonfinite():
    _, _, tape = recorded_net()
    assert tape.first_nonfinite() is None


def test_the_first_nonfinite_of_the_forward_pass_is_found_with_its_line():
    x = Tensor(np.array([[1.0, 2.0, 3.0], [4.0, 0.0, -1.0]], np.float32), requires_grad=True)
    with record() as tape, np.errstate(all="ignore"):
        line = inspect.currentframe().f_lineno + 1
        y = (x * 2).log()
        (y.exp() + y).sum().backward()
    found = tape.first_nonfinite()
    assert found.node is tape["log"]
    assert found.phase == "forward"
    assert found.index == (1, 1)
    assert found.count == 2
    assert str(found) == (
        "forward: its value is -inf at index [1, 1] and non-finite in 2 of 6 elements, shape (2, 3) float32; "
        f"log at test_record.py:{line}"
    )


def test_a_bad_input_is_itself_the_culprit():
    net, x = Net(), leaf(2, 2, 5, 4, dtype=np.float32)
    net.conv.weight.data[1, 0, 2, 2] = np.inf
    with record() as tape, np.errstate(all="ignore"):
        net(x)
    found = tape.first_nonfinite()
    assert (found.node.name, found.index, found.count) == ("conv.weight", (1, 0, 2, 2), 1)
    assert "; conv.weight" in str(found)


def test_the_first_nonfinite_of_the_backward_pass_is_the_node_whose_backward_made_it():
    x = Tensor(np.array([1.0, 0.0, 4.0]), requires_grad=True)
    with record() as tape, np.errstate(all="ignore"):
        (x.sqrt() * 3).sum().backward()  # d sqrt(x) = dx / (2 sqrt(x)) is infinite at 0
    found = tape.first_nonfinite()
    assert (found.node.name, found.phase, found.what, found.index) == (
        "sqrt",
        "backward",
        "its gradient for input",
        (1,),
    )


def test_finite_contributions_with_an_infinite_sum_are_found_at_the_fork():
    x = leaf(2)
    huge = Tensor(np.array([1.0, 1e308]))
    with record() as tape, np.errstate(all="ignore"):
        y = x * 1
        ((y * huge) * 1.5 + (y * huge) * 1.5).backward(np.ones(2))
    found = tape.first_nonfinite()
    assert (found.node.name, found.phase, found.what) == ("mul", "backward", "the sum of its contributions")
    with record() as tape, np.errstate(all="ignore"):
        ((x * huge) * 1.5 + (x * huge) * 1.5).backward(np.ones(2))
    assert (tape.first_nonfinite().node.name, tape.first_nonfinite().what) == ("input", "the sum of its contributions")


def test_a_bad_upstream_gradient_is_found():
    with record() as tape:
        y = leaf(2) * 2
        y.backward(np.array([np.nan, 1.0]))
    found = tape.first_nonfinite()
    assert (found.node.name, found.what, found.index) == ("mul", "the upstream gradient", (0,))


def test_integers_and_parameters_outside_of_modules_are_recorded_too():
    weight, indices = Parameter(np.arange(6.0).reshape(3, 2)), np.array([2, 0, 2])
    with record() as tape:
        counts = Tensor(indices) + Tensor(indices)
        weight[indices].sum().backward()
    assert tape[counts].dtype.kind == "i"
    assert tape[weight].name == "param"
    assert tape["index"].hyper_parameters == {"index": "array (3,) int64"}
    assert tape.first_nonfinite() is None
