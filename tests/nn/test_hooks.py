"""Hooks: when they are called and with what; what they return takes effect; gradients stay what they were."""

from __future__ import annotations

import copy

import numpy as np
import pytest

from minires import Parameter, Tensor, functional, models, nn, no_grad, record


def normal(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def linear(inputs=3, outputs=2, seed=0):
    return nn.Linear(inputs, outputs, rng=np.random.default_rng(seed))


class Calls(list):
    """A hook that remembers its arguments and returns ``answer``."""

    def __init__(self, answer=None):
        self.answer = answer

    def __call__(self, *arguments):
        self.append(arguments)
        return self.answer


# ---- forward ---------------------------------------------------------------------------------------


def test_forward_hooks_see_module_inputs_and_output():
    layer, before, after = linear(), Calls(), Calls()
    layer.register_forward_pre_hook(before)
    layer.register_forward_hook(after)
    x = Tensor(normal(4, 3))
    y = layer(x)
    assert before == [(layer, (x,))]
    ((module, inputs, output),) = after
    assert (module, inputs) == (layer, (x,))
    assert output is y
    layer(x)
    assert len(before) == len(after) == 2


def test_what_forward_hooks_return_takes_the_place_of_inputs_and_output():
    layer, x, other = linear(), Tensor(normal(4, 3)), Tensor(normal(4, 3, seed=1))
    with layer.register_forward_pre_hook(Calls(other)):
        np.testing.assert_array_equal(layer(x).data, layer(other).data)
    with layer.register_forward_pre_hook(Calls((other,))):
        np.testing.assert_array_equal(layer(x).data, layer(other).data)
    with layer.register_forward_hook(Calls("instead")):
        assert layer(x) == "instead"


def test_hooks_are_called_in_their_order_and_each_sees_what_the_one_before_made():
    layer, seen = nn.Identity(), []
    for name in ("first", "second"):
        layer.register_forward_pre_hook(lambda module, inputs, name=name: seen.append((name, inputs)) or inputs[0] + 1)
        layer.register_forward_hook(lambda module, inputs, y, name=name: seen.append((name, y)) or y * 10)
    assert layer(1) == 300
    assert seen == [("first", (1,)), ("second", (2,)), ("first", 3), ("second", 30)]


def test_a_handle_takes_its_hook_away_and_no_other():
    layer, first, second = nn.Identity(), Calls(), Calls()
    handle = layer.register_forward_hook(first)
    layer.register_forward_hook(second)
    handle.remove()
    handle.remove()
    layer(1)
    assert (len(first), len(second)) == (0, 1)


def test_a_hook_may_take_itself_away():
    layer, calls = nn.Identity(), Calls()

    def once(module, inputs, output):
        calls(output)
        handle.remove()

    handle = layer.register_forward_hook(once)
    layer.register_forward_hook(calls)
    layer(1)
    layer(2)
    assert [call[-1] for call in calls] == [1, 1, 2]


def test_hooks_of_the_layers_of_a_net_collect_its_activations():
    net, seen = models.create("resnet8", widths=(2, 3, 4)), {}
    for name, module in net.named_modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_hook(lambda _, __, y, name=name: seen.update({name: y.shape}))
    net(Tensor(normal(2, 3, 8, 8)))
    assert seen["conv1"] == seen["layer1.0.conv2"] == (2, 2, 8, 8)
    assert seen["layer3.0.conv2"] == (2, 4, 2, 2)
    assert len(seen) == 7


# ---- backward --------------------------------------------------------------------------------------


def test_a_backward_hook_sees_the_gradients_of_input_and_output():
    layer, calls = linear(), Calls()
    layer.register_full_backward_hook(calls)
    x, upstream = Tensor(normal(4, 3), requires_grad=True), normal(4, 2, seed=1)
    layer(x).backward(upstream)
    ((module, grad_input, grad_output),) = calls
    assert module is layer
    assert len(grad_input) == len(grad_output) == 1
    np.testing.assert_array_equal(grad_output[0], upstream)
    np.testing.assert_allclose(grad_input[0], upstream @ layer.weight.data, rtol=1e-6)
    np.testing.assert_array_equal(x.grad, grad_input[0])


def test_a_backward_hook_changes_no_gradient_and_no_value():
    def run(hooked):
        net = models.create("resnet8", widths=(2, 3, 4))
        for module in net.modules() if hooked else ():
            module.register_full_backward_hook(Calls())
        loss = functional.cross_entropy(net(Tensor(normal(4, 3, 8, 8))), np.array([1, 2, 3, 4]))
        loss.backward()
        return loss.item(), {name: p.grad for name, p in net.named_parameters()}

    (loss, gradients), (hooked_loss, hooked_gradients) = run(False), run(True)
    assert loss == hooked_loss
    assert gradients.keys() == hooked_gradients.keys()
    for name, gradient in gradients.items():
        np.testing.assert_array_equal(gradient, hooked_gradients[name])


class Two(nn.Module):
    """Two inputs, of which the second may be left alone, and results in a dictionary."""

    def __init__(self, use_both=True):
        self.use_both = use_both
        self.scale = Parameter(np.float32(3.0).reshape(1))

    def forward(self, x, y, factor=2):
        return {"sum": x * self.scale + y if self.use_both else x * self.scale, "rest": [x * factor, "text"]}


@pytest.mark.parametrize("use_both", [True, False])
def test_several_inputs_and_outputs_each_have_their_gradient_or_none(use_both):
    module, calls = Two(use_both), Calls()
    module.register_full_backward_hook(calls)
    x, y = (Tensor(normal(2, 3, seed=seed), requires_grad=True) for seed in (1, 2))
    results = module(x, y)
    assert results["rest"][1] == "text"
    a, b = normal(2, 3, seed=3), normal(2, 3, seed=4)
    ((results["sum"] * Tensor(a)).sum() + (results["rest"][0] * Tensor(b)).sum()).backward()
    ((_, grad_input, grad_output),) = calls
    np.testing.assert_array_equal(grad_output[0], a)
    np.testing.assert_array_equal(grad_output[1], b)
    np.testing.assert_allclose(grad_input[0], 3 * a + 2 * b, rtol=1e-6)
    np.testing.assert_array_equal(x.grad, grad_input[0])
    if use_both:
        np.testing.assert_array_equal(grad_input[1], a)
        np.testing.assert_array_equal(y.grad, a)
    else:
        assert grad_input[1] is None
        assert y.grad is None


def test_an_output_that_nothing_used_has_no_gradient():
    module, calls = Two(), Calls()
    module.register_full_backward_hook(calls)
    x, y = (Tensor(normal(2, 3, seed=seed), requires_grad=True) for seed in (1, 2))
    module(x, y)["rest"][0].sum().backward()
    ((_, grad_input, grad_output),) = calls
    assert grad_output[0] is None
    assert grad_output[1] is not None
    assert grad_input[0] is not None
    assert grad_input[1] is None


def test_without_an_input_that_requires_a_gradient_the_hook_hears_of_the_output_alone():
    layer, calls = linear(), Calls()
    layer.register_full_backward_hook(calls)
    upstream = normal(4, 2, seed=1)
    layer(Tensor(normal(4, 3))).backward(upstream)
    ((_, grad_input, grad_output),) = calls
    assert grad_input == (None,)
    np.testing.assert_array_equal(grad_output[0], upstream)
    np.testing.assert_allclose(layer.bias.grad, upstream.sum(0), rtol=1e-6)


def test_what_a_backward_hook_returns_goes_on_and_the_parameters_gradients_stay():
    layer, upstream = linear(), normal(4, 2, seed=1)
    layer.register_full_backward_hook(lambda module, grad_input, grad_output: (grad_input[0] * 2,))
    layer.register_full_backward_hook(lambda module, grad_input, grad_output: (grad_input[0] + 1,))
    x = Tensor(normal(4, 3), requires_grad=True)
    layer(x * 5).backward(upstream)
    np.testing.assert_allclose(x.grad, 5 * (2 * (upstream @ layer.weight.data) + 1), rtol=1e-5)
    np.testing.assert_allclose(layer.weight.grad, upstream.T @ (x.data * 5), rtol=1e-5)


def test_each_call_of_a_module_and_each_backward_pass_calls_the_hook():
    layer, calls = linear(3, 3), Calls()
    layer.register_full_backward_hook(calls)
    loss = layer(layer(Tensor(normal(4, 3)))).sum()
    loss.backward(retain_graph=True)
    loss.backward()
    assert len(calls) == 4
    first, second = calls[0], calls[2]
    np.testing.assert_array_equal(first[1][0], second[1][0])


def test_a_removed_backward_hook_is_called_no_more_even_by_a_graph_that_was_made_with_it():
    layer, calls = linear(), Calls()
    handle = layer.register_full_backward_hook(calls)
    loss = layer(Tensor(normal(4, 3))).sum()
    handle.remove()
    loss.backward()
    assert calls == []
    assert layer.weight.grad is not None


def test_without_a_graph_no_backward_hook_is_called():
    layer, calls = linear(), Calls()
    layer.register_full_backward_hook(calls)
    with no_grad():
        y = layer(Tensor(normal(4, 3), requires_grad=True))
    assert not y.requires_grad
    assert nn.Identity()(Tensor([1.0])).is_leaf
    assert calls == []


@pytest.mark.parametrize(
    "answer", ["text", (), (None,), (np.ones((4, 3)),), (np.ones((3, 3), np.float32),), [np.ones((4, 3), np.float32)]]
)
def test_a_backward_hook_that_returns_something_else_is_refused_and_changes_no_gradient(answer):
    layer = linear()
    layer.register_full_backward_hook(Calls(answer))
    x = Tensor(normal(4, 3), requires_grad=True)
    message = (
        r"Linear: a backward hook must return None, or a tuple like grad_input, which is \(ndarray \(4, 3\) float32\)"
    )
    with pytest.raises(ValueError, match=message):
        layer(x).sum().backward()
    assert x.grad is None
    assert layer.weight.grad is None


def test_only_functions_are_hooks():
    for register in (
        nn.Module.register_forward_hook,
        nn.Module.register_forward_pre_hook,
        nn.Module.register_full_backward_hook,
    ):
        with pytest.raises(TypeError, match="Identity: a hook is a function, got int"):
            register(nn.Identity(), 3)


def test_a_tape_names_what_happens_in_a_module_with_hooks():
    net = nn.Sequential(linear(), nn.ReLU())
    net[0].register_forward_hook(lambda module, inputs, output: output + 1)
    net[0].register_full_backward_hook(Calls())
    x = Tensor(normal(4, 3), requires_grad=True)
    with record() as tape:
        net(x).sum().backward()
    names = [node.name for node in tape.nodes if node.kind == "op"]
    assert names == ["0.gather", "0.pass", "0.linear", "0.add", "0.gather#2", "0.pass#2", "1.relu"]
    assert tape["0"].op == "pass"


def test_a_copy_has_hooks_of_its_own():
    layer, calls = nn.Identity(), []
    handle = layer.register_forward_hook(lambda module, inputs, output: calls.append(module))
    twin = copy.deepcopy(layer)
    handle.remove()
    layer(1)
    twin(1)
    assert calls == [twin]


def test_hooks_are_no_state_and_no_settings():
    layer = linear()
    text, names = repr(layer), list(layer.state_dict())
    layer.register_forward_hook(Calls())
    assert (repr(layer), list(layer.state_dict())) == (text, names)


# ---- the witness -----------------------------------------------------------------------------------


@pytest.mark.witness
@pytest.mark.filterwarnings("ignore:Full backward hook is firing")
@pytest.mark.parametrize("needs", [(True, True), (True, False), (False, False)])
@pytest.mark.parametrize("change", [False, True])
def test_backward_hooks_get_and_do_what_torch_s_do(needs, change):
    torch = pytest.importorskip("torch")
    arrays = [normal(4, 3, seed=1), normal(4, 3, seed=2)]
    weight, a, b = normal(2, 3), normal(4, 2, seed=3), normal(4, 3, seed=4)

    def run(base, parameter, tensor, of):
        class Layer(base):
            def __init__(self):
                super().__init__()
                self.weight = parameter(weight.copy())

            def forward(self, x, y):
                return (x * y) @ self.weight.T, x * 2 + y * self.weight.sum()

        seen = []

        def hook(module, grad_input, grad_output):
            seen.append([None if g is None else of(g).copy() for g in (*grad_input, *grad_output)])
            return tuple(g if g is None else g * 3 for g in grad_input) if change else None

        layer = Layer()
        layer.register_full_backward_hook(hook)
        x, y = (tensor(array.copy(), need) for array, need in zip(arrays, needs, strict=True))
        first, second = layer(x, y)
        ((first * tensor(a, False)).sum() + (second * tensor(b, False)).sum()).backward()
        return [*seen[0], *(None if t.grad is None else of(t.grad) for t in (x, y, layer.weight))], len(seen)

    ours, count = run(nn.Module, Parameter, Tensor, lambda array: array)
    theirs, their_count = run(
        torch.nn.Module,
        lambda array: torch.nn.Parameter(torch.from_numpy(array)),
        lambda array, need: torch.tensor(array, requires_grad=need),
        lambda tensor: tensor.numpy(),
    )
    assert count == their_count == 1
    for mine, other in zip(ours, theirs, strict=True):
        if mine is None:  # torch gives zeros for an input that needs no gradient beside one that does
            assert other is None or not other.any()
        else:
            np.testing.assert_allclose(mine, other, rtol=1e-5, atol=1e-5)
