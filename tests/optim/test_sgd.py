"""SGD: its forms, groups and state."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from minires import Parameter, Tensor, nn
from minires.optim import SGD, decay_groups
from tests import oracles

SETTINGS = {
    "plain": {},
    "decay": {"weight_decay": 0.01},
    "momentum": {"momentum": 0.9},
    "momentum and decay": {"momentum": 0.9, "weight_decay": 0.01},
    "nesterov": {"momentum": 0.9, "nesterov": True},
    "nesterov and decay": {"momentum": 0.9, "weight_decay": 0.01, "nesterov": True},
}


def quadratic_steps(form, rates, start=(3.0, -2.0, 1.0), **settings):
    """The path of a parameter that descends 0.5 sum(c p^2) at the learning rates given."""
    curvature = np.array([1.0, 0.3, 5.0])
    parameter = Parameter(np.array(start))
    optimizer = SGD([parameter], lr=rates[0], form=form, **settings)
    path = []
    for rate in rates:
        optimizer.groups[0]["lr"] = rate
        optimizer.zero_grad()
        (parameter * parameter * Tensor(curvature / 2)).sum().backward()
        optimizer.step()
        path.append(parameter.data.copy())
    return np.array(path)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("form", ["torch", "caffe"])
@pytest.mark.parametrize("name", SETTINGS)
def test_five_steps_follow_the_rule(name, form, dtype):
    settings = {"momentum": 0.0, "weight_decay": 0.0, "nesterov": False, **SETTINGS[name]}
    rng = np.random.default_rng(0)
    parameter = Parameter(rng.standard_normal((3, 4)).astype(dtype))
    optimizer = SGD([parameter], lr=0.1, form=form, **settings)
    expected = parameter.data.astype(np.float64)
    velocity = np.zeros((3, 4)) if settings["momentum"] else None
    for lr in (0.1, 0.1, 0.01, 0.01, 0.2):
        gradient = rng.standard_normal((3, 4)).astype(dtype)
        copy = gradient.copy()
        optimizer.groups[0]["lr"] = lr
        parameter.grad = gradient
        optimizer.step()
        expected, velocity = oracles.sgd(expected, gradient, velocity, lr, caffe=form == "caffe", **settings)
        np.testing.assert_array_equal(gradient, copy)
    assert parameter.dtype == dtype
    np.testing.assert_allclose(parameter.data, expected, rtol=0, atol=20 * np.finfo(dtype).eps)


def test_decay_alone_shrinks_by_exactly_one_minus_lr_times_decay():
    parameter = Parameter(np.array([3.0, -2.0]))
    parameter.grad = np.zeros(2)
    SGD([parameter], lr=0.1, weight_decay=0.01).step()
    np.testing.assert_allclose(parameter.data, np.array([3.0, -2.0]) * (1 - 0.1 * 0.01), rtol=1e-15)


@pytest.mark.parametrize("name", ["momentum", "momentum and decay", "nesterov", "nesterov and decay"])
def test_both_forms_walk_one_path_while_lr_is_constant_and_part_when_it_drops(name):
    rates = [0.1] * 20 + [0.01] * 20
    torch_form, caffe_form = (quadratic_steps(form, rates, **SETTINGS[name]) for form in ("torch", "caffe"))
    np.testing.assert_allclose(torch_form[:20], caffe_form[:20], rtol=0, atol=1e-12)
    assert np.abs(torch_form[20] - caffe_form[20]).max() > 1e-3


def test_without_momentum_the_forms_are_the_same():
    rates = [0.1] * 5 + [0.01] * 5
    np.testing.assert_allclose(quadratic_steps("torch", rates), quadratic_steps("caffe", rates), rtol=0, atol=1e-15)


def test_momentum_does_not_shrink_the_effective_learning_rate():
    """A constant gradient ends at a speed of lr / (1 - momentum), which v := m v + (1 - m) lr g would make lr."""
    parameter = Parameter(np.zeros(1))
    optimizer = SGD([parameter], lr=0.1, momentum=0.9)
    for _ in range(300):
        before = parameter.data.copy()
        parameter.grad = np.ones(1)
        optimizer.step()
    assert before - parameter.data == pytest.approx([0.1 / (1 - 0.9)], rel=1e-9)


def test_nesterov_differs_from_plain_momentum():
    rates = [0.1] * 3
    plain, nesterov = (quadratic_steps("torch", rates, **SETTINGS[name]) for name in ("momentum", "nesterov"))
    assert np.abs(plain - nesterov).max() > 0.01


def test_a_parameter_without_a_gradient_stays_and_keeps_no_velocity():
    moved, still = Parameter([1.0]), Parameter([1.0])
    optimizer = SGD([moved, still], lr=0.1, momentum=0.9, weight_decay=0.1)
    moved.grad = np.ones(1, np.float32)
    optimizer.step()
    assert still.data.tolist() == [1.0]
    assert list(optimizer.state_dict()["velocities"]) == [0]
    optimizer.zero_grad()
    assert moved.grad is None


def test_the_update_is_in_place():
    parameter = Parameter(np.ones(3, np.float32))
    array = parameter.data
    parameter.grad = np.ones(3, np.float32)
    SGD([parameter], lr=0.5).step()
    assert parameter.data is array
    assert array.tolist() == [0.5] * 3


def test_groups_have_settings_of_their_own():
    first, second = Parameter([1.0]), Parameter([1.0])
    groups = [{"parameters": [first], "lr": 0.5}, {"parameters": [second], "weight_decay": 1.0}]
    optimizer = SGD(groups, lr=0.1, momentum=0.0)
    assert [group["lr"] for group in optimizer.groups] == [0.5, 0.1]
    for parameter in (first, second):
        parameter.grad = np.ones(1, np.float32)
    optimizer.step()
    assert first.data == pytest.approx([0.5])
    assert second.data == pytest.approx([0.8])
    assert set(groups[0]) == {"parameters", "lr"}, "what was passed isn't changed"


def test_decay_groups_decay_weights_and_nothing_else():
    rng = np.random.default_rng(0)
    net = nn.Sequential(nn.Conv2d(1, 2, 3, rng=rng), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(2, 3, rng=rng))
    decayed, others = decay_groups(net.named_parameters(), 1e-4)
    assert decayed["weight_decay"] == 1e-4
    assert others["weight_decay"] == 0
    assert decayed["parameters"] == [net[0].weight, net[3].weight]
    assert others["parameters"] == [net[0].bias, net[1].weight, net[1].bias, net[3].bias]
    optimizer = SGD(decay_groups(net.named_parameters(), 1e-4), lr=0.1)
    assert [group["weight_decay"] for group in optimizer.groups] == [1e-4, 0.0]


def test_decay_groups_of_a_net_without_biases_make_an_optimizer():
    layer = nn.Linear(2, 3, bias=False, rng=np.random.default_rng(0))
    SGD(decay_groups(layer.named_parameters(), 1e-4), lr=0.1)


# ---- state ---------------------------------------------------------------------------------------


def trained(steps, optimizer, parameters, seed):
    rng = np.random.default_rng(seed)
    for _ in range(steps):
        for parameter in parameters:
            parameter.grad = rng.standard_normal(parameter.shape).astype(np.float32)
        optimizer.step()


def fresh():
    parameters = [Parameter(np.ones(3, np.float32)), Parameter(np.ones((2, 2), np.float32))]
    groups = [{"parameters": parameters[:1]}, {"parameters": parameters[1:], "weight_decay": 0.01}]
    return parameters, SGD(groups, lr=0.1, momentum=0.9)


@pytest.mark.parametrize("as_text", [False, True])
def test_training_resumes_bit_for_bit_from_a_state_dict(as_text):
    parameters, optimizer = fresh()
    optimizer.groups[1]["lr"] = 0.03
    trained(3, optimizer, parameters, seed=0)
    state = optimizer.state_dict()
    if as_text:  # a checkpoint may turn positions into strings
        state = {**state, "velocities": {str(position): array for position, array in state["velocities"].items()}}
    copies, resumed = fresh()
    for copy, parameter in zip(copies, parameters, strict=True):
        copy.data[...] = parameter.data
    resumed.load_state_dict(state)
    trained(3, optimizer, parameters, seed=1)
    trained(3, resumed, copies, seed=1)
    for copy, parameter in zip(copies, parameters, strict=True):
        np.testing.assert_array_equal(copy.data, parameter.data)
    assert resumed.groups[1]["lr"] == 0.03


def test_state_dict_holds_copies():
    parameters, optimizer = fresh()
    trained(1, optimizer, parameters, seed=0)
    state = optimizer.state_dict()
    before = state["velocities"][0].copy()
    trained(1, optimizer, parameters, seed=1)
    np.testing.assert_array_equal(state["velocities"][0], before)
    other_parameters, other = fresh()
    other.load_state_dict(state)
    trained(1, other, other_parameters, seed=1)
    np.testing.assert_array_equal(state["velocities"][0], before)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s["groups"].pop(), "the state has 1 groups, this optimizer 2"),
        (
            lambda s: s["velocities"].update({0: np.zeros((4,), "f")}),
            r"velocity 0 is \(4,\) float32, its parameter \(3,\) float32",
        ),
        (
            lambda s: s["velocities"].update({7: np.zeros((3,), "f")}),
            r"velocity 7 is \(3,\) float32, its parameter not there",
        ),
        (
            lambda s: s["velocities"].update({0: np.zeros((3,))}),
            r"velocity 0 is \(3,\) float64, its parameter \(3,\) float32",
        ),
        (lambda s: s["groups"][0].update(rate=1.0), "a group of the state has .*, rate; of this optimizer lr, "),
        (lambda s: s["groups"][1].update(lr=np.nan), "lr must be a finite number of at least 0, got nan"),
        (lambda s: s.pop("velocities"), "a state has velocities, groups and form, .*; got groups, form"),
        (lambda s: s.update(form="caffe"), "the state is of form 'caffe', this optimizer 'torch'"),
    ],
)
def test_a_state_that_does_not_fit_is_refused_before_anything_changes(change, message):
    parameters, optimizer = fresh()
    trained(1, optimizer, parameters, seed=0)
    state = optimizer.state_dict()
    state["groups"][0]["lr"] = 99
    change(state)
    _, other = fresh()
    with pytest.raises(ValueError, match="SGD: .*" + message):
        other.load_state_dict(state)
    assert other.state_dict()["velocities"] == {}
    assert other.groups[0]["lr"] == 0.1
    assert set(other.groups[0]) == {"parameters", "lr", "momentum", "weight_decay", "nesterov"}


# ---- manners and errors --------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "value"), [("lr", np.nan), ("momentum", None), ("weight_decay", "0.1")])
def test_a_setting_that_was_changed_by_hand_is_checked_before_anything_moves(name, value):
    first, second = Parameter([1.0]), Parameter([1.0])
    optimizer = SGD([{"parameters": [first]}, {"parameters": [second], name: 0.5}], lr=0.1)
    first.grad = second.grad = np.ones(1, np.float32)
    optimizer.groups[0][name] = value
    with pytest.raises((TypeError, ValueError), match=f"SGD: {name} must be a"):
        optimizer.step()
    assert first.data == second.data == 1


def test_a_frozen_parameter_stays():
    net = nn.Sequential(nn.Linear(2, 3, rng=np.random.default_rng(0)), nn.Linear(3, 1, rng=np.random.default_rng(1)))
    for parameter in net[0].parameters():
        parameter.requires_grad = False
    optimizer = SGD(net.parameters(), lr=0.1, momentum=0.9, weight_decay=0.1)
    before = net.state_dict()
    net(Tensor(np.ones((1, 2), np.float32))).sum().backward()
    optimizer.step()
    after = net.state_dict()
    assert [np.array_equal(before[name], after[name]) for name in before] == [True, True, False, False]


@pytest.mark.parametrize("name", SETTINGS)
@pytest.mark.parametrize("form", ["torch", "caffe"])
def test_hyper_parameters_from_numpy_do_not_widen_anything(name, form):
    settings = {key: np.float64(value) if key != "nesterov" else value for key, value in SETTINGS[name].items()}
    exact, numpy_settings = (Parameter(np.linspace(-1, 1, 5, dtype=np.float32)) for _ in range(2))
    for parameter, options, lr in ((exact, SETTINGS[name], 0.1), (numpy_settings, settings, np.float64(0.1))):
        optimizer = SGD([parameter], lr=lr, form=form, **options)
        for step in range(3):
            parameter.grad = np.linspace(0, step, 5, dtype=np.float32)
            optimizer.step()
    np.testing.assert_array_equal(exact.data, numpy_settings.data)
    assert all(velocity.dtype == np.float32 for velocity in optimizer.state_dict()["velocities"].values())


@pytest.mark.parametrize(
    ("build", "error", "message"),
    [
        (lambda p: SGD([], lr=0.1), ValueError, r"got no parameters; pass module.parameters\(\) or groups"),
        (lambda p: SGD([p, p], lr=0.1), ValueError, "a parameter appears twice"),
        (lambda p: SGD([{"parameters": [p]}, {"parameters": [p]}], lr=0.1), ValueError, "a parameter appears twice"),
        (
            lambda p: SGD([p], lr=-0.1),
            ValueError,
            "lr must be a finite number of at least 0, got -0.1",
        ),
        (
            lambda p: SGD([p], lr=0.1, momentum=-0.9),
            ValueError,
            "momentum must be a finite number of at least 0",
        ),
        (
            lambda p: SGD([p], lr=0.1, weight_decay=-1.0),
            ValueError,
            "weight_decay must be a finite number of at least 0, got -1.0",
        ),
        (lambda p: SGD([p], lr=0.1, nesterov=True), ValueError, "nesterov needs momentum > 0"),
        (lambda p: SGD([p], lr=0.1, form="adam"), ValueError, "form must be 'torch' or 'caffe', got 'adam'"),
        (
            lambda p: SGD([Tensor([1.0])], lr=0.1),
            TypeError,
            r"expected Parameters, got Tensor; pass module.parameters\(\)",
        ),
        (lambda p: SGD([p.data], lr=0.1), TypeError, "expected Parameters, got ndarray"),
        (
            lambda p: SGD([{"params": [p]}], lr=0.1),
            ValueError,
            "a group has 'parameters' and any of lr, .*, got params",
        ),
        (lambda p: SGD([{"parameters": [p], "rate": 1}], lr=0.1), ValueError, "a group has .*, got parameters, rate"),
        (
            lambda p: SGD([{"parameters": [p], "lr": -1.0}], lr=0.1),
            ValueError,
            "lr must be a finite number of at least 0, got -1.0",
        ),
        (lambda p: SGD([p], lr=np.nan), ValueError, "lr must be a finite number of at least 0, got nan"),
        (lambda p: SGD([p], lr=np.inf), ValueError, "lr must be a finite number of at least 0, got inf"),
        (lambda p: SGD([p], lr=None), TypeError, "lr must be a number, got None"),
        (lambda p: SGD([p], lr=Tensor(0.1)), TypeError, r"lr must be a number, got a Tensor .*; use \.item\(\)"),
        (lambda p: SGD([p], lr=np.array([0.1])), TypeError, r"lr must be a number, got array\(\[0\.1\]\)"),
        (lambda p: SGD([p], lr="0.1"), TypeError, "lr must be a number, got '0.1'"),
        (lambda p: SGD([p], lr=0.1, momentum=None), TypeError, "momentum must be a number, got None"),
        (lambda p: SGD([p], lr=0.1, momentum=True), TypeError, "momentum must be a number, got True"),
        (lambda p: SGD([p], lr=0.1, nesterov=0.9), TypeError, "nesterov must be True or False, got 0.9"),
        (lambda p: SGD(p, lr=0.1), TypeError, "expected Parameters or groups of them, got Parameter; pass a list"),
        (lambda p: SGD(nn.Identity(), lr=0.1), TypeError, "expected Parameters or groups of them, got Identity; pass"),
        (lambda p: SGD([{"parameters": p}], lr=0.1), TypeError, r"a group's parameters are a list, got Parameter; wri"),
        (lambda p: SGD([{"parameters": [p]}, p], lr=0.1), TypeError, "expected groups, which are dictionaries, got P"),
        (
            lambda p: SGD([{"params": [p]}], lr=0.1),
            ValueError,
            "a group has 'parameters' and any of .*, got params; PyTorch's 'params' is called 'parameters' here",
        ),
    ],
)
def test_refuses(build, error, message):
    with pytest.raises(error, match=f"SGD: {message}"):
        build(Parameter([1.0]))


# ---- what doesn't fit is refused before anything moves


def stepped(*shapes, momentum=0.9):
    """(parameters, optimizer) after one step, with new gradients for the next."""
    rng = np.random.default_rng(0)
    parameters = [Parameter(rng.standard_normal(shape).astype(np.float32)) for shape in shapes]
    optimizer = SGD(parameters, lr=0.1, momentum=momentum)
    for gradients in (1, 2):
        for parameter in parameters:
            parameter.grad = rng.standard_normal(parameter.shape).astype(np.float32)
        if gradients == 1:
            optimizer.step()
    return parameters, optimizer


def unmoved(parameters, optimizer, error, message):
    before = [parameter.data.copy() for parameter in parameters], optimizer.state_dict()["velocities"]
    with pytest.raises(error, match=message):
        optimizer.step()
    after = [parameter.data for parameter in parameters], optimizer.state_dict()["velocities"]
    for data, old in zip(after[0], before[0], strict=True):
        np.testing.assert_array_equal(data, old)
    assert after[1].keys() == before[1].keys()
    for place, velocity in after[1].items():
        np.testing.assert_array_equal(velocity, before[1][place])


@pytest.mark.parametrize("classes", [100, 11, 9, 1])
def test_an_old_velocity_for_a_new_head(classes):
    parameters, optimizer = stepped((3, 4), (10, 64))
    parameters[1].data = np.zeros((classes, 64), np.float32)
    parameters[1].grad = np.ones((classes, 64), np.float32)
    message = (
        rf"SGD: parameter 1 of group 0 can't be moved, so none was: update.sgd: velocity must have shape "
        rf"\({classes}, 64\), got \(10, 64\).*make a new SGD for the net's parameters"
    )
    unmoved(parameters, optimizer, ValueError, message)


@pytest.mark.parametrize(
    ("data", "momentum", "error", "cure"),
    [
        (np.ones((10, 63), np.float32), 0.0, ValueError, "call zero_grad\\(\\), then backward again"),
        (np.ones((1, 64), np.float32), 0.0, ValueError, "call zero_grad\\(\\), then backward again"),
        (np.ones(640, np.float32), 0.0, ValueError, "call zero_grad\\(\\), then backward again"),
        (np.ones((10, 64)), 0.0, TypeError, "call zero_grad\\(\\), then backward again"),
        (np.ones((10, 64)), 0.9, TypeError, "call zero_grad\\(\\), then backward again"),
        (np.ones((10, 63), np.float32), 0.9, ValueError, "make a new SGD"),
    ],
)
def test_an_old_gradient_for_new_data(data, momentum, error, cure):
    parameters, optimizer = stepped((3, 4), (10, 64), momentum=momentum)
    parameters[1].data = data
    message = rf"SGD: parameter 1 of group 0 can't be moved, so none was: update.sgd: .*grad .*; .*{cure}"
    unmoved(parameters, optimizer, error, message)


def test_a_parameter_that_cannot_be_written():
    parameters, optimizer = stepped((3, 4), (2, 2), (4,))
    parameters[1].data.flags.writeable = False
    message = r"SGD: parameter 1 of group 0 .* is read-only; .*parameter.data = parameter.data.copy\(\)"
    unmoved(parameters, optimizer, ValueError, message)
    parameters[1].data = parameters[1].data.copy()
    parameters[2].data = np.broadcast_to(np.float32(1), (4,))
    unmoved(parameters, optimizer, ValueError, "SGD: parameter 2 of group 0 .* is read-only")
    parameters[2].data = np.lib.stride_tricks.as_strided(np.ones(1, np.float32), (4,), (0,))
    unmoved(parameters, optimizer, ValueError, "SGD: parameter 2 of group 0 .* share their places")


def test_a_refused_first_step_leaves_no_velocity():
    parameter, other = Parameter(np.ones(2)), Parameter(np.ones(2))
    parameter.grad, other.grad = np.ones(2), np.ones(2)
    other.data = np.ones(3)
    optimizer = SGD([parameter, other], lr=0.1, momentum=0.9)
    unmoved([parameter, other], optimizer, ValueError, "parameter 1 of group 0")
    assert optimizer.state_dict()["velocities"] == {}


@pytest.mark.parametrize(("before", "after"), [(np.float32, np.float64), (np.float64, np.float32)])
def test_the_velocity_follows_a_net_to_another_dtype(before, after):
    """Two steps, with a conversion between them, are those of an optimizer that has known the dtype all along."""
    rng = np.random.default_rng(0)
    net = nn.Linear(4, 3, rng=rng).astype(before)
    optimizer = SGD(net.parameters(), lr=0.1, momentum=0.9, weight_decay=0.01)
    expected = {name: (array.astype(np.float64), np.zeros(array.shape)) for name, array in net.state_dict().items()}
    for dtype in (before, after):
        net.astype(dtype)
        for name, parameter in net.named_parameters():
            parameter.grad = rng.standard_normal(parameter.shape).astype(dtype)
            data, velocity = expected[name]
            expected[name] = oracles.sgd(data, parameter.grad, velocity, 0.1, 0.9, 0.01, nesterov=False, caffe=False)
        optimizer.step()
    for name, parameter in net.named_parameters():
        assert parameter.dtype == after
        np.testing.assert_allclose(parameter.data, expected[name][0], rtol=0, atol=1e-6)
    assert all(velocity.dtype == after for velocity in optimizer.state_dict()["velocities"].values())


def test_a_parameter_in_another_order_of_memory_keeps_its_velocity():
    parameters, optimizer = stepped((5, 7))
    twin, other = stepped((5, 7))
    twin[0].data = np.asfortranarray(twin[0].data)
    optimizer.step()
    other.step()
    np.testing.assert_array_equal(twin[0].data, parameters[0].data)


def test_parameters_may_come_from_an_iterator():
    layer = nn.Linear(2, 3, rng=np.random.default_rng(0))
    assert SGD(layer.parameters(), lr=0.1).groups[0]["parameters"] == [layer.weight, layer.bias]
    once = layer.parameters()
    SGD(once, lr=0.1)
    with pytest.raises(ValueError, match=r"SGD: got no parameters; .*\(a generator gives them once: call it anew\)"):
        SGD(once, lr=0.1)
    with pytest.raises(ValueError, match="SGD: a group's parameters come from a generator that gives none"):
        SGD([{"parameters": layer.parameters()}, {"parameters": once}], lr=0.1)
    chained = itertools.chain(layer.parameters(), [Parameter([1.0])])
    assert len(SGD(chained, lr=0.1).groups[0]["parameters"]) == 3
