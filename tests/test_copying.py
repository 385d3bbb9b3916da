"""copy, deepcopy and pickle: leaves and modules are copied whole, what belongs to a graph is refused by name."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest

from minires import Parameter, Tensor, functional, models, nn

WAYS = {
    "deepcopy": copy.deepcopy,
    "pickle": lambda value: pickle.loads(pickle.dumps(value)),
    "copy": copy.copy,
}


class Named(Parameter):
    """A subclass with attributes of its own."""


@pytest.mark.parametrize("way", WAYS)
def test_a_leaf_is_copied_with_its_gradient(way):
    for leaf in (Tensor([1.0, 2.0]), Tensor([1, 2]), Parameter([1.0, 2.0]), Parameter([1.0], requires_grad=False)):
        leaf.data = leaf.data * 2
        if leaf.requires_grad:
            leaf.grad = np.array([5.0, 6.0], np.float32)
            leaf.register_hook(print)
        copied = WAYS[way](leaf)
        assert type(copied) is type(leaf)
        assert copied.data.tolist() == leaf.data.tolist()
        assert copied.dtype == leaf.dtype
        assert copied.requires_grad == leaf.requires_grad
        assert (copied.grad is None) == (leaf.grad is None)
        assert np.may_share_memory(copied.data, leaf.data) == (way == "copy")
        if leaf.requires_grad:
            (copied * 3).backward(np.ones(2, np.float32))  # no hook prints, no change is remembered
            assert copied.grad.tolist() == [8.0, 9.0]
            assert leaf.grad.tolist() == [5.0, 6.0]


@pytest.mark.parametrize("way", WAYS)
def test_a_subclass_keeps_its_attributes(way):
    tensor = Named([1.0])
    tensor.name = ["weight"]
    copied = WAYS[way](tensor)
    assert type(copied) is Named
    assert copied.name == ["weight"]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("depth", [1, 5000])
def test_a_tensor_that_a_function_made_is_refused_by_name(way, depth):
    """5,000 operations deep: RecursionError."""
    y = Tensor([1.0, 2.0], requires_grad=True)
    for _ in range(depth):
        y = y * 1.0
    message = (
        r"copy, pickle: the tensor of shape \(2,\) was made by Mul\(\) \(.*test_copying.py:\d+\).*tensor.detach\(\)"
    )
    for holder in (y, [y], {"loss": y}):
        if way == "copy" and holder is not y:
            continue  # a shallow copy of a list holds the same tensor
        with pytest.raises(RuntimeError, match=message):
            WAYS[way](holder)
    assert WAYS[way](y.detach()).data.tolist() == y.data.tolist()


@pytest.mark.parametrize("way", WAYS)
def test_a_module_that_holds_such_a_tensor_says_which(way):
    net = nn.Sequential(nn.Linear(2, 3, rng=np.random.default_rng(0)), nn.ReLU())
    layer = next(iter(net.modules())) if way == "copy" else next(m for m in net.modules() if isinstance(m, nn.Linear))
    layer.penalty = (Parameter([1.0, 2.0]) * 2).sum()
    name = type(layer).__name__
    with pytest.raises(
        RuntimeError, match=rf"copy, pickle: {name}.penalty is a tensor of shape \(\) made by Sum.*detach"
    ):
        WAYS[way](net)
    layer.penalty = layer.penalty.detach()
    assert WAYS[way](net)(Tensor(np.ones((1, 2), np.float32))).shape == (1, 3)


@pytest.mark.parametrize("way", ["deepcopy", "pickle"])
def test_a_net_that_has_trained_is_copied_and_goes_its_own_way(way):
    net = models.create("resnet8", widths=(2, 2, 2), num_classes=3)
    x = Tensor(np.random.default_rng(0).standard_normal((2, 3, 8, 8)).astype(np.float32))
    functional.cross_entropy(net(x), np.array([0, 2])).backward()
    copied = WAYS[way](net)
    for (name, one), (_, other) in zip(net.named_parameters(), copied.named_parameters(), strict=True):
        np.testing.assert_array_equal(one.data, other.data, name)
        np.testing.assert_array_equal(one.grad, other.grad, name)
        assert not np.may_share_memory(one.data, other.data)
    np.testing.assert_array_equal(net.eval()(x).data, copied.eval()(x).data)


def test_parameters_that_share_their_array_still_do_in_the_copy():
    array = np.ones(3, np.float32)
    one, other = copy.deepcopy([Parameter(array), Parameter(array)])
    assert one.data is other.data
