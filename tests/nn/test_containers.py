"""What is held in lists and dictionaries, plain ones and nn's own: it is found, named, converted, saved, or refused."""

from __future__ import annotations

import collections
import copy
import pickle
import types

import numpy as np
import pytest

from minires import Parameter, Tensor, nn, optim


def linear(*sizes):
    return nn.Linear(*(sizes or (2, 2)), rng=np.random.default_rng(0))


def named(module):
    return [name for name, _ in module.named_parameters()]


class Net(nn.Module):
    """Whatever it is given, under the name ``held``."""

    def __init__(self, held):
        self.held = held


Pair = collections.namedtuple("Pair", "left right")


# ---- plain lists, tuples and dictionaries ------------------------------------------------------------


@pytest.mark.parametrize(
    ("build", "names"),
    [
        (lambda p: [p()], ["held.0"]),
        (lambda p: (p(), p()), ["held.0", "held.1"]),
        (lambda p: {"left": p(), "right": p()}, ["held.left", "held.right"]),
        (lambda p: {18: p()}, ["held.18"]),
        (lambda p: [[p()], [p(), (p(),)]], ["held.0.0", "held.1.0", "held.1.1.0"]),
        (lambda p: {"a": [{"b": (p(),)}]}, ["held.a.0.b.0"]),
        (lambda p: Pair(p(), p()), ["held.0", "held.1"]),
        (lambda p: collections.OrderedDict(a=p()), ["held.a"]),
        (lambda p: collections.deque([p()]), ["held.0"]),
        (lambda p: [None, 3, "x", p(), lambda: None], ["held.3"]),
    ],
)
def test_parameters_and_modules_are_found_in_containers_of_any_depth(build, names):
    assert named(Net(build(lambda: Parameter([1.0])))) == names
    layers = Net(build(nn.Identity))
    assert [name for name, _ in layers.named_children()] == names
    assert [name for name, _ in layers.named_modules()] == ["", *names]
    weights = Net(build(linear))
    assert named(weights) == [f"{name}.{leaf}" for name in names for leaf in ("weight", "bias")]
    assert list(weights.state_dict()) == named(weights)


def test_all_that_a_module_does_reaches_into_containers():
    net = Net([{"block": [linear(), nn.BatchNorm2d(2)]}, {"scale": Parameter([1.0]), "seen": np.zeros(2, np.float32)}])
    assert not any(module.training for module in net.eval().modules())
    net.held[1]["scale"].grad = np.ones(1, np.float32)
    net.zero_grad()
    assert net.held[1]["scale"].grad is None
    net.astype(np.float64)
    assert {array.dtype.name for array in net.state_dict().values()} == {"float64", "int64"}
    state = {name: np.full_like(array, 7) for name, array in net.state_dict().items()}
    net.load_state_dict(state)
    assert net.held[0]["block"][0].weight.data[0, 0] == net.held[1]["seen"][0] == 7
    assert len(optim.SGD(net.parameters(), lr=0.1).groups[0]["parameters"]) == 5


def test_arrays_of_numbers_in_containers_are_state_and_other_arrays_are_configuration():
    net = Net({"means": [np.zeros(2, np.float32), np.ones(3)], "pair": Pair(np.arange(2), 5), "names": np.array(["a"])})
    assert [name for name, _ in net.named_buffers()] == ["held.means.0", "held.means.1", "held.pair.0"]
    pair = net.held["pair"]
    net.astype(np.float32)
    assert net.held["means"][1].dtype == np.float32
    assert isinstance(net.held["pair"], Pair)
    assert net.held["pair"][0] is pair[0], "integers aren't converted"


def test_a_container_without_state_stays_the_same_object_through_a_conversion():
    blocks = [linear()]
    net = Net(blocks).astype(np.float64)
    assert net.held is blocks
    assert blocks[0].weight.dtype == np.float64


def test_an_array_in_two_places_stays_one_array_through_a_conversion():
    first, second = nn.BatchNorm2d(2), nn.BatchNorm2d(2)
    second.running_mean = first.running_mean
    net = nn.Sequential(first, second).astype(np.float64)
    assert net[0].running_mean is net[1].running_mean
    assert net[0].running_mean.dtype == np.float64


def object_array(item):
    array = np.empty(1, object)
    array[0] = item
    return array


HOLDERS = {
    "set": lambda item: {item},
    "frozenset": lambda item: frozenset([item]),
    "dict_values": lambda item: {"a": item}.values(),
    "dict_items": lambda item: {"a": item}.items(),
    "dict_keys": lambda item: {item: 1}.keys(),
    "UserList": lambda item: collections.UserList([item]),
    "UserDict": lambda item: collections.UserDict(a=item),
    "ChainMap": lambda item: collections.ChainMap({"a": item}),
    "mappingproxy": lambda item: types.MappingProxyType({"a": item}),
    "ndarray": object_array,
}


@pytest.mark.parametrize("kind", HOLDERS)
@pytest.mark.parametrize("item", [Parameter([1.0]), nn.Identity()], ids=lambda item: type(item).__name__)
def test_what_is_not_opened_is_refused_when_it_holds_what_learns(kind, item):
    hold = HOLDERS[kind]
    cure = "so the modules or parameters in it .* keep them in a list or a dictionary"
    with pytest.raises(TypeError, match=f"Net: held is a {kind}, {cure}"):
        list(Net(hold(item)).parameters())
    with pytest.raises(TypeError, match=rf"Net: held\.a\.0 is a {kind}, {cure}"):
        list(Net({"a": [hold(item)]}).parameters())
    inside = (item,) if kind in ("set", "frozenset", "dict_keys") else [item]
    with pytest.raises(TypeError, match=f"Net: held is a {kind}, {cure}"):
        list(Net(hold(inside)).parameters())
    with pytest.raises(TypeError, match=f"Net: held is a UserList, {cure}"):
        list(Net(collections.UserList([[hold(item)]])).parameters())
    assert not list(Net(hold(7)).parameters())


@pytest.mark.parametrize(
    ("build", "path"),
    [
        (lambda: [Tensor([1.0], requires_grad=True)], r"held\.0"),
        (lambda: {"a": [Tensor([1.0], requires_grad=True)]}, r"held\.a\.0"),
    ],
)
def test_a_leaf_in_the_place_of_a_parameter_in_a_container_is_refused(build, path):
    net = nn.Sequential(Net([Parameter([1.0])]))
    net[0].held = build()
    message = rf"Net: 0\.{path} is a Tensor of shape \(1,\) that requires a .* Parameter\(\.\.\.\).*\.detach\(\)"
    for look in (lambda: list(net.parameters()), net.state_dict, net.zero_grad):
        with pytest.raises(TypeError, match=message):
            look()


def test_constants_and_activations_in_containers_are_configuration():
    activation = Parameter([1.0]) * 2
    assert not list(Net([Tensor([1.0]), activation, activation.detach()]).parameters())


def test_two_values_of_one_name_are_refused():
    net = Net({1: Parameter([1.0]), "1": Parameter([2.0])})
    with pytest.raises(ValueError, match=r"Net: two values would have the name held\.1; rename"):
        net.state_dict()
    net = Net({"a.b": Parameter([1.0]), "a": {"b": Parameter([2.0])}})
    with pytest.raises(ValueError, match=r"two values would have the name held\.a\.b"):
        list(net.parameters())


def test_a_list_that_contains_itself_is_refused():
    items = [Parameter([1.0])]
    items.append({"again": items})
    with pytest.raises(ValueError, match=r"Module: the list held\.1\.again contains itself"):
        list(Net(items).parameters())


# ---- a tree, not a circle -----------------------------------------------------------------------------


def circle():
    net = nn.Sequential(nn.Sequential(nn.Identity(), linear()))
    net[0][0].parents = [net]
    return net


@pytest.mark.parametrize(
    "use",
    [
        lambda net: list(net.named_modules()),
        lambda net: list(net.parameters()),
        lambda net: net.state_dict(),
        lambda net: net.train(False),
        lambda net: net.astype(np.float64),
        lambda net: net.zero_grad(),
    ],
)
def test_a_child_that_holds_its_parent_is_refused_with_the_path(use):
    net = circle()
    message = r"Sequential: 0\.0\.parents\.0 is the net again, which holds it: .* keep weakref\.ref\(parent\)"
    with pytest.raises(ValueError, match=message):
        use(net)
    assert net.training
    assert net[0][1].training
    assert net[0][1].weight.dtype == np.float32


def test_a_module_that_holds_itself_is_refused():
    net = Net(None)
    net.held = net
    with pytest.raises(ValueError, match="Net: held is the net again"):
        net.eval()


def test_a_circle_further_down_is_named_by_both_of_its_ends():
    net = nn.Sequential(circle())
    with pytest.raises(ValueError, match=r"Sequential: 0\.0\.0\.parents\.0 is 0 again"):
        net.eval()


def test_the_text_of_a_circle_ends():
    assert "(parents.0): (its parent)" in repr(circle())


def test_a_shared_module_is_visited_once_and_saved_under_each_of_its_names():
    shared = linear()
    net = nn.Sequential(shared, nn.ReLU(), shared)
    net.again = [shared]
    assert [name for name, _ in net.named_modules()] == ["", "again.0", "1"]
    assert [name for name, _ in net.named_children()] == ["again.0", "1"]
    assert named(net) == ["again.0.weight", "again.0.bias"]
    assert [name.rpartition(".")[0] for name in net.state_dict()] == ["again.0"] * 2 + ["0"] * 2 + ["2"] * 2


def test_buffers_are_listed_once():
    shared = nn.BatchNorm2d(2)
    net = nn.Sequential(shared, shared)
    assert [name for name, _ in net.named_buffers()] == ["0.running_mean", "0.running_var", "0.num_batches_tracked"]


# ---- nothing is lost without a word -------------------------------------------------------------------


@pytest.mark.parametrize(
    "value",
    [
        Tensor([1.0, 2.0]),
        Tensor([1.0], requires_grad=True),
        np.ones(2, np.float32),
        3.0,
        lambda: None,
        [1],
        (),
        {"a": Tensor([1.0])},
    ],
    ids=lambda value: type(value).__name__,
)
def test_only_what_can_be_listed_takes_the_place_of_a_parameter(value):
    layer = linear()
    weight = layer.weight
    with pytest.raises(TypeError, match=r"Linear: weight is a Parameter, and .* in its place would not be learned; "
                                        r"write self\.weight = Parameter\(\.\.\.\)"):  # fmt: skip
        layer.weight = value
    assert layer.weight is weight
    del layer.weight
    layer.weight = value  # what is deleted first is meant


@pytest.mark.parametrize("value", [None, Parameter([1.0]), nn.Identity(), [Parameter([1.0])]])
def test_a_parameter_module_list_or_none_takes_the_place_of_a_parameter(value):
    layer = linear()
    layer.weight = value
    assert layer.weight is value


def test_other_attributes_may_change_their_kind():
    net = Net(nn.Identity())
    for value in (3, Tensor([1.0]), np.ones(2), None, Parameter([1.0])):
        net.held = value
    assert named(net) == ["held"]


@pytest.mark.parametrize("value", [Parameter([1.0]), nn.Identity(), [nn.Identity()]])
def test_parameters_and_modules_of_a_class_are_refused(value):
    with pytest.raises(TypeError, match=r"Layer: held.* of the class, .* set self\.held in __init__"):
        type("Layer", (nn.Module,), {"held": value})


# ---- nn's own containers ------------------------------------------------------------------------------


def test_own_containers_give_the_names_of_plain_ones():
    plain = Net({"blocks": [linear(), linear()], "heads": {"a": linear()}, "scales": [Parameter([1.0])]})
    own = Net({
        "blocks": nn.ModuleList([linear(), linear()]),
        "heads": nn.ModuleDict({"a": linear()}),
        "scales": nn.ParameterList([Parameter([1.0])]),
    })  # fmt: skip
    assert set(own.state_dict()) == set(plain.state_dict())
    assert len(own.state_dict()) == 7


@pytest.mark.parametrize("kind", [list, nn.ModuleList, lambda items: nn.Sequential(*items)])
def test_lists_of_modules_behave_like_lists(kind):
    a, b, c, d = (nn.Identity() for _ in range(4))
    items = kind([a, b])
    items.append(c)
    items.insert(0, d)
    assert list(items) == [d, a, b, c]
    assert len(items) == 4
    assert items[-1] is c
    assert list(items[1:]) == [a, b, c]
    assert type(items[1:]) is type(items)
    assert items.pop() is c
    items[0] = c
    items[1:] = [d]
    del items[0]
    items += [b]
    items.extend([a])
    assert list(items) == [d, b, a]
    assert items.index(b) == 1
    assert b in items
    assert c not in items
    with pytest.raises(IndexError):
        items[7]
    with pytest.raises(ValueError, match="is"):
        items.index(c)
    items.remove(b)
    assert list(items) == [d, a]


@pytest.mark.parametrize("build", [nn.Sequential, lambda item: nn.ModuleDict({"0": item})])
def test_items_are_reached_and_replaced_along_a_path(build):
    first, second = nn.Identity(), nn.ReLU()
    net, name = build(first), "0"
    assert getattr(net, name) is first
    setattr(net, name, second)
    assert [module for _, module in net.named_children()] == [second]
    assert len(net) == 1
    with pytest.raises(TypeError, match="item 0 must be a Module, got int"):
        setattr(net, name, 3)
    assert not hasattr(net, "1")
    assert not hasattr(nn.Sequential.__new__(nn.Sequential), "anything")


def test_a_list_loses_items_and_their_names():
    net = nn.Sequential(nn.Identity(), linear())
    del net[0]
    assert named(net) == ["0.weight", "0.bias"]
    both = net + nn.Sequential(linear())
    assert isinstance(both, nn.Sequential)
    assert named(both) == ["0.weight", "0.bias", "1.weight", "1.bias"]


def test_a_slice_is_a_backbone_of_the_same_modules():
    net = nn.Sequential(linear(4, 3), nn.ReLU(), linear(3, 2)).eval()
    backbone = net[:-1]
    assert isinstance(backbone, nn.Sequential)
    assert backbone[0] is net[0]
    assert not backbone.training
    x = Tensor(np.ones((1, 4), np.float32))
    np.testing.assert_array_equal(net[-1](backbone(x)).data, net(x).data)


def test_module_list_and_dictionary_in_use():
    class Branches(nn.Module):
        def __init__(self):
            self.blocks = nn.ModuleList(linear() for _ in range(2))
            self.heads = nn.ModuleDict({"a": linear(2, 1), "b": linear(2, 3)})

        def forward(self, x, head):
            for block in self.blocks:
                x = block(x)
            return self.heads[head](x)

    net = Branches()
    assert net(Tensor(np.ones((5, 2), np.float32)), "b").shape == (5, 3)
    assert named(net)[:2] == ["blocks.0.weight", "blocks.0.bias"]
    assert named(net)[4:6] == ["heads.a.weight", "heads.a.bias"]


def test_a_module_dictionary_behaves_like_one():
    a, b, c = (nn.Identity() for _ in range(3))
    heads = nn.ModuleDict({"a": a})
    heads["b"] = b
    heads.update({"c": c})
    assert list(heads) == list(heads.keys()) == ["a", "b", "c"]
    assert list(heads.values()) == [a, b, c]
    assert heads.pop("b") is b
    assert "b" not in heads
    assert dict(heads.items()) == {"a": a, "c": c}
    assert heads == heads
    assert heads != nn.ModuleDict({"a": a, "c": c})
    assert len({heads, heads}) == 1
    assert [name for name, _ in heads.named_children()] == ["a", "c"]


def test_parameters_in_a_list():
    scales = nn.ParameterList(Parameter([float(i)]) for i in range(3))
    assert named(scales) == ["0", "1", "2"]
    scales.append(Parameter([[1.0, 2.0]]))
    assert scales[3] in scales
    assert Parameter([[1.0, 2.0]]) not in scales
    assert repr(scales) == "ParameterList((1,), (1,), (1,), (1, 2))"
    assert isinstance(scales[:2], nn.ParameterList)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: nn.ModuleList([nn.ReLU(), Parameter([1.0])]), "ModuleList: item 1 must be a Module, got Parameter"),
        (lambda: nn.ModuleList([[nn.ReLU()]]), r"ModuleList: item 0 must be a Module, got list; unpack it"),
        (
            lambda: nn.Sequential([nn.ReLU()]),
            r"Sequential: item 0 must be a Module, got list; unpack it: Sequential\(\*items\)",
        ),
        (lambda: nn.ParameterList([Tensor([1.0])]), "ParameterList: item 0 must be a Parameter, got Tensor"),
        (lambda: nn.ModuleList().append(np.ones(2)), "ModuleList: item 0 must be a Module, got ndarray"),
        (lambda: nn.ModuleDict({"a": 3}), "ModuleDict: item a must be a Module, got int"),
        (lambda: nn.ModuleDict({1: nn.ReLU()}), "ModuleDict: a name must be a string, got 1"),
        (lambda: nn.ModuleList()(3), "ModuleList only holds its items, it has no forward pass; call them one by one"),
        (lambda: nn.ModuleDict()(3), "ModuleDict only holds its items"),
    ],
)
def test_what_does_not_belong_in_a_container_is_refused(build, message):
    with pytest.raises(TypeError, match=message):
        build()


@pytest.mark.parametrize("name", ["", "a.b"])
def test_a_name_that_a_path_could_not_hold_is_refused(name):
    with pytest.raises(ValueError, match="ModuleDict: a name must not be empty or have a dot"):
        nn.ModuleDict({name: nn.ReLU()})


def test_a_list_that_refuses_one_item_takes_none():
    blocks = nn.ModuleList()
    with pytest.raises(TypeError, match="item 1"):
        blocks.extend([nn.ReLU(), None])
    assert len(blocks) == 0


# ---- copies -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda net: pickle.loads(pickle.dumps(net))], ids=["copy", "pickle"])
def test_a_copy_has_parameters_state_modes_and_generators_of_its_own(copied):
    rng = np.random.default_rng(3)
    shared = linear(6, 6)
    net = nn.Sequential(shared, nn.Dropout(0.5, rng=rng), nn.Dropout(0.5, rng=rng), shared, nn.BatchNorm1d(6))
    net.more = nn.ModuleDict({"list": nn.ModuleList([linear()]), "scales": Net({"a": nn.ParameterList([shared.bias])})})
    net[4].eval()
    other = copied(net)
    assert list(other.state_dict()) == list(net.state_dict())
    assert [module.training for module in other.modules()] == [module.training for module in net.modules()]
    assert other[0] is other[3]
    assert other.more["scales"].held["a"][0] is other[0].bias
    assert not {id(p) for p in other.parameters()} & {id(p) for p in net.parameters()}
    x = Tensor(np.ones((4, 6), np.float32))
    np.testing.assert_array_equal(other(x).data, net(x).data)  # the generators are equal, and not one
    np.testing.assert_array_equal(other(x).data, net(x).data)


def test_a_copied_pair_of_net_and_optimizer_goes_on_as_the_first():
    net = linear()
    sgd = optim.SGD(net.parameters(), lr=0.1, momentum=0.9)

    def step(net, sgd):
        sgd.zero_grad()
        (net(Tensor(np.ones((1, 2), np.float32))) * Tensor(np.array([[1.0, -2.0]], np.float32))).sum().backward()
        sgd.step()

    step(net, sgd)
    other, other_sgd = copy.deepcopy((net, sgd))
    before = net.weight.data.copy()
    step(other, other_sgd)
    np.testing.assert_array_equal(net.weight.data, before)
    step(net, sgd)
    np.testing.assert_array_equal(net.weight.data, other.weight.data)


@pytest.mark.witness
def test_the_names_are_torch_s():
    torch = pytest.importorskip("torch")
    tnn = torch.nn

    def build(nn, linear, parameter):
        net = nn.Module()
        net.blocks = nn.ModuleList([linear(), nn.Sequential(linear(), nn.ReLU(), linear())])
        net.heads = nn.ModuleDict({"a": linear(), "b": nn.ModuleList([linear()])})
        net.norm = nn.BatchNorm2d(2, affine=False)
        net.scales = nn.ParameterList([parameter(), parameter()])
        net.blocks.append(net.heads["a"])
        return net

    ours = build(nn, linear, lambda: Parameter([1.0]))
    theirs = build(tnn, lambda: tnn.Linear(2, 2), lambda: tnn.Parameter(torch.ones(1)))
    assert list(ours.state_dict()) == list(theirs.state_dict())
    assert named(ours) == [name for name, _ in theirs.named_parameters()]
    assert [name for name, _ in ours.named_modules()] == [name for name, _ in theirs.named_modules()]


@pytest.mark.parametrize(
    ("act", "error", "message"),
    [
        (lambda: nn.ModuleList(nn.ReLU()), TypeError, r"ModuleList: expected a list of Modules, got a ReLU; write Mod"),
        (lambda: nn.ParameterList(3), TypeError, r"ParameterList: expected a list of Parameters, got a int; write"),
        (lambda: nn.ModuleList([nn.ReLU()])[5], IndexError, "ModuleList: there is no item 5; it has 1 item$"),
        (lambda: nn.Sequential()[0], IndexError, "Sequential: there is no item 0; it has 0 items"),
        (
            lambda: nn.ModuleList([nn.ReLU()])["a"],
            TypeError,
            "ModuleList: a position is an integer or a slice, got 'a'",
        ),
    ],
)
def test_what_is_no_list_and_what_is_no_position(act, error, message):
    with pytest.raises(error, match=message):
        act()
