"""The training loop: what a step does, what the log says, and that a good state is never lost."""

import csv
import json
import math

import numpy as np
import pytest

from minires import Function, Tensor, functional, nn, optim
from minires.data import Split
from minires.tensor import apply
from minires.training import DivergenceError, Epoch, Trainer, evaluate
from tests.training.small import bars, equal_states, loader, net, sgd


def test_training_is_the_textbooks_loop():
    trained, by_hand = net(), net()
    Trainer(trained, sgd(trained)).fit(loader(), 2)
    optimizer, batches = sgd(by_hand), loader()
    for _ in range(2):
        for images, labels in batches:
            by_hand.zero_grad()
            functional.cross_entropy(by_hand(Tensor(images)), labels).backward()
            optimizer.step()
    assert equal_states(trained.state_dict(), by_hand.state_dict())


def test_an_easy_task_is_learned():
    module = net()
    history = Trainer(module, sgd(module)).fit(loader(), 12, test=bars(30, seed=1))
    assert history[0].train_error > 20
    assert history[-1].train_error == 0
    assert history[-1].test_error < 10
    assert history[-1].train_loss < history[0].train_loss / 3


class Fixed(nn.Module):
    """A net whose logits say class 1, whatever comes."""

    def __init__(self):
        self.logits = nn.Linear(36, 3, rng=np.random.default_rng(0))
        self.logits.weight.data[:] = 0
        self.logits.bias.data[:] = [0, 2, 1]

    def forward(self, x):
        return self.logits(x.flatten(1))


def test_an_epochs_figures_are_means_over_its_images():
    module, split = Fixed(), bars(22)  # batches of 8, 8 and 6; 8, 7 and 7 of each class
    (epoch,) = Trainer(module, optim.SGD(module.parameters(), lr=0.0)).fit(loader(split), 1, test=bars(9, seed=1))
    losses = np.log(np.exp([0, 2, 1]).sum()) - np.array([0, 2, 1])
    assert epoch.train_loss == pytest.approx(losses @ [8, 7, 7] / 22, rel=1e-6)
    assert epoch.train_error == pytest.approx(100 * 15 / 22)
    assert epoch.test_loss == pytest.approx(losses.mean(), rel=1e-6)
    assert epoch.test_error == pytest.approx(100 * 6 / 9)
    assert epoch.test_top5_error == 0


def test_evaluation_leaves_the_net_as_it_was():
    module = net()
    before = module.state_dict()
    for training in (True, False):
        module.train(training)
        evaluate(module, bars(), batch_size=5)
        assert module.training is training
    assert equal_states(module.state_dict(), before)
    assert all(parameter.grad is None for parameter in module.parameters())


def frozen_net():
    """A net of which one batch norm is in evaluation mode."""
    module = net()
    module.layer1[0].bn1.eval()
    return module


def modes(module):
    return [each.training for each in module.modules()]


def test_evaluation_leaves_each_module_in_its_own_mode():
    module = frozen_net()
    before = modes(module)
    evaluate(module, bars())
    assert modes(module) == before
    with pytest.raises(ValueError, match="target"):
        evaluate(module, Split(bars().images, bars().labels + 100))
    assert modes(module) == before


def test_training_leaves_a_frozen_batch_norm_frozen():
    module = frozen_net()
    before, other = module.layer1[0].bn1.state_dict(), module.bn1.state_dict()
    module.layer1[0].bn1.weight.requires_grad = False
    Trainer(module, sgd(module)).fit(loader(), 2, test=bars(9))
    after = module.layer1[0].bn1.state_dict()
    for name in ("running_mean", "running_var", "num_batches_tracked", "weight"):
        np.testing.assert_array_equal(after[name], before[name])
    assert module.bn1.num_batches_tracked == other["num_batches_tracked"] + 6
    assert modes(module) == modes(frozen_net())


def test_a_net_that_is_in_evaluation_mode_as_a_whole_is_trained():
    module = net().eval()
    Trainer(module, sgd(module)).fit(loader(), 1)
    assert all(modes(module))
    assert module.bn1.num_batches_tracked == 3


def test_evaluation_doesnt_depend_on_the_batch_size():
    module = net()
    one, other = (evaluate(module, bars(), batch_size=size) for size in (5, 256))
    assert one == pytest.approx(other, rel=1e-5)


def test_the_log_is_written_epoch_by_epoch_and_goes_on_in_a_second_fit(tmp_path):
    module, lines_then = net(), []
    path = tmp_path / "runs" / "log.csv"

    def after_epoch(epoch, is_best):
        lines_then.append(len(path.read_text().splitlines()))

    trainer = Trainer(module, sgd(module), log=path, after_epoch=after_epoch)
    trainer.fit(loader(), 2, test=bars(9, seed=1))
    trainer.fit(loader(), 1, test=bars(9, seed=1))
    assert lines_then == [2, 3, 4]
    with path.open() as file:
        rows = list(csv.DictReader(file))
    assert [int(row["epoch"]) for row in rows] == [1, 2, 3]
    for row, epoch in zip(rows, trainer.history, strict=True):
        assert {name: float(value) for name, value in row.items()} == pytest.approx(vars(epoch))


def test_best_is_the_lowest_test_error_and_a_tie_isnt_better():
    module, told = net(), []
    trainer = Trainer(module, sgd(module), after_epoch=lambda epoch, is_best: told.append((epoch.test_error, is_best)))
    trainer.fit(loader(), 8, test=bars(30, seed=1))
    lowest = math.inf
    for error, is_best in told:
        assert is_best is (error < lowest)
        lowest = min(error, lowest)
    assert {is_best for _, is_best in told} == {True, False}


def test_without_a_test_split_its_figures_are_nan_and_the_training_error_judges():
    module, told = net(), []
    trainer = Trainer(module, sgd(module), after_epoch=lambda epoch, is_best: told.append(is_best))
    history = trainer.fit(loader(), 6)
    assert all(math.isnan(epoch.test_error) and math.isnan(epoch.test_loss) for epoch in history)
    lowest = min(range(6), key=lambda i: history[i].train_error)
    assert told[lowest]
    assert not any(told[lowest + 1 :])


def test_a_step_schedule_counts_batches_and_a_plateau_schedule_epochs():
    module = net()
    optimizer = sgd(module, lr=0.5)
    trainer = Trainer(module, optimizer, schedule=optim.MultiStepLR(optimizer, [4, 9]))
    assert [epoch.lr for epoch in trainer.fit(loader(), 4)] == pytest.approx([0.5, 0.5, 0.05, 0.005])

    frozen = Fixed()
    optimizer = optim.SGD(frozen.parameters(), lr=0.0)
    optimizer.groups[0]["lr"] = 1e-30  # so small that nothing moves and the error stays where it is
    trainer = Trainer(frozen, optimizer, schedule=optim.ReduceLROnPlateau(optimizer, patience=1))
    rates = [epoch.lr for epoch in trainer.fit(loader(), 4, test=bars(9, seed=1))]
    assert rates == pytest.approx([1e-30, 1e-30, 1e-30, 1e-31], rel=1e-6, abs=0)


def test_any_schedule_hears_of_steps_and_epochs():
    class Ear(optim.Schedule):
        def __init__(self, optimizer):
            super().__init__(optimizer)
            self.heard = []

        def after_step(self):
            self.heard.append("step")

        def after_epoch(self, error):
            self.heard.append(error)

    module = net()
    optimizer = sgd(module)
    schedule = Ear(optimizer)
    history = Trainer(module, optimizer, schedule=schedule).fit(loader(), 1, test=bars(9, seed=1))
    history = Trainer(module, optimizer, schedule=schedule).fit(loader(), 1)[-1:] + history
    assert schedule.heard == ["step"] * 3 + [history[1].test_error] + ["step"] * 3 + [history[0].train_error]


def test_a_schedule_of_another_kind_is_refused_before_training():
    module = net()
    with pytest.raises(TypeError, match=r"Trainer: schedule must be an optim\.Schedule, got function; subclass it"):
        Trainer(module, sgd(module), schedule=lambda step: 0.1)


def test_a_plateau_of_accuracies_is_judged_by_what_the_error_leaves():
    frozen = Fixed()
    optimizer = optim.SGD(frozen.parameters(), lr=1e-30)
    schedule = optim.ReduceLROnPlateau(optimizer, mode="max", patience=0)
    Trainer(frozen, optimizer, schedule=schedule).fit(loader(), 1, test=bars(9, seed=1))
    assert schedule.best == pytest.approx(100 - 100 * 6 / 9)


@pytest.mark.parametrize("make", [
    lambda sgd: optim.MultiStepLR(sgd, [4, 9], warmup_steps=2, warmup_lr=0.01),
    lambda sgd: optim.CosineLR(sgd, 12),
    lambda sgd: optim.ReduceLROnPlateau(sgd, patience=0),
    lambda sgd: None,
], ids=["steps", "cosine", "plateau", "none"])  # fmt: skip
def test_training_that_is_taken_up_again_goes_on_bit_for_bit(make):
    def parts():
        module = net()
        optimizer = sgd(module)
        batches = loader()
        return module, optimizer, batches, Trainer(module, optimizer, schedule=make(optimizer))

    module, optimizer, batches, trainer = parts()
    trainer.fit(batches, 2, test=bars(9, seed=1))
    saved = module.state_dict(), optimizer.state_dict()
    text = json.dumps([trainer.schedule.state_dict(), batches.state_dict()])
    trainer.fit(batches, 2, test=bars(9, seed=1))

    again, optimizer_again, batches_again, trainer_again = parts()
    again.load_state_dict(saved[0])
    optimizer_again.load_state_dict(saved[1])
    schedule, order = json.loads(text)
    trainer_again.schedule.load_state_dict(schedule)
    batches_again.load_state_dict(order)
    trainer_again.fit(batches_again, 2, test=bars(9, seed=1))
    assert equal_states(again.state_dict(), module.state_dict())
    assert [e.lr for e in trainer_again.history] == [e.lr for e in trainer.history[2:]]


def test_progress_hears_of_every_batch_and_epoch():
    class Ear:
        def __init__(self):
            self.heard = []

        def batch(self, epoch, done, total):
            self.heard.append((epoch, done, total))

        def epoch(self, line):
            self.heard.append(line)

    module, ear = net(), Ear()
    history = Trainer(module, sgd(module), progress=ear).fit(loader(), 2)
    assert ear.heard == [(1, 1, 3), (1, 2, 3), (1, 3, 3), str(history[0]),
                         (2, 1, 3), (2, 2, 3), (2, 3, 3), str(history[1])]  # fmt: skip


def test_a_line_of_the_log_reads_well_and_fits_a_terminal():
    epoch = Epoch(7, 0.01, 0.25, 12.5, 0.5, 20.0, 1.0, 3.21)
    assert str(epoch) == "epoch   7  lr 0.01  train 12.50 %, loss 0.250  test 20.00 %, loss 0.500  3.2 s"
    assert len(str(epoch)) < 80
    untested = Epoch(7, 0.01, 0.25, 12.5, math.nan, math.nan, math.nan, 3.21)
    assert str(untested) == "epoch   7  lr 0.01  train 12.50 %, loss 0.250  3.2 s"


def test_what_is_shown_is_saved_already(tmp_path):
    module, path, told = net(), tmp_path / "log.csv", []

    class Ear:
        def batch(self, epoch, done, total):
            pass

        def epoch(self, line):
            told.append(("shown", len(path.read_text().splitlines())))

    def after_epoch(epoch, is_best):
        told.append(("saved", len(path.read_text().splitlines())))

    Trainer(module, sgd(module), log=path, progress=Ear(), after_epoch=after_epoch).fit(loader(), 2)
    assert told == [("saved", 2), ("shown", 2), ("saved", 3), ("shown", 3)]


def test_the_log_of_another_training_is_never_replaced(tmp_path):
    path = tmp_path / "log.csv"
    first = net()
    Trainer(first, sgd(first), log=path).fit(loader(), 1)
    content, second = path.read_text(), net()
    with pytest.raises(ValueError, match=r"the log .*log.csv exists, .*; name another file, or remove it"):
        Trainer(second, sgd(second), log=path).fit(loader(), 1)
    assert path.read_text() == content
    assert equal_states(second.state_dict(), net().state_dict())


def test_a_training_that_fails_in_its_first_epoch_leaves_no_log_and_can_begin_again(tmp_path, monkeypatch):
    module, path = net(), tmp_path / "runs" / "log.csv"
    trainer = Trainer(module, sgd(module), log=path)
    with monkeypatch.context() as broken:
        broken.setattr(Trainer, "_step", lambda self, images, labels: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            trainer.fit(loader(), 1)
    assert not path.exists()
    trainer.fit(loader(), 1)
    assert len(path.read_text().splitlines()) == 2


# ---------------------------------------------------------------- divergence


class Spoil(Function):
    """x, until the ``when``-th call: then one NaN in what it computes, forward or backward."""

    calls = 0

    def __init__(self, when, phase):
        self.when, self.phase = when, phase

    def _spoiled(self, array, phase):
        array = array.copy()
        if phase == self.phase and Spoil.calls >= self.when:
            array.flat[1] = np.nan
        return array

    def forward(self, x):
        return self._spoiled(x, "forward")

    def backward(self, grad_output):
        return (self._spoiled(grad_output, "backward"),)


class Spoiled(nn.Module):
    """A net that goes wrong in its 8th training step: in its third epoch of three batches."""

    def __init__(self, phase):
        self.body = net()
        self.phase = phase

    def forward(self, x):
        Spoil.calls += self.training
        return apply(Spoil(8, self.phase), self.body(x))


@pytest.mark.parametrize(("phase", "what"), [
    ("forward", r"the loss is nan, in epoch 3; .*: forward: its value is nan at index \[0, 1\].*; spoil at .*py:\d+"),
    ("backward", r"but the gradient of body.* isn't finite, in epoch 3; .*backward: its gradient for body.fc"),
])  # fmt: skip
def test_a_nan_stops_training_names_its_origin_and_brings_back_the_last_good_epoch(phase, what, tmp_path, monkeypatch):
    monkeypatch.setattr(Spoil, "calls", 0)
    module = Spoiled(phase)
    optimizer = sgd(module)
    good = []

    def after_epoch(epoch, is_best):
        good.append((module.state_dict(), optimizer.state_dict()))

    trainer = Trainer(module, optimizer, log=tmp_path / "log.csv", after_epoch=after_epoch)
    with pytest.raises(DivergenceError, match=what):
        trainer.fit(loader(), 5)
    assert len(trainer.history) == len(good) == 2
    assert len((tmp_path / "log.csv").read_text().splitlines()) == 3
    assert equal_states(module.state_dict(), good[-1][0])
    velocities, kept = optimizer.state_dict()["velocities"], good[-1][1]["velocities"]
    assert equal_states(velocities, kept)
    assert all(parameter.grad is None for parameter in module.parameters())


def test_after_a_divergence_training_can_go_on(monkeypatch):
    monkeypatch.setattr(Spoil, "calls", 0)
    module = Spoiled("forward")
    trainer = Trainer(module, sgd(module))
    with pytest.raises(DivergenceError):
        trainer.fit(loader(), 5)
    monkeypatch.setattr(Spoil, "calls", -1000)
    assert [epoch.epoch for epoch in trainer.fit(loader(), 1)] == [1, 2, 3]
    assert math.isfinite(trainer.history[-1].train_loss)


def test_after_a_divergence_a_rate_set_by_hand_holds_and_the_schedule_goes_on_from_it(monkeypatch):
    monkeypatch.setattr(Spoil, "calls", 0)
    module = Spoiled("forward")
    optimizer = sgd(module)
    schedule = optim.MultiStepLR(optimizer, [7, 10])  # the first milestone lies in the epoch that fails
    trainer = Trainer(module, optimizer, schedule=schedule)
    with pytest.raises(DivergenceError):
        trainer.fit(loader(), 5)
    assert schedule.steps == 6
    assert optimizer.groups[0]["lr"] == 0.1
    optimizer.groups[0]["lr"] = 0.02
    monkeypatch.setattr(Spoil, "calls", -1000)
    rates = [epoch.lr for epoch in trainer.fit(loader(), 3)[2:]]
    assert rates == pytest.approx([0.02, 0.002, 0.0002])


def test_a_learning_rate_far_too_large_is_a_divergence_too():
    module = Fixed()
    with pytest.raises(DivergenceError, match=r"with a smaller learning rate \(optimizer.groups\[0\]\['lr'\] = "):
        Trainer(module, optim.SGD(module.parameters(), lr=1e38)).fit(loader(), 3)
    assert all(np.isfinite(array).all() for array in module.state_dict().values())


# ---------------------------------------------------------------- bad input


def test_a_split_without_images_is_refused():
    nothing = Split(np.zeros((0, 1, 6, 6), np.float32), np.zeros(0, np.int64))
    module = net()
    with pytest.raises(ValueError, match="nothing to train on"):
        Trainer(module, sgd(module)).fit(loader(nothing), 1)
    with pytest.raises(ValueError, match="or to test with"):
        Trainer(module, sgd(module)).fit(loader(), 1, test=nothing)
    with pytest.raises(ValueError, match="evaluate: the split has no images"):
        evaluate(module, nothing)
