"""Warming up: what it reports, and that the net is as it was before."""

import numpy as np
import pytest

import minires
from minires import functional, models, nn
from minires.training import warm_up
from minires_kernels import jit


@pytest.fixture
def net():
    return models.create("resnet8", in_channels=1, widths=(2, 3, 4), rng=np.random.default_rng(0))


@pytest.fixture(autouse=True)
def reference():
    with minires.using("reference"):
        yield


class Heard:
    def __init__(self):
        self.batches = []

    def batch(self, epoch, done, total):
        self.batches.append((epoch, done, total))


def compiling(monkeypatch, *events):
    """The first loss that is computed compiles or loads these: (name, compiled)."""
    left, loss = list(events), functional.cross_entropy

    def cross_entropy(*arguments):
        while left:
            jit._tell(*left.pop(0))
        return loss(*arguments)

    monkeypatch.setattr(functional, "cross_entropy", cross_entropy)


def test_it_counts_what_is_compiled_and_what_is_loaded_and_says_so(net, monkeypatch):
    compiling(monkeypatch, ("a", True), ("b", False), ("c", False))
    heard = Heard()
    result = warm_up(net, (1, 5, 4), 2, progress=heard)
    assert (result.compiled, result.loaded) == (("a",), ("b", "c"))
    assert heard.batches == [(1, 1, 3), (1, 2, 3), (1, 3, 3)]
    assert result.seconds > 0
    assert result.step_seconds > 0
    assert f"{result.seconds:.1f} s: 1 kernels compiled, 2 loaded from the cache (kept in " in str(result)
    assert f"a step now takes {result.step_seconds:.2f} s" in str(result)


def test_without_a_folder_it_says_that_nothing_is_kept(net, monkeypatch):
    compiling(monkeypatch, ("a", True))
    monkeypatch.setattr(minires.training.warmup, "cache_folder", lambda: None)
    assert "(not kept)" in str(warm_up(net, (1, 5, 4), 2))


def test_without_compiled_kernels_it_says_that_there_is_nothing_to_compile(net):
    result = warm_up(net, (1, 5, 4), 2)
    assert (result.compiled, result.loaded) == ((), ())
    assert str(result).startswith("nothing to compile")


@pytest.mark.parametrize("training", [True, False])
def test_the_net_is_as_it_was(net, training):
    net.train(training)
    net.bn1.train(not training)
    rng = np.random.default_rng(1)
    net.flatten = nn.Sequential(net.flatten, nn.Dropout(rng=rng))
    gradient = net.fc.bias.grad = np.ones(10, np.float32)
    before, modes, draws = net.state_dict(), [module.training for module in net.modules()], rng.bit_generator.state
    warm_up(net, (1, 5, 4), 2)
    after = net.state_dict()
    assert all(np.array_equal(before[name], after[name]) for name in before)
    assert before.keys() == after.keys()
    assert net.fc.bias.grad is gradient
    assert net.fc.weight.grad is None
    assert [module.training for module in net.modules()] == modes
    assert rng.bit_generator.state == draws


def test_it_trains_in_the_modes_in_which_the_net_would_train(net, monkeypatch):
    seen = []
    monkeypatch.setattr(minires.optim.SGD, "step", lambda self: seen.append(len(self.groups)))
    modes = []
    for module in (net, net.bn1):
        module.register_forward_pre_hook(lambda module, inputs: modes.append(module.training))
    net.bn1.eval()
    warm_up(net, (1, 5, 4), 2)
    warm_up(net.eval(), (1, 5, 4), 2)
    assert seen == [1] * 4
    assert modes == [True, False] * 2 + [True, True] * 2


def test_the_net_is_as_it_was_also_after_an_error(net, monkeypatch):
    before = net.state_dict()

    def step(self):
        self.groups[0]["parameters"][0].data[...] = np.nan
        raise KeyboardInterrupt

    monkeypatch.setattr(minires.optim.SGD, "step", step)
    with pytest.raises(KeyboardInterrupt):
        warm_up(net, (1, 5, 4), 2)
    assert all(np.array_equal(before[name], after) for name, after in net.state_dict().items())


@pytest.mark.parametrize(("shape", "batch"), [((1, 5, 4), 0), ((1, 0, 4), 2), ((5, 4), 2)])
def test_nothing_to_compute_on_is_an_error(net, shape, batch):
    with pytest.raises(ValueError, match=r"warm_up: batch and each of \(C, H, W\) must be at least 1, got batch "):
        warm_up(net, shape, batch)
