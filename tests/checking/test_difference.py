"""diff: two runs of one computation, on two tapes, or on a tape and in named tensors: PyTorch's, ours, or arrays."""

import numpy as np
import pytest

import minires
from minires import Tensor, functional, models, using
from minires.checking import diff
from minires.checking.mutants import MUTANTS, planted


def normal(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape)


def recorded(dtype=np.float32, name="resnet8"):
    net = models.create(name, widths=(4, 6, 8), rng=np.random.default_rng(0)).astype(dtype)
    x = Tensor(normal(3, 3, 8, 8).astype(np.float32).astype(dtype))
    with minires.record() as tape:
        functional.cross_entropy(net(x), np.array([1, 2, 3])).backward()
    return tape


def test_two_precisions_and_two_implementations_agree():
    assert diff(recorded(np.float32), recorded(np.float64))
    with using("reference"):
        reference = recorded()
    assert diff(recorded(), reference)


def test_equal_runs_agree_to_nothing():
    difference = diff(recorded(), recorded())
    assert difference
    assert difference.worst == 0.0


def test_the_first_node_of_a_wrong_backward_is_named():
    right = recorded()
    with planted(MUTANTS["global_average_not_divided"]):
        wrong = recorded()
    difference = diff(right, wrong)
    assert not difference
    assert difference.first.phase == "backward"
    assert difference.first.name.startswith("layer3.0")  # what global average pooling hands its gradient to


def test_a_forward_that_differs_is_named_first():
    right = recorded()
    other = recorded()
    node = next(node for node in other.nodes if node.name.startswith("layer2.0.conv1"))
    node.value = node.value * np.float32(1.01)
    difference = diff(right, other)
    assert difference.first.phase == "forward"
    assert difference.first.name == node.name
    assert "the runs part forward" in str(difference)


def test_tapes_of_different_computations_are_not_compared():
    difference = diff(recorded(), recorded(name="plain8"))
    assert not difference
    assert "not the same computation" in str(difference) or "nodes" in str(difference)


def test_a_gradient_that_only_one_run_has_is_a_mismatch():
    def run(requires_grad):
        with minires.record() as tape:
            (Tensor(normal(3), requires_grad) * Tensor(normal(3), requires_grad=True)).sum().backward()
        return tape

    difference = diff(run(True), run(False))
    assert not difference
    assert str(difference) == "diff: the gradient of input: value and no path"


# ---------------------------------------------------------------- tensors by name


def small_run():
    x, weight = (Tensor(normal(4, 3, seed=seed), requires_grad=True) for seed in (1, 2))
    with minires.record() as tape:
        product = (x * weight).retain_grad()
        functional.tanh(product).sum().backward()
    return tape, {"input": x, "input#2": weight, "mul": product}


def test_our_tensors_arrays_and_pairs_are_taken_by_name():
    tape, tensors = small_run()
    assert diff(tape, tensors).compared == 6
    assert diff(tape, {"mul": tensors["mul"].data}).compared == 1
    assert diff(tape, {"mul": (tensors["mul"].data.astype(np.float32), tensors["mul"].grad)}).compared == 2
    assert diff(tape, {"mul": (tensors["mul"].data, None)}).compared == 1


def test_the_first_named_tensor_that_differs_is_found_in_the_tape_s_order():
    tape, tensors = small_run()
    product, x = tensors["mul"], tensors["input"]
    difference = diff(tape, {"mul": product.data * 1.001, "input": x.data * 1.001})
    assert (difference.first.phase, difference.first.name) == ("forward", "input")
    difference = diff(tape, {"input": (x.data, x.grad * 1.001), "mul": (product.data, product.grad * 1.001)})
    assert (difference.first.phase, difference.first.name) == ("backward", "mul")


def test_what_cannot_be_compared_is_said():
    tape, tensors = small_run()
    product = tensors["mul"]
    assert "not the same computation: mul is (4, 3) and (3,)" in str(diff(tape, {"mul": product.data[0]}))
    wrong = diff(tape, {"mul": (product.data, product.grad[0])})
    assert "not the same computation: the gradient of mul is (4, 3) and (3,)" in str(wrong)
    with minires.record() as forward_only:
        y = Tensor(normal(3), requires_grad=True).exp()
    assert "the gradient of exp: not computed, but one was given" in str(diff(forward_only, {"exp": (y.data, y.data)}))
    with pytest.raises(KeyError, match="the nearest: mul"):
        diff(tape, {"mull": product})
    with pytest.raises(ValueError, match="nothing to compare"):
        diff(tape, {})


# ---------------------------------------------------------------- PyTorch


def torch_block(torch, block, x, upstream, *, padding=1, dilation=1, eps=1e-5, gradient_of_shortcut=1.0):
    """PyTorch's run of a residual block with ``block``'s weights, perhaps with a mistake: its tensors by our names."""
    run = {name: torch.from_numpy(p.data.copy()).requires_grad_() for name, p in block.named_parameters()}

    def convolution(x, name, **settings):
        return torch.nn.functional.conv2d(x, run[f"{name}.weight"], **settings)

    def batch_norm(x, name, eps):
        weight, bias = run[f"{name}.weight"], run[f"{name}.bias"]
        return torch.nn.functional.batch_norm(x, None, None, weight, bias, training=True, eps=eps)

    run["input"] = torch.from_numpy(x.copy()).requires_grad_()
    shortcut = run["input"].clone()
    shortcut.register_hook(lambda gradient: gradient * gradient_of_shortcut)
    run["conv1.conv2d"] = convolution(run["input"], "conv1", padding=1)
    run["bn1.batch_norm"] = batch_norm(run["conv1.conv2d"], "bn1", 1e-5)
    run["bn1.relu"] = torch.relu(run["bn1.batch_norm"])
    run["conv2.conv2d"] = convolution(run["bn1.relu"], "conv2", padding=padding, dilation=dilation)
    run["bn2.batch_norm"] = batch_norm(run["conv2.conv2d"], "bn2", eps)
    run["bn2.add"] = run["bn2.batch_norm"] + shortcut
    run["bn2.relu"] = torch.relu(run["bn2.add"])
    for tensor in run.values():
        tensor.retain_grad()
    run["bn2.relu"].backward(torch.from_numpy(upstream))
    return run


@pytest.mark.witness
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(
    ("mistake", "parting"),
    [
        ({}, None),
        ({"eps": 1.1e-5}, ("forward", "bn2.batch_norm")),
        ({"eps": 1e-3}, ("forward", "bn2.batch_norm")),
        ({"padding": 2, "dilation": 2}, ("forward", "conv2.conv2d")),
        ({"gradient_of_shortcut": 1.01}, ("backward", "input")),
    ],
)
def test_a_residual_block_agrees_with_pytorch_s_up_to_the_planted_mistake(dtype, mistake, parting):
    torch = pytest.importorskip("torch")
    block = models.create("resnet8", widths=(4, 6, 8), rng=np.random.default_rng(0)).layer1[0].astype(dtype)
    x, upstream = (normal(3, 4, 7, 6, seed=seed).astype(dtype) for seed in (1, 2))
    with minires.record() as tape:
        block(Tensor(x, requires_grad=True)).backward(upstream)
    difference = diff(tape, torch_block(torch, block, x, upstream, **mistake))
    if parting is None or (
        dtype == np.float32 and mistake == {"eps": 1.1e-5}
    ):  # 5e-7 of a batch norm: float32 rounding
        assert difference
        assert difference.compared == 28
    else:
        assert (difference.first.phase, difference.first.name) == parting
