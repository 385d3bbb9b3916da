"""Schedules: the lr at each step."""

from __future__ import annotations

import json

import numpy as np
import pytest

from minires import Parameter, Tensor, nn
from minires.optim import SGD, CosineLR, MultiStepLR, ReduceLROnPlateau, Schedule


def optimizer(*rates):
    return SGD([{"parameters": [Parameter([1.0])], "lr": rate} for rate in rates or (0.1,)], lr=1.0)


def rates_at(schedule, wanted):
    """The lr that the steps in ``wanted`` use."""
    seen = {}
    for step in range(max(wanted) + 1):
        if step in wanted:
            seen[step] = schedule.optimizer.groups[0]["lr"]
        schedule.step()
    return seen


def test_the_paper_s_schedule_without_warm_up():
    schedule = MultiStepLR(optimizer(), (32_000, 48_000))
    expected = {0: 0.1, 399: 0.1, 400: 0.1, 31_999: 0.1, 32_000: 0.01, 47_999: 0.01, 48_000: 0.001, 63_999: 0.001}
    assert rates_at(schedule, expected) == pytest.approx(expected, rel=1e-12)


def test_the_paper_s_schedule_with_warm_up():
    schedule = MultiStepLR(optimizer(), (32_000, 48_000), warmup_steps=400, warmup_lr=0.01)
    expected = {0: 0.01, 399: 0.01, 400: 0.1, 31_999: 0.1, 32_000: 0.01, 47_999: 0.01, 48_000: 0.001}
    assert rates_at(schedule, expected) == pytest.approx(expected, rel=1e-12)


def test_each_group_keeps_its_proportion():
    groups = optimizer(0.1, 0.02)
    schedule = MultiStepLR(groups, (1, 3), factor=0.5)
    seen = []
    for _ in range(4):
        seen.append(tuple(group["lr"] for group in groups.groups))
        schedule.step()
    assert seen == [pytest.approx(pair) for pair in [(0.1, 0.02), (0.05, 0.01), (0.05, 0.01), (0.025, 0.005)]]


def test_without_milestones_the_rate_is_constant():
    assert set(rates_at(MultiStepLR(optimizer(), ()), range(5)).values()) == {0.1}


def test_the_rate_reaches_the_update():
    parameter = Parameter(np.zeros(1))
    sgd = SGD([parameter], lr=1.0)
    schedule = MultiStepLR(sgd, (1,))
    for _ in range(2):
        parameter.grad = -np.ones(1)
        sgd.step()
        schedule.step()
    assert parameter.data == pytest.approx([1.1])


@pytest.mark.parametrize(
    ("milestones", "options", "message"),
    [
        ((3, 2), {}, r"milestones must be increasing positive steps, got \[3, 2\]"),
        ((2, 2), {}, r"milestones must be increasing positive steps, got \[2, 2\]"),
        ((0, 2), {}, r"milestones must be increasing positive steps, got \[0, 2\]"),
        ((1,), {"factor": 0.0}, "factor must be > 0, got 0.0"),
        ((1,), {"factor": np.nan}, "factor must be > 0, got nan"),
        ((1,), {"warmup_lr": -0.1}, "warmup_lr must be > 0 and warmup_steps >= 0, got -0.1, 0"),
        ((1,), {"warmup_lr": np.inf}, "warmup_lr must be > 0"),
        ((1,), {"warmup_steps": -1}, "warmup_lr must be > 0 and warmup_steps >= 0, got 0.01, -1"),
    ],
)
def test_multi_step_refuses(milestones, options, message):
    with pytest.raises(ValueError, match=f"MultiStepLR: {message}"):
        MultiStepLR(optimizer(), milestones, **options)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: MultiStepLR(optimizer(), [10.0]), "MultiStepLR: a milestone must be an integer, got 10.0"),
        (lambda: MultiStepLR(optimizer(), 10), "MultiStepLR: milestones must be a list of steps, got 10"),
        (lambda: MultiStepLR(optimizer(), [1], factor=None), "MultiStepLR: factor must be a number, got None"),
        (lambda: MultiStepLR(optimizer(), [1], warmup_lr=Tensor([0.1])), "warmup_lr must be a number, got a Tensor"),
        (lambda: MultiStepLR(optimizer(), [1], warmup_steps=1.5), "warmup_steps must be an integer, got 1.5"),
        (lambda: MultiStepLR(nn.Identity(), [1]), "MultiStepLR: expected an optimizer, got Identity"),
        (lambda: CosineLR(optimizer(), 10.0), "CosineLR: total_steps must be an integer, got 10.0"),
        (lambda: CosineLR(optimizer(), 10, least=None), "CosineLR: least must be a number, got None"),
        (lambda: ReduceLROnPlateau(optimizer(), factor=None), "factor must be a number, got None"),
        (lambda: ReduceLROnPlateau(optimizer(), patience=1.5), "patience must be an integer, got 1.5"),
        (lambda: ReduceLROnPlateau(optimizer()).step(None), "the error must be a number, got None"),
        (lambda: ReduceLROnPlateau(optimizer()).step(Tensor(1.0)), r"got a Tensor .*; use \.item\(\)"),
    ],
)
def test_schedules_refuse_other_types(build, message):
    with pytest.raises(TypeError, match=message):
        build()


def test_groups_keep_their_proportion_in_the_warm_up_too():
    groups = optimizer(0.1, 0.001, 0.0)
    schedule = MultiStepLR(groups, (3,), warmup_steps=1, warmup_lr=0.01)
    assert [group["lr"] for group in groups.groups] == pytest.approx([0.01, 0.0001, 0.0])
    schedule.step()
    assert [group["lr"] for group in groups.groups] == [0.1, 0.001, 0.0]


# ---- a rate set by hand --------------------------------------------------------------------------


def test_a_rate_set_by_hand_holds_and_the_schedule_goes_on_from_it():
    groups = optimizer(0.1, 0.1)
    schedule = MultiStepLR(groups, (4, 6))
    seen = []
    for step in range(8):
        if step == 2:
            groups.groups[0]["lr"] = 0.01
        seen.append([group["lr"] for group in groups.groups])
        schedule.step()
    assert np.array(seen) == pytest.approx(
        np.transpose([[0.1, 0.1, 0.01, 0.01, 0.001, 0.001, 0.0001, 0.0001], [0.1] * 4 + [0.01] * 2 + [0.001] * 2])
    )


@pytest.mark.parametrize(("rate", "hand"), [(1.0, 0.5), (0.1, 0.005), (0.1, 0.3)])
@pytest.mark.parametrize("milestones", [(4,), (1, 4), (4, 5)])
@pytest.mark.parametrize("when", [0, 1, 2])
def test_a_rate_set_by_hand_in_the_warm_up_is_the_one_after_it(rate, hand, milestones, when):
    groups = optimizer(rate)
    schedule = MultiStepLR(groups, milestones, warmup_steps=3, warmup_lr=0.01)
    seen = []
    for step in range(6):
        if step == when:
            groups.groups[0]["lr"] = hand
        seen.append(groups.groups[0]["lr"])
        schedule.step()
    after = [hand * 0.1 ** sum(milestone <= step for milestone in milestones) for step in range(3, 6)]
    assert seen == pytest.approx([0.01] * when + [hand] * (3 - when) + after)


@pytest.mark.parametrize("make", ["steps", "cosine", "plateau"])
def test_a_rate_set_by_hand_may_be_numpy_s(make):
    groups, same = optimizer(0.1, 0.1), optimizer(0.1, 0.1)
    schedule, expected = MAKERS[make](groups), MAKERS[make](same)
    for step in range(14):
        if step == 1 or step == 6:
            groups.groups[0]["lr"] = np.float32(0.02)
            same.groups[0]["lr"] = float(np.float32(0.02))
        for each in (schedule, expected):
            each.after_step()
            each.after_epoch(1.0)
        assert json.loads(json.dumps(schedule.state_dict())) == expected.state_dict()
        assert [group["lr"] for group in groups.groups] == [group["lr"] for group in same.groups]
    assert type(groups.groups[0]["lr"]) is float


def test_a_rate_set_by_hand_must_be_a_number():
    schedule = MultiStepLR(optimizer(), (1,))
    schedule.optimizer.groups[0]["lr"] = "0.1"
    with pytest.raises(TypeError, match=r"MultiStepLR: a group's lr must be a number, got '0\.1'"):
        schedule.step()


def test_a_rate_set_by_hand_scales_the_rest_of_the_cosine_and_stays_after_its_end():
    plain, scaled = CosineLR(optimizer(0.1), 10), CosineLR(optimizer(0.1), 10)
    for _ in range(4):
        plain.step()
        scaled.step()
    scaled.optimizer.groups[0]["lr"] /= 2
    for _ in range(5):
        plain.step()
        scaled.step()
        assert scaled.optimizer.groups[0]["lr"] == pytest.approx(plain.optimizer.groups[0]["lr"] / 2)
    scaled.step()
    assert scaled.optimizer.groups[0]["lr"] == 0
    scaled.optimizer.groups[0]["lr"] = 0.3
    scaled.step()
    assert scaled.optimizer.groups[0]["lr"] == 0.3


def test_a_group_that_comes_later_is_refused():
    groups = optimizer(0.1)
    schedule = MultiStepLR(groups, (1,))
    groups.groups.append(dict(groups.groups[0]))
    with pytest.raises(ValueError, match="MultiStepLR: the optimizer has 2 groups, and had 1 when the schedule was"):
        schedule.step()


# ---- cosine --------------------------------------------------------------------------------------


@pytest.mark.parametrize(("least", "warmup"), [(0.0, 0), (0.1, 0), (0.0, 3), (0.25, 4)])
def test_the_cosine_is_equation_5(least, warmup):
    groups = optimizer(0.2, 0.04)
    schedule = CosineLR(groups, 12, least=least, warmup_steps=warmup, warmup_lr=0.01)
    for step in range(20):
        t = min(step - warmup, 12 - warmup)
        expected = least * 0.2 + 0.5 * (0.2 - least * 0.2) * (1 + np.cos(np.pi * t / (12 - warmup)))
        expected = 0.01 if step < warmup else expected
        assert groups.groups[0]["lr"] == pytest.approx(expected, rel=1e-12, abs=1e-17)
        assert groups.groups[1]["lr"] == pytest.approx(expected / 5, rel=1e-12, abs=1e-17)
        schedule.step()


@pytest.mark.witness
def test_the_cosine_is_torch_s():
    torch = pytest.importorskip("torch")
    theirs = torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr=0.1)
    their_schedule = torch.optim.lr_scheduler.CosineAnnealingLR(theirs, 50, eta_min=0.01)
    schedule = CosineLR(optimizer(0.1), 50, least=0.1)
    for _ in range(51):
        assert schedule.optimizer.groups[0]["lr"] == pytest.approx(theirs.param_groups[0]["lr"], rel=1e-9)
        schedule.step()
        theirs.step()
        their_schedule.step()


@pytest.mark.parametrize(("total", "options"), [(0, {}), (-3, {}), (5, {"warmup_steps": 5})])
def test_a_cosine_needs_steps(total, options):
    with pytest.raises(ValueError, match="CosineLR: total_steps must be positive and above warmup_steps, got"):
        CosineLR(optimizer(), total, **options)


@pytest.mark.parametrize("least", [-0.1, 1.1, np.nan])
def test_a_cosine_ends_between_nothing_and_the_whole(least):
    with pytest.raises(ValueError, match="CosineLR: least must be a number from 0 to 1"):
        CosineLR(optimizer(), 10, least=least)


# ---- state ---------------------------------------------------------------------------------------


MAKERS = {
    "steps": lambda sgd: MultiStepLR(sgd, (5, 11), factor=0.3, warmup_steps=4, warmup_lr=0.013),
    "cosine": lambda sgd: CosineLR(sgd, 17, least=0.01, warmup_steps=2),
    "plateau": lambda sgd: ReduceLROnPlateau(sgd, patience=1, factor=0.3),
    "nothing": Schedule,
}


@pytest.mark.parametrize("stop", range(0, 14, 3))
@pytest.mark.parametrize("name", MAKERS)
def test_a_schedule_resumes_bit_for_bit_from_json(name, stop):
    errors = np.random.default_rng(0).random(20).tolist()

    def rates(schedule, steps):
        for step in steps:
            if step == 9:
                schedule.optimizer.groups[1]["lr"] *= 0.7
            schedule.after_step()
            schedule.after_epoch(errors[step])
            yield [group["lr"] for group in schedule.optimizer.groups]

    first = MAKERS[name](optimizer(0.1, 0.037))
    list(rates(first, range(stop)))
    saved = first.optimizer.state_dict()
    text = json.dumps(first.state_dict())
    expected = list(rates(first, range(stop, 20)))
    again = optimizer(0.1, 0.037)
    again.load_state_dict(saved)  # the schedule is made of an optimizer in the middle of things
    schedule = MAKERS[name](again)
    again.load_state_dict(saved)
    schedule.load_state_dict(json.loads(text))
    assert list(rates(schedule, range(stop, 20))) == expected


@pytest.mark.parametrize(
    ("state", "message"),
    [
        (CosineLR(optimizer(), 9).state_dict(), "MultiStepLR: the state is of CosineLR, not of a MultiStepLR"),
        (
            {"schedule": "MultiStepLR"},
            "MultiStepLR: the state lacks steps, bases, set_rates, share, warmup_share; it must be as state_dict gives",
        ),
        (None, "MultiStepLR: the state must be a dictionary as state_dict gives it, got NoneType"),
        (MultiStepLR(optimizer(0.1, 0.1), (3,)).state_dict(), "the state is of 2 groups, this optimizer has 1"),
    ],
)
def test_a_state_that_does_not_fit_is_refused_before_anything_changes(state, message):
    schedule = MultiStepLR(optimizer(), (3,))
    schedule.step()
    before = schedule.state_dict()
    with pytest.raises(ValueError, match=message):
        schedule.load_state_dict(state)
    assert schedule.state_dict() == before


DAMAGES = [
    ("steps", "steps", "x", "steps must be an integer, got 'x'"),
    ("steps", "steps", None, "steps must be an integer, got None"),
    ("steps", "steps", 1.5, "steps must be an integer, got 1.5"),
    ("steps", "bases", ["a", 0.1], "bases must be a number, got 'a'"),
    ("steps", "bases", [0.1, float("inf")], "bases must be finite, got inf"),
    ("steps", "bases", None, "bases must be a list, got None"),
    ("steps", "bases", "ab", "bases must be a list, got 'ab'"),
    ("cosine", "set_rates", [0.1, True], "set_rates must be a number, got True"),
    ("cosine", "share", float("nan"), "share must be finite, got nan"),
    ("cosine", "share", None, "share must be a number, got None"),
    ("cosine", "warmup_share", [1.0], r"warmup_share must be a number, got \[1.0\]"),
    ("plateau", "best", "x", "best must be a number, got 'x'"),
    ("plateau", "best", float("nan"), "best is NaN"),
    ("plateau", "waited", None, "waited must be an integer, got None"),
]


@pytest.mark.parametrize(("make", "key", "value", "message"), DAMAGES)
def test_a_damaged_state_is_refused_before_anything_changes(make, key, value, message):
    schedule = MAKERS[make](optimizer(0.1, 0.1))
    for steps in range(2):  # new, and after a step
        before = schedule.state_dict()
        name = type(schedule).__name__
        with pytest.raises(ValueError, match=f"{name}: the state is damaged: {message}"):
            schedule.load_state_dict({**MAKERS[make](optimizer(0.1, 0.1)).state_dict(), key: value})
        assert schedule.state_dict() == before, steps
        schedule.after_step()
        schedule.after_epoch(3.0)


def test_entries_of_a_state_that_are_too_many_are_named():
    schedule = MultiStepLR(optimizer(), (3,))
    with pytest.raises(ValueError, match="MultiStepLR: the state has colour beside its entries; it must be as state_"):
        schedule.load_state_dict({**schedule.state_dict(), "colour": 1})
    state = {**schedule.state_dict(), "colour": 1}
    del state["share"]
    with pytest.raises(ValueError, match="MultiStepLR: the state lacks share and has colour beside its entries;"):
        schedule.load_state_dict(state)


@pytest.mark.parametrize("best", [None, 2.5, 3, float("inf")])
def test_a_plateau_goes_back_to_any_best(best):
    schedule = ReduceLROnPlateau(optimizer())
    for _ in range(2):
        schedule.load_state_dict({**schedule.state_dict(), "best": best})
        assert schedule.best == best
        schedule.step(7.0)


def test_a_state_is_a_copy():
    schedule = MultiStepLR(optimizer(), (3,))
    schedule.state_dict()["bases"][0] = 5
    state = schedule.state_dict()
    schedule.load_state_dict(state)
    state["bases"][0] = 5
    assert schedule.bases == [0.1]


# ---- plateau -------------------------------------------------------------------------------------


def test_the_rate_is_divided_by_ten_when_the_error_plateaus():
    groups = optimizer(0.1, 0.02)
    schedule = ReduceLROnPlateau(groups, patience=2)
    seen = []
    for error in [50, 40, 41, 40, 42, 30, 31, 31, 31, 31, 31, 31]:
        schedule.step(error)
        seen.append(groups.groups[0]["lr"])
    # 41, 40, 42: three in a row not better; then 30 is; then again three, and three more
    assert seen == pytest.approx([0.1] * 4 + [0.01] * 4 + [0.001] * 3 + [0.0001])
    assert groups.groups[1]["lr"] == pytest.approx(0.02 * 1e-3)


def test_a_better_error_starts_the_patience_anew():
    schedule = ReduceLROnPlateau(optimizer(), patience=1)
    for error in [10, 10, 9, 9, 8, 8, 7]:
        schedule.step(error)
    assert schedule.optimizer.groups[0]["lr"] == 0.1


def test_better_means_by_more_than_the_relative_threshold():
    schedule = ReduceLROnPlateau(optimizer(), patience=0, threshold=0.1)
    schedule.step(100.0)
    schedule.step(89.0)
    assert schedule.optimizer.groups[0]["lr"] == 0.1
    schedule.step(85.0)  # not below 89 * 0.9
    assert schedule.optimizer.groups[0]["lr"] == pytest.approx(0.01)


def test_the_rate_stays_above_its_least():
    schedule = ReduceLROnPlateau(optimizer(), patience=0, factor=0.1, min_lr=0.005)
    for _ in range(4):
        schedule.step(1.0)
    assert schedule.optimizer.groups[0]["lr"] == 0.005


def test_an_error_of_zero_cannot_be_beaten():
    schedule = ReduceLROnPlateau(optimizer(), patience=0)
    schedule.step(0.0)
    schedule.step(0.0)
    assert schedule.optimizer.groups[0]["lr"] == pytest.approx(0.01)


def reduced_by(errors, **options):
    """At which of the errors the rate was reduced."""
    schedule = ReduceLROnPlateau(optimizer(1.0), patience=0, **options)
    seen = []
    for error in errors:
        before = schedule.optimizer.groups[0]["lr"]
        schedule.step(error)
        seen.append(schedule.optimizer.groups[0]["lr"] < before)
    return seen


def test_negative_numbers_have_plateaus_too():
    assert reduced_by([-1.0, -1.0, -1.05, -1.2], threshold=0.1) == [False, True, True, False]
    assert reduced_by([1.0, -1.0, -1.00001, -1.001]) == [False, False, True, False]


def test_an_accuracy_shall_rise():
    accuracies = [0.5, 0.6, 0.6, 0.55, 0.7]
    assert reduced_by(accuracies, mode="max") == [False, False, True, True, False]
    assert reduced_by([-2.0, -1.9, -1.95], mode="max", threshold=0.01) == [False, False, True]


def test_infinite_errors_are_worse_than_any_and_no_plateau_begins_with_them():
    assert reduced_by([np.inf, 5.0, np.inf, 4.0]) == [False, False, True, False]
    assert reduced_by([-np.inf, 5.0, 5.0, 6.0], mode="max") == [False, False, True, False]


def test_the_least_rate_raises_none():
    groups = optimizer(0.1, 0.001)
    schedule = ReduceLROnPlateau(groups, patience=0, min_lr=0.005)
    for _ in range(3):
        schedule.step(1.0)
    assert [group["lr"] for group in groups.groups] == [0.005, 0.001]


@pytest.mark.witness
@pytest.mark.parametrize("mode", ["min", "max"])
def test_the_plateau_of_positive_numbers_is_torch_s(mode):
    torch = pytest.importorskip("torch")
    theirs = torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr=0.1)
    their_schedule = torch.optim.lr_scheduler.ReduceLROnPlateau(theirs, mode, patience=2, threshold=0.05)
    schedule = ReduceLROnPlateau(optimizer(0.1), mode=mode, patience=2, threshold=0.05)
    for error in 1 + np.random.default_rng(0).random(60):
        schedule.step(error)
        their_schedule.step(error)
        assert schedule.optimizer.groups[0]["lr"] == pytest.approx(theirs.param_groups[0]["lr"], rel=1e-9, abs=1e-8)


def test_plateau_refuses():
    with pytest.raises(ValueError, match="ReduceLROnPlateau: mode must be 'min' or 'max', got 'maximum'"):
        ReduceLROnPlateau(optimizer(), mode="maximum")
    for name in ("threshold", "min_lr"):
        with pytest.raises(ValueError, match=f"ReduceLROnPlateau: {name} must be a finite number of at least 0"):
            ReduceLROnPlateau(optimizer(), **{name: -1.0})
    for options in ({"factor": 1.0}, {"factor": 0.0}, {"patience": -1}):
        with pytest.raises(ValueError, match="ReduceLROnPlateau: 0 < factor < 1 and patience >= 0"):
            ReduceLROnPlateau(optimizer(), **options)
    with pytest.raises(ValueError, match="ReduceLROnPlateau: the error is NaN; the training has diverged"):
        ReduceLROnPlateau(optimizer()).step(float("nan"))
