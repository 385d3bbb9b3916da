"""Schedules: the lr at each step."""

from __future__ import annotations

import numpy as np
import pytest

from minires import Parameter
from minires.optim import SGD, MultiStepLR, ReduceLROnPlateau


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
        ((1,), {"factor": 0.0}, "factor and warmup_lr must be > 0, warmup_steps >= 0, got 0.0"),
        ((1,), {"warmup_lr": -0.1}, "factor and warmup_lr must be > 0"),
        ((1,), {"warmup_steps": -1}, "factor and warmup_lr must be > 0"),
    ],
)
def test_multi_step_refuses(milestones, options, message):
    with pytest.raises(ValueError, match=f"MultiStepLR: {message}"):
        MultiStepLR(optimizer(), milestones, **options)


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


def test_plateau_refuses():
    for options in ({"factor": 1.0}, {"factor": 0.0}, {"patience": -1}):
        with pytest.raises(ValueError, match="ReduceLROnPlateau: 0 < factor < 1 and patience >= 0"):
            ReduceLROnPlateau(optimizer(), **options)
    with pytest.raises(ValueError, match="ReduceLROnPlateau: the error is NaN; the training has diverged"):
        ReduceLROnPlateau(optimizer()).step(float("nan"))
