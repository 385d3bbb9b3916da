"""The ledger: junctions found by the graph alone; parts that add up; the parts against nets with one way cut."""

from __future__ import annotations

import numpy as np
import pytest

from minires import Tensor, functional, models, nn, record, using
from minires.functional import tanh
from minires.inspection import Contribution, ledger


@pytest.fixture(autouse=True)
def reference_kernels():
    with using("reference"):
        yield


def leaf(*shape, seed=0, dtype=np.float64):
    return Tensor(np.random.default_rng(seed).standard_normal(shape).astype(dtype), requires_grad=True)


def ledger_of(function, x, upstream_seed=9):
    """The ledger of ``function(x)`` under a random upstream gradient, and the tape."""
    with record() as tape:
        y = function(x)
        y.backward(np.random.default_rng(upstream_seed).standard_normal(y.shape).astype(y.dtype))
    return ledger(tape), tape


def gradient_of(function, x, upstream_seed=9):
    """dE/dx of the same, without any tape."""
    alone = Tensor(x.data, requires_grad=True)
    y = function(alone)
    y.backward(np.random.default_rng(upstream_seed).standard_normal(y.shape).astype(y.dtype))
    return alone.grad


def cosine(a, b):
    return (a * b).sum() / np.sqrt((a * a).sum() * (b * b).sum())


def require_balance(row):
    """What holds for every row: the parts add up to the whole, the shares to 1."""
    np.testing.assert_allclose(sum(part.grad for part in row.parts), row.sum, atol=1e-14 * row.sum_norm)
    np.testing.assert_allclose(sum(part.share for part in row.parts), 1, rtol=1e-12)
    for part in row.parts:
        np.testing.assert_allclose(part.norm, np.sqrt((part.grad**2).sum()))
        np.testing.assert_allclose(part.share, (part.grad * row.sum).sum() / (row.sum**2).sum())
        np.testing.assert_array_equal(part.grad, sum(each.array for each in part.contributions))


# ---- the numbers ---------------------------------------------------------------------------------


def test_a_junction_worked_out_by_hand():
    x = Tensor(np.array([1.0, 2.0]), requires_grad=True)
    with record() as tape:
        y = x + x * Tensor(np.array([2.0, -3.0]))
        y.backward(np.array([3.0, 4.0]))  # the shortcut brings (3, 4), the branch (6, -12): together (9, -8)
    (row,) = ledger(tape)
    assert (row.fork.name, row.meeting.name, row.block, row.kind) == ("input", "add", "add", "identity")
    np.testing.assert_array_equal(row.shortcut.grad, [3, 4])
    np.testing.assert_array_equal(row.branches[0].grad, [6, -12])
    np.testing.assert_array_equal(row.sum, [9, -8])
    assert row.shortcut.norm == 5
    assert row.branch_norm == pytest.approx(np.sqrt(180))
    assert row.sum_norm == pytest.approx(np.sqrt(145))
    assert row.cosine == pytest.approx((18 - 48) / (5 * np.sqrt(180)))
    assert row.shortcut.share == pytest.approx((27 - 32) / 145)  # it points a little against the sum: below 0
    assert row.branch_share == pytest.approx((54 + 96) / 145)
    assert [node.name for node in row.branches[0].nodes] == ["mul"]


def test_the_table_worked_out_by_hand():
    x = Tensor(np.array([1.0, 2.0]), requires_grad=True)
    with record() as tape:
        (x + x * Tensor(np.array([1.0, 3.0]))).backward(np.array([3.0, 4.0]))
    assert str(ledger(tape)).splitlines() == [
        "block  shortcut  shape  shortcut ‖g‖  branch ‖g‖  cos(shortcut, branch)   share shortcut | branch  sum ‖g‖",
        "add    identity      2             5       12.37                 +0.922  ███░░░░░░░░░  28% |  72%    17.09",
    ]


# ---- the parts, against nets in which one way is cut ----------------------------------------------


def detached(tensor):
    return tensor.detach()


@pytest.mark.parametrize(
    ("option", "stride", "kind"),
    [("A", 1, "identity"), ("A", 2, "fixed"), ("B", 1, "identity"), ("B", 2, "projection"), ("C", 1, "projection")],
)
def test_shortcut_and_branch_are_what_returns_when_the_other_way_is_cut(option, stride, kind):
    rng = np.random.default_rng(4)
    block = models.BasicBlock(3, 3 * stride, stride, shortcut=option, rng=rng, fan="fan_in").astype(np.float64)
    x = leaf(2, 3, 5, 6)

    def forward(x, cut_shortcut=False, cut_branch=False):
        inner = block.bn1(block.conv1(x), relu=True)
        normalized, shortcut = block.bn2(block.conv2(inner)), block.downsample(x)
        normalized = detached(normalized) if cut_branch else normalized
        return functional.relu(normalized + (detached(shortcut) if cut_shortcut else shortcut))

    book, tape = ledger_of(block, x)
    (row,) = book
    assert row.kind == kind
    assert row.fork is tape[x]
    assert row.meeting.op == "add"
    require_balance(row)
    np.testing.assert_allclose(row.shortcut.grad, gradient_of(lambda x: forward(x, cut_branch=True), x), atol=1e-14)
    np.testing.assert_allclose(
        row.branches[0].grad, gradient_of(lambda x: forward(x, cut_shortcut=True), x), atol=1e-14
    )
    np.testing.assert_allclose(row.sum, gradient_of(block, x), atol=1e-14)
    assert row.cosine == pytest.approx(cosine(row.shortcut.grad, row.branches[0].grad))


def test_three_ways_are_one_junction_of_three_parts():
    x, first, second = leaf(4, 3), leaf(3, 3, seed=1), leaf(3, 3, seed=2)
    book, _ = ledger_of(lambda x: x + tanh(x @ first) + (x @ second).exp(), x)
    (row,) = book
    require_balance(row)
    assert [[node.op for node in part.nodes] for part in row.parts] == [[], ["mat_mul", "tanh"], ["mat_mul", "exp"]]
    cut = x.detach()
    np.testing.assert_allclose(row.parts[1].grad, gradient_of(lambda x: cut + tanh(x @ first), x))
    np.testing.assert_allclose(row.parts[2].grad, gradient_of(lambda x: cut + (x @ second).exp(), x))
    np.testing.assert_allclose(row.branch_norm, np.linalg.norm(row.parts[1].grad + row.parts[2].grad))
    assert row.cosine == pytest.approx(cosine(row.parts[0].grad, row.parts[1].grad + row.parts[2].grad))
    assert row.branch_share == pytest.approx(row.parts[1].share + row.parts[2].share)
    lines = str(book).splitlines()
    assert len(lines) == 4
    assert lines[2].startswith("  branch 1: mat_mul ")
    assert lines[3].startswith("  branch 2: mat_mul#2 ")
    assert f"{row.parts[2].norm:.4g}" in lines[3]


def test_the_order_of_the_additions_does_not_matter_for_three_ways():
    x = leaf(4, 3)
    ways = [lambda x: x * 1.5, lambda x: tanh(x.exp()), lambda x: tanh(tanh(x)).exp()]
    left, _ = ledger_of(lambda x: (ways[0](x) + ways[1](x)) + ways[2](x), x)
    right, _ = ledger_of(lambda x: ways[0](x) + (ways[1](x) + ways[2](x)), x)
    for one, other in zip(left.rows[0].parts, right.rows[0].parts, strict=True):
        np.testing.assert_allclose(one.grad, other.grad)
    assert len(left) == len(right) == 1


def test_a_block_within_the_branch_of_another_is_a_junction_of_its_own():
    x = leaf(4, 3)

    def inner(x):
        return x + tanh(x)

    book, tape = ledger_of(lambda x: x + tanh(inner(x.exp())), x)
    outside, inside = book
    assert outside.fork is tape[x]
    assert inside.fork is tape["exp"]
    require_balance(outside)
    require_balance(inside)
    assert [node.name for node in outside.branches[0].nodes] == ["exp", "tanh", "add", "tanh#2"]
    np.testing.assert_allclose(inside.sum, tape.gradient("exp").array)


def test_nested_blocks_that_begin_at_the_same_tensor_are_paired_from_the_inside():
    x = leaf(4, 3)

    def inner(x):
        return (x + tanh(x)) * 0.7

    book, tape = ledger_of(lambda x: x + inner(x), x)
    outside, inside = book
    assert outside.fork is inside.fork is tape[x]
    assert [len(row.parts) for row in book] == [2, 2]
    require_balance(outside)
    require_balance(inside)
    np.testing.assert_allclose(outside.sum, tape.gradient(x).array)
    np.testing.assert_allclose(inside.sum, outside.branches[0].grad)
    np.testing.assert_allclose(inside.sum, gradient_of(lambda x: x.detach() + inner(x), x))


def test_a_branch_that_forks_without_an_addition_stays_one_part():
    x = leaf(4, 3)

    def gated(x):
        return tanh(x) * x.exp()

    book, _ = ledger_of(lambda x: x + gated(x), x)
    (row,) = book
    assert len(row.parts) == 2
    assert len(row.branches[0].contributions) == 2
    require_balance(row)
    np.testing.assert_allclose(row.branches[0].grad, gradient_of(lambda x: x.detach() + gated(x), x))


def test_without_an_identity_the_way_with_the_fewest_operations_is_the_shortcut():
    x, weight = leaf(4, 3), leaf(3, 3, seed=1)
    for order in (1, -1):
        book, _ = ledger_of(lambda x, order=order: sum_in_order([tanh(x @ weight), x * 2], order), x)
        (row,) = book
        assert [node.op for node in row.shortcut.nodes] == ["mul"]
        assert [node.op for node in row.branches[0].nodes] == ["mat_mul", "tanh"]
        assert row.kind == "fixed"


def sum_in_order(summands, order):
    first, second = summands[::order]
    return first + second


def test_a_tensor_added_to_itself_is_two_identities():
    (row,) = ledger_of(lambda x: x + x, leaf(3))[0]
    assert [part.nodes for part in row.parts] == [(), ()]
    assert row.cosine == pytest.approx(1)
    assert row.shortcut.share == pytest.approx(0.5)


def test_shares_add_up_to_one_when_the_parts_nearly_cancel():
    (row,) = ledger_of(lambda x: x + x * -0.9, leaf(3))[0]
    assert row.shortcut.share == pytest.approx(10)
    assert row.branch_share == pytest.approx(-9)
    assert row.cosine == pytest.approx(-1)


def test_where_the_parts_cancel_shares_are_undefined_and_not_zero():
    book, _ = ledger_of(lambda x: x + x * -1, leaf(3))
    (row,) = book
    assert row.sum_norm == 0
    assert np.isnan(row.shortcut.share)
    assert np.isnan(row.branch_share)
    assert str(book).splitlines()[1].split() == [
        "add", "identity", "3", *(f"{norm:.4g}" for norm in (row.shortcut.norm, row.branch_norm)), "-1.000", "-", "0"
    ]  # fmt: skip


def test_a_dead_branch_has_norm_zero_and_no_angle():
    (row,) = ledger_of(lambda x: x + x * 0, leaf(3))[0]
    assert row.branch_norm == 0
    assert np.isnan(row.cosine)
    assert row.shortcut.share == 1


# ---- which junctions there are --------------------------------------------------------------------


@pytest.mark.parametrize(
    "function",
    [
        lambda x: tanh(x.exp()),
        lambda x: x * x,
        lambda x: x.exp() * tanh(x),
        lambda x: functional.concatenate([x, tanh(x)], 1),
        lambda x: x.exp() + Tensor(np.ones((4, 3))),
    ],
    ids=["chain", "square", "gate", "concatenation", "constant"],
)
def test_without_an_addition_in_which_ways_meet_there_is_no_junction(function):
    book, _ = ledger_of(function, leaf(4, 3))
    assert book.rows == ()
    assert str(book) == "no skip connections: no tensor's ways meet again in an addition"


def test_a_shared_parameter_is_not_a_fork():
    weight = nn.Linear(3, 3, rng=np.random.default_rng(0)).weight
    book, tape = ledger_of(lambda x: tanh(x @ weight) + x @ weight, leaf(4, 3, dtype=np.float32))
    assert len(tape.contributions(weight)) == 2
    assert [row.fork.name for row in book] == ["input"]


def test_a_use_that_no_gradient_comes_back_from_is_not_a_way():
    x = leaf(4, 3)
    assert ledger_of(lambda x: x + x.detach(), x)[0].rows == ()


@pytest.mark.parametrize(
    ("name", "shortcut", "widths"),
    [
        ("plain8", None, (2, 3, 4)),
        ("resnet14", "A", (2, 3, 4)),
        ("resnet14", "B", (2, 3, 4)),
        ("resnet14", "C", (2, 3, 4)),
        ("preact_resnet14", "A", (2, 3, 4)),
        ("preact_resnet14", "B", (2, 3, 4)),
        ("resnet18", None, (2, 3, 4, 5)),
        ("resnet50", None, (1, 2, 2, 2)),
        ("preact_resnet50", None, (1, 2, 2, 2)),
    ],
)
def test_each_block_of_each_net_has_its_junction_and_nothing_else(name, shortcut, widths):
    net = models.create(name, widths=widths, **({"shortcut": shortcut} if shortcut else {})).astype(np.float64)
    size = 8 if len(widths) == 3 else 40  # an ImageNet net makes it 32 times smaller
    book, tape = ledger_of(net, leaf(2, 3, size, size))
    blocks = [path for path, module in net.named_modules() if hasattr(module, "downsample")]
    assert [row.block for row in book] == blocks[::-1]
    for row in book:
        require_balance(row)
        downsample = dict(net.named_modules())[f"{row.block}.downsample"]
        kinds = {nn.Identity: "identity", nn.Sequential: "projection", models.SubsampleAndPad: "fixed"}
        assert row.kind == kinds[type(downsample)]
        np.testing.assert_allclose(row.sum, tape.gradient(row.fork).array, atol=1e-14 * row.sum_norm)


def test_a_tape_that_began_after_the_forward_pass_has_the_same_junctions():
    net = models.create("resnet14", widths=(2, 3, 4))
    x = leaf(2, 3, 8, 8, dtype=np.float32)
    upstream = np.random.default_rng(9).standard_normal((2, 10)).astype(np.float32)
    net.eval()
    within, _ = ledger_of(net, x)
    y = net(x)
    with record() as tape:
        y.backward(upstream)
    assert [row.meeting.op for row in ledger(tape)] == ["add"] * 6
    for one, other in zip(ledger(tape), within, strict=True):
        np.testing.assert_array_equal(one.sum, other.sum)


def test_fused_ends_of_blocks_are_junctions_too():
    rng = np.random.default_rng(0)
    x, weight, bias = leaf(2, 3, 4, 4), leaf(3, seed=1), leaf(3, seed=2)
    y = tanh(x)
    with using("numba_cpu"):
        z = functional.batch_norm_relu(y.exp(), None, None, weight, bias, y, training=True)
    with record() as tape:
        z.backward(rng.standard_normal(z.shape))
    (row,) = ledger(tape)
    assert (row.fork.name, row.meeting.op, row.kind) == ("tanh", "batch_norm_relu", "identity")
    require_balance(row)


def test_a_thousand_blocks_are_read_in_one_go():
    x = leaf(2)
    book, _ = ledger_of(lambda x: repeatedly(lambda h: h + tanh(h) * 0.001, x, 1000), x)
    assert len(book) == 1000
    assert book.rows[-1].fork.name == "input"


def repeatedly(function, x, times):
    for _ in range(times):
        x = function(x)
    return x


def test_a_junction_across_modules_is_named_by_what_they_share_or_else_by_the_addition():
    class Sum(nn.Module):
        def forward(self, x, y):
            return x + y

    class Net(nn.Module):
        def __init__(self):
            self.left, self.right, self.join = (nn.Sequential(part) for part in (nn.ReLU(), nn.ReLU(), Sum()))

        def forward(self, x):
            return self.join[0](self.left(x), self.right(x))

    class Outer(nn.Module):
        def __init__(self):
            self.body = Net()

        def forward(self, x):
            return self.body(x)

    assert [row.block for row in ledger_of(Net(), leaf(5))[0]] == ["join.0.add"]
    assert [row.block for row in ledger_of(Outer(), leaf(5))[0]] == ["body"]


# ---- He et al. 2016 -------------------------------------------------------------------------------


def test_in_a_pre_activation_stage_the_identity_brings_the_upstream_gradient_unchanged():
    """Eq. 5: dE/dx_l = dE/dx_L (1 + d/dx_l sum F): the first summand, dE/dx_L, reaches every unit as it is."""
    net = models.create("preact_resnet26", widths=(3, 4, 5))
    book, tape = ledger_of(net, leaf(2, 3, 8, 8, dtype=np.float32))
    stage = [row for row in book if row.block.startswith("layer2.") and row.kind == "identity"]
    assert [row.block for row in stage] == ["layer2.3", "layer2.2", "layer2.1"]
    through_all = tape.gradient(stage[0].meeting).array  # dE/dx_L
    for row in stage:
        np.testing.assert_array_equal(row.shortcut.grad, tape.gradient(row.meeting).array)
        assert row.shortcut.nodes == ()
        through_all = through_all + row.branches[0].grad
        np.testing.assert_array_equal(through_all, tape.gradient(row.fork).array)


def test_in_a_block_of_2015_a_relu_stands_between_one_identity_and_the_next():
    net = models.create("resnet26", widths=(3, 4, 5))
    book, tape = ledger_of(net, leaf(2, 3, 8, 8, dtype=np.float32))
    stage = [row for row in book if row.block.startswith("layer2.") and row.kind == "identity"]
    for row in stage:
        np.testing.assert_array_equal(row.shortcut.grad, tape.gradient(row.meeting).array)
        after = tape[row.block]  # the ReLU behind the addition
        np.testing.assert_array_equal(row.shortcut.grad, tape.gradient(after).array * (after.value > 0))
        assert not np.array_equal(row.shortcut.grad, tape.gradient(after).array)


# ---- errors ---------------------------------------------------------------------------------------


def test_a_tape_without_backward_is_refused():
    with record() as tape:
        leaf(2) * 2
    with pytest.raises(RuntimeError, match="the tape holds no backward pass; call loss"):
        ledger(tape)


def test_books_that_do_not_balance_are_refused():
    _, tape = ledger_of(lambda x: x + tanh(x), leaf(3))
    node = tape["input"]
    first, second = tape.contributions(node)
    tape._contributions[node] = [first, Contribution(node, second.consumer, second.slot, second.array * 1.001)]
    with pytest.raises(AssertionError, match="the contributions to input don't add up to its gradient"):
        ledger(tape)
