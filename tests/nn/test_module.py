"""Module: the tree, modes, conversion, state_dict and load_state_dict, repr."""

from __future__ import annotations

import numpy as np
import pytest

from minires import Parameter, Tensor, nn


class Leaf(nn.Module):
    """A parameter, state, and configuration of every kind."""

    def __init__(self, size=2):
        self.size = size
        self.weight = Parameter(np.arange(float(size), dtype=np.float32))
        self.mean = np.full(size, 5, np.float32)
        self.count = np.zeros((), np.int64)
        self.bias = None
        self.name = "leaf"

    def forward(self, x):
        return x * self.weight


class Tree(nn.Module):
    """Children as an attribute, in a list, in a tuple; parameters of its own before and after."""

    def __init__(self):
        self.first = Parameter([1.0])
        self.trunk = Leaf()
        self.branches = [Leaf(1), Leaf(3)]
        self.pair = (Leaf(1), "not a module")
        self.last = Parameter([2.0])

    def forward(self, x):
        return self.trunk(x)


NAMES = [
    "first",
    "last",
    "trunk.weight",
    "branches.0.weight",
    "branches.1.weight",
    "pair.0.weight",
]


# ---- the tree ------------------------------------------------------------------------------------


def test_what_an_attribute_is_follows_from_its_type():
    tree = Tree()
    assert [name for name, _ in tree.named_children()] == ["trunk", "branches.0", "branches.1", "pair.0"]
    assert [name for name, _ in tree.named_modules()] == ["", "trunk", "branches.0", "branches.1", "pair.0"]
    assert [name for name, _ in tree.named_parameters()] == NAMES
    assert dict(tree.named_parameters())["branches.1.weight"] is tree.branches[1].weight
    assert [name for name, _ in tree.trunk.named_buffers()] == ["mean", "count"]
    assert list(tree.parameters()) == [parameter for _, parameter in tree.named_parameters()]
    assert list(tree.modules()) == [module for _, module in tree.named_modules()]


def test_no_initialisation_of_the_base_class_is_needed_and_attributes_can_be_replaced():
    tree = Tree()
    tree.trunk = nn.Identity()
    tree.first = None
    assert [name for name, _ in tree.named_parameters()] == ["last", *NAMES[3:]]


def test_a_parameter_in_two_places_is_listed_once():
    tree = Tree()
    tree.branches[0].weight = tree.pair[0].weight
    assert len(list(tree.parameters())) == len(NAMES) - 1


def test_calling_a_module_calls_forward():
    x = Tensor([1.0, 2.0])
    assert Tree()(x).data.tolist() == [0.0, 2.0]


def test_a_module_without_a_forward_says_so():
    class Misspelt(nn.Module):
        def foward(self, x):
            return x

    with pytest.raises(TypeError, match=r"Misspelt can't be called: it has no forward; write def forward\(self, x\)"):
        Misspelt()(1)


# ---- modes ---------------------------------------------------------------------------------------


def test_train_and_eval_reach_the_whole_tree():
    tree = Tree()
    assert all(module.training for module in tree.modules())
    assert tree.eval() is tree
    assert not any(module.training for module in tree.modules())
    assert tree.train() is tree
    assert all(module.training for module in tree.modules())
    assert Leaf().training, "another instance is not affected"


def test_train_goes_through_the_own_train_of_each_child():
    class Frozen(Leaf):
        def train(self, training=True):
            return super().train(False)

    net = nn.Sequential(nn.Sequential(Frozen()), Leaf())
    net.train()
    assert [module.training for module in net.modules()] == [True, True, False, True]


@pytest.mark.parametrize("mode", ["no", 1, None])
def test_a_mode_is_true_or_false(mode):
    with pytest.raises(TypeError, match=r"train: expected True or False, got .*; train\(False\) is evaluation mode"):
        Tree().train(mode)


@pytest.mark.parametrize("fails", [False, True])
def test_keep_modes_brings_back_the_own_mode_of_each_module(fails):
    tree = Tree()
    tree.trunk.eval()
    tree.branches[1].eval()
    before = [module.training for module in tree.modules()]
    try:
        with tree.keep_modes() as kept:
            assert kept is tree
            tree.eval()
            assert not any(module.training for module in tree.modules())
            if fails:
                raise KeyboardInterrupt
    except KeyboardInterrupt:
        pass
    assert [module.training for module in tree.modules()] == before == [True, False, True, False, True]


def test_zero_grad_forgets_all_gradients():
    tree = Tree()
    for parameter in tree.parameters():
        parameter.grad = np.ones(parameter.shape, np.float32)
    tree.zero_grad()
    assert all(parameter.grad is None for parameter in tree.parameters())


def test_astype_converts_parameters_and_floating_point_state_and_nothing_else():
    tree = Tree()
    parameter = tree.trunk.weight
    assert tree.astype(np.float64) is tree
    assert tree.trunk.weight is parameter
    assert parameter.dtype == tree.trunk.mean.dtype == np.float64
    assert tree.trunk.count.dtype == np.int64


@pytest.mark.parametrize("dtype", [np.int32, bool, np.float16, "longdouble", "text"])
def test_weights_do_not_become_integers_or_what_no_kernel_computes_with(dtype):
    tree = Tree()
    with pytest.raises(TypeError, match="astype: "):
        tree.astype(dtype)
    assert tree.trunk.weight.dtype == np.float32


def test_to_keeps_arrays_on_the_cpu_and_refuses_unknown_devices():
    tree = Tree()
    assert tree.to("cpu") is tree
    with pytest.raises(ValueError, match="to: device must be 'cpu' or 'cuda', got 'gpu'"):
        tree.to("gpu")


# ---- state ---------------------------------------------------------------------------------------


def test_state_dict_holds_copies_of_parameters_and_state():
    tree = Tree()
    state = tree.state_dict()
    assert set(state) == {*NAMES, *(name for name, _ in tree.named_buffers())}
    for array in state.values():
        array[...] = 99
    assert not any((array == 99).any() for array in tree.state_dict().values())


def test_load_state_dict_writes_in_place():
    tree, other = Tree(), Tree()
    for array in (state := tree.state_dict()).values():
        array[...] = 7
    weight, mean = other.trunk.weight.data, other.trunk.mean
    other.load_state_dict(state)
    assert other.trunk.weight.data is weight
    assert other.trunk.mean is mean
    assert all((array == 7).all() for array in other.state_dict().values())


def test_load_state_dict_casts_to_the_own_type():
    leaf = Leaf()
    leaf.load_state_dict({"weight": [3, 4], "mean": np.array([1.5, 2.5]), "count": 6})
    assert leaf.weight.dtype == leaf.mean.dtype == np.float32
    assert leaf.weight.data.tolist() == [3, 4]
    assert leaf.count == 6
    assert leaf.count.dtype == np.int64


def test_a_tied_parameter_makes_the_round_trip():
    tree = Tree()
    tree.branches[0].weight = tree.pair[0].weight
    other = Tree()
    other.branches[0].weight = other.pair[0].weight
    state = tree.state_dict()
    state["pair.0.weight"][...] = state["branches.0.weight"][...] = 4
    other.load_state_dict(state)
    assert other.pair[0].weight.data.tolist() == [4]


def test_a_module_in_two_places_makes_the_round_trip():
    shared = Leaf()
    net = nn.Sequential(shared, nn.ReLU(), shared)
    net.load_state_dict(net.state_dict())


def unchanged_after_failure(module, state, message, **options):
    before = module.state_dict()
    with pytest.raises(ValueError, match=message):
        module.load_state_dict(state, **options)
    for name, array in module.state_dict().items():
        np.testing.assert_array_equal(array, before[name])


def ones_like(module):
    return {name: np.ones_like(array) for name, array in module.state_dict().items()}


def test_missing_names_are_all_listed_and_nothing_is_written():
    tree = Tree()
    state = ones_like(tree)
    del state["trunk.mean"], state["last"]
    unchanged_after_failure(tree, state, r"load_state_dict: Tree doesn't fit; missing: last, trunk.mean")


def test_an_unexpected_name_is_listed_with_the_nearest_missing_one_and_nothing_is_written():
    tree = Tree()
    state = ones_like(tree)
    state["trunk.wieght"] = state.pop("trunk.weight")
    message = r"missing: trunk.weight; unexpected: trunk.wieght \(did you mean trunk.weight\?\)"
    unchanged_after_failure(tree, state, message)


def test_arrays_that_cannot_be_written_are_all_listed_and_nothing_is_written():
    tree = Tree()
    tree.trunk.mean.flags.writeable = False
    message = r"can't be written: trunk.mean is read-only, pair.0.weight .* share their places .*; give .*copy\(\)"
    tree.pair[0].weight.data = np.lib.stride_tricks.as_strided(np.zeros(1), (2,), (0,))
    state = ones_like(tree)
    unchanged_after_failure(tree, state, message)


def test_a_state_of_the_modules_own_arrays_is_read_before_any_is_written():
    leaf = Leaf()
    leaf.weight.data[...], leaf.mean[...] = 3, 5
    leaf.load_state_dict({"weight": leaf.mean, "mean": leaf.weight.data, "count": leaf.count})
    assert leaf.weight.data.tolist() == [5] * leaf.weight.size
    assert leaf.mean.tolist() == [3] * leaf.mean.size


def test_a_value_that_cannot_be_converted_is_found_before_any_is_written():
    leaf = Leaf()
    before = leaf.state_dict()
    with np.errstate(all="raise"), pytest.raises(FloatingPointError):
        leaf.load_state_dict({"weight": np.ones(2), "mean": np.full(2, 1e300), "count": 1})
    for name, array in leaf.state_dict().items():
        np.testing.assert_array_equal(array, before[name])


def test_wrong_shapes_are_all_listed_and_nothing_is_written():
    tree = Tree()
    state = ones_like(tree)
    state["last"], state["trunk.count"] = np.ones((3, 3)), np.ones(1)
    message = r"wrong shape: last: \(3, 3\) instead of \(1,\), trunk.count: \(1,\) instead of \(\)"
    unchanged_after_failure(tree, state, message)
    unchanged_after_failure(tree, state, message, strict=False)


def test_a_value_that_is_no_numbers_is_refused_and_nothing_is_written():
    tree = Tree()
    state = ones_like(tree)
    state["trunk.mean"] = ["a", "b"]
    unchanged_after_failure(tree, state, r"not numbers: trunk\.mean \(list\)")


def test_fractions_do_not_become_integers_and_nothing_is_written():
    tree = Tree()
    for count in (2.5, np.nan, np.inf):
        state = {**ones_like(tree), "trunk.count": np.array(count)}
        unchanged_after_failure(tree, state, r"not whole numbers: trunk\.count: float64 into int64")
    tree.load_state_dict({**tree.state_dict(), "trunk.count": np.array(3.0), "last": np.ones(1, np.float64)})
    assert tree.trunk.count == 3
    assert tree.last.dtype == np.float32


@pytest.mark.parametrize("value", [[[1], [2, 3]], Tensor, object(), np.array(["a"]), None, 1j])
def test_whatever_is_no_array_of_numbers_is_refused(value):
    tree = Tree()
    unchanged_after_failure(tree, {**ones_like(tree), "last": value}, r"not numbers: last \(.*\)")


def test_tensors_are_taken_as_their_arrays():
    tree, other = Tree(), Tree()
    tree.last.data[...] = 9
    other.load_state_dict(dict(tree.named_parameters()), strict=False)
    assert other.last.data.tolist() == [9]


@pytest.mark.parametrize("state", ["best.safetensors", None, [1, 2], Tree()], ids=str)
def test_a_state_is_a_dictionary(state):
    with pytest.raises(TypeError, match=r"load_state_dict: expected a dictionary as state_dict gives it, got "):
        Tree().load_state_dict(state)


def test_names_that_are_no_strings_are_listed_like_others():
    tree = Tree()
    unchanged_after_failure(tree, {**ones_like(tree), 3: np.ones(1)}, r"unexpected: 3")


def test_all_problems_are_told_at_once():
    tree = Tree()
    state = ones_like(tree)
    state["last"] = np.ones(9)
    del state["first"]
    state["frist"] = np.ones(1)
    message = r"missing: first; unexpected: frist \(did you mean first\?\); wrong shape: last: \(9,\) instead of \(1,\)"
    unchanged_after_failure(tree, state, message)


def test_not_strict_takes_what_there_is():
    tree = Tree()
    tree.load_state_dict({"last": [8.0], "unknown": [1.0]}, strict=False)
    assert tree.last.data.tolist() == [8.0]
    assert tree.first.data.tolist() == [1.0]


# ---- text ----------------------------------------------------------------------------------------


def test_repr_shows_the_tree_and_the_settings():
    rng = np.random.default_rng(0)
    net = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1, bias=False, rng=rng), nn.Sequential(nn.ReLU()), nn.Dropout(0.5, rng=rng)
    )
    assert repr(net) == (
        "Sequential(\n"
        "  (0): Conv2d(3, 8, kernel_size=(3, 3), stride=(1, 1), padding=(1, 1), bias=False)\n"
        "  (1): Sequential(\n"
        "    (0): ReLU()\n"
        "  )\n"
        "  (2): Dropout(p=0.5)\n"
        ")"
    )


def test_repr_says_equal_neighbours_once():
    tree = Tree()
    tree.branches = [Leaf(1), Leaf(1), Leaf(1), Leaf(2)]
    assert repr(tree) == (
        "Tree(\n"
        "  (trunk): Leaf(size=2, name='leaf')\n"
        "  (branches.0-2): 3 x Leaf(size=1, name='leaf')\n"
        "  (branches.3): Leaf(size=2, name='leaf')\n"
        "  (pair.0): Leaf(size=1, name='leaf')\n"
        ")"
    )


def test_repr_keeps_the_lists_of_a_dictionary_apart():
    tree = Tree()
    tree.trunk, tree.branches, tree.pair = None, {"a": [Leaf(1), Leaf(1)], "b": [Leaf(1)], "c": Leaf(1)}, None
    lines = repr(tree).splitlines()[1:-1]
    assert [line.split(":")[0] for line in lines] == ["  (branches.a.0-1)", "  (branches.b.0)", "  (branches.c)"]


def test_repr_of_two_equal_attributes_has_both_names():
    tree = Tree()
    tree.branches, tree.pair, tree.twin = [], None, tree.trunk
    assert repr(tree) == "Tree(\n  (trunk): Leaf(size=2, name='leaf')\n  (twin): Leaf(size=2, name='leaf')\n)"


def test_the_html_is_a_tree_that_opens_with_the_parameters_of_each_part():
    tree = Tree()
    tree.trunk.name = "<b>"
    page = tree._repr_html_()
    assert page.count("<details") == page.count("</details>") == 1
    assert "Tree() <small>9 parameters</small>" in page
    assert "(trunk): Leaf(size=2, name=&#x27;&lt;b&gt;&#x27;) <small>2 parameters</small>" in page
    net = nn.Sequential(nn.Sequential(nn.ReLU(), nn.ReLU()))
    assert "(0-1): 2 x ReLU()" in net._repr_html_()


@pytest.mark.parametrize(
    ("layer", "text"),
    [
        (lambda r: nn.Conv2d(4, 8, (3, 1), 2, "valid", 2, 2, rng=r),
         "Conv2d(4, 8, kernel_size=(3, 1), stride=(2, 2), padding='valid', dilation=(2, 2), groups=2)"),
        (lambda r: nn.Linear(2, 3, rng=r), "Linear(in_features=2, out_features=3)"),
        (lambda r: nn.Linear(2, 3, False, rng=r), "Linear(in_features=2, out_features=3, bias=False)"),
        (lambda r: nn.BatchNorm2d(4), "BatchNorm2d(4)"),
        (lambda r: nn.BatchNorm1d(4, 1e-3, None, False, False),
         "BatchNorm1d(4, eps=0.001, momentum=None, affine=False, track_running_stats=False)"),
        (lambda r: nn.Flatten(), "Flatten(start_dim=1, end_dim=-1)"),
    ],
)  # fmt: skip
def test_repr_of_a_layer_is_one_line(layer, text):
    assert repr(layer(np.random.default_rng(0))) == text


def test_repr_does_not_change_with_the_mode():
    leaf = Leaf()
    assert repr(leaf) == repr(leaf.eval()) == "Leaf(size=2, name='leaf')"
