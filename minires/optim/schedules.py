"""Learning-rate schedules: each changes ``lr`` in the groups of an optimizer while it trains."""

from __future__ import annotations

import bisect
import math
from collections.abc import Iterable, Mapping
from typing import Any, Literal

from minires.arguments import described, require_flag, require_integer, require_number
from minires.display import brief
from minires.optim.sgd import SGD


class Schedule:
    """What all schedules share: subclass it and write :meth:`after_step` or :meth:`after_epoch`.

    The trainer calls both. What has to be remembered from call to call stands, by the names of the attributes, in
    ``remembers``: :meth:`state_dict` saves it. A rate that is set by hand (``optimizer.groups[0]["lr"] = 0.01``)
    counts from then on: every schedule here goes on from what it finds. Set during a warm-up, it is the rate that
    comes after the warm-up, and holds until then.
    """

    remembers: tuple[str, ...] = ()
    optional: tuple[str, ...] = ()
    """Those of ``remembers`` that are None, or an infinite number, at times."""
    shows: tuple[str, ...] = ()
    """The attributes that stand in its repr, beside the rates."""

    def __init__(self, optimizer: SGD) -> None:
        if not hasattr(optimizer, "groups"):
            raise TypeError(f"{type(self).__name__}: expected an optimizer, got {type(optimizer).__name__}")
        self.optimizer = optimizer

    def __repr__(self) -> str:
        rates = tuple(dict.fromkeys(group["lr"] for group in self.optimizer.groups))
        shown = (f"{name} {brief(getattr(self, name))}" for name in self.shows)
        return f"{type(self).__name__}(lr {brief(rates).strip('(,)')}{''.join(f', {each}' for each in shown)})"

    def after_step(self) -> None:
        """Called after each training step. Does nothing by default."""

    def after_epoch(self, error: float) -> None:
        """Called after each epoch with its test error (or training error, without a test). Nothing by default."""

    def state_dict(self) -> dict[str, Any]:
        """What the schedule remembers, which JSON can hold. The rates themselves are in the optimizer's state."""
        values = {name: getattr(self, name) for name in self.remembers}
        copies = {name: list(value) if isinstance(value, list) else value for name, value in values.items()}
        return {"schedule": type(self).__name__, **copies}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what :meth:`state_dict` gave, exactly, once the optimizer has its own state again.

        Raises ValueError, before any change, when it is the state of another schedule or of another number of groups,
        and when an entry is missing, too many or not of its type.
        """
        own = self.state_dict()
        name = own["schedule"]
        if not isinstance(state, Mapping):
            raise ValueError(f"{name}: the state must be a dictionary as state_dict gives it, got "
                             f"{type(state).__name__}")  # fmt: skip
        if state.get("schedule", name) != name:
            raise ValueError(f"{name}: the state is of {state['schedule']}, not of a {name}")
        missing = ", ".join(key for key in own if key not in state)
        others = ", ".join(str(key) for key in state if key not in own)
        if missing or others:
            found = [f"lacks {missing}"] * bool(missing) + [f"has {others} beside its entries"] * bool(others)
            raise ValueError(f"{name}: the state {' and '.join(found)}; it must be as state_dict gives it: "
                             f"{', '.join(own)}")  # fmt: skip
        try:
            loaded = {key: _entry(key, own[key], state[key], key in self.optional) for key in self.remembers}
        except (TypeError, ValueError) as damage:
            raise ValueError(f"{name}: {damage}") from None
        for key, value in loaded.items():
            setattr(self, key, value)


def _rates(schedule: Schedule) -> list[float]:
    """The rate of each group, as Python's number whatever was set by hand."""
    name = type(schedule).__name__
    return [require_number(name, "a group's lr", group["lr"]) for group in schedule.optimizer.groups]


def _entry(key: str, own: Any, given: Any, optional: bool) -> Any:
    """``given`` as it is remembered, if it is of the type of ``own``. Raise TypeError or ValueError otherwise."""
    op = "the state is damaged"
    if optional:
        number = None if given is None else require_number(op, key, given)
        if number is not None and math.isnan(number):
            raise ValueError(f"{op}: {key} is NaN")
        return number
    if isinstance(own, list):
        if not isinstance(given, list):
            raise TypeError(f"{op}: {key} must be a list, got {described(given)}")
        if len(given) != len(own):
            raise ValueError(f"the state is of {len(given)} groups, this optimizer has {len(own)}")
        return [_entry(key, *each, optional) for each in zip(own, given, strict=True)]
    if isinstance(own, bool):
        return require_flag(op, key, given)
    if isinstance(own, int):
        return require_integer(op, key, given)
    if not isinstance(own, float):
        return given
    number = require_number(op, key, given)
    if not math.isfinite(number):
        raise ValueError(f"{op}: {key} must be finite, got {number}")
    return number


class _Planned(Schedule):
    """A share of the initial rate for each step, planned ahead, and an optional warm-up before the plan begins."""

    remembers = ("steps", "bases", "set_rates", "share", "warmup_share")

    def __init__(self, optimizer: SGD, warmup_steps: int, warmup_lr: float) -> None:
        super().__init__(optimizer)
        name = type(self).__name__
        self.warmup_steps = require_integer(name, "warmup_steps", warmup_steps)
        self.warmup_lr = require_number(name, "warmup_lr", warmup_lr)
        if not 0 < self.warmup_lr < math.inf or self.warmup_steps < 0:
            raise ValueError(f"{name}: warmup_lr must be > 0 and warmup_steps >= 0, got {warmup_lr}, {warmup_steps}")
        self.steps = 0
        self.bases = _rates(self)
        self.set_rates, self.share = list(self.bases), 1.0
        largest = max(self.bases)
        self.warmup_share = self.warmup_lr / largest if largest else 1.0
        self._set()

    def step(self) -> None:
        """Count one step and set the lr of the next."""
        self.steps += 1
        self._set()

    def after_step(self) -> None:
        """The same: the trainer's steps are counted."""
        self.step()

    def _planned(self, steps: int) -> float:
        raise TypeError(f"{type(self).__name__} must define _planned")

    def _set(self) -> None:
        """Set lr = base * share where the share changes, and where the warm-up ends."""
        share = self.warmup_share if self.steps < self.warmup_steps else self._planned(self.steps)
        changes = share != self.share or self.steps == self.warmup_steps
        if not changes and self.steps > self.warmup_steps:
            return
        if len(self.optimizer.groups) != len(self.bases):
            raise ValueError(
                f"{type(self).__name__}: the optimizer has {len(self.optimizer.groups)} groups, and had "
                f"{len(self.bases)} when the schedule was made; make the schedule after the groups"
            )
        self._notice()
        if changes:
            for i, group in enumerate(self.optimizer.groups):
                group["lr"] = self.set_rates[i] = self.bases[i] * share
            self.share = share

    def _notice(self) -> None:
        """A rate found other than it was set has another base; in the warm-up, to which it doesn't belong, itself."""
        share = 1.0 if self.steps <= self.warmup_steps or not self.share else self.share
        for i, rate in enumerate(_rates(self)):
            if rate != self.set_rates[i]:
                self.bases[i], self.set_rates[i] = rate / share, rate


class MultiStepLR(_Planned):
    """lr times ``factor`` at each milestone, with an optional warm-up; call ``step()`` after each iteration (or epoch).

    With milestones (32000, 48000) steps 0 .. 31,999 use the initial lr, 32,000 .. 47,999 a tenth of it, the rest a
    hundredth: He et al. 2015, section 4.2 (Caffe's "multistep"). ``warmup_steps`` steps at ``warmup_lr`` come first:
    the paper trains 110 layers at 0.01 for about 400 iterations before 0.1. (Of several groups, the one with the
    largest lr has ``warmup_lr``, and the others keep their proportions.) A rate that is set by hand during the warm-up
    holds until its end and is then the one that the factors multiply.

    Raises ValueError unless milestones increase and ``factor`` and ``warmup_lr`` are positive, TypeError for milestones
    that aren't integers.

    >>> schedule = optim.MultiStepLR(sgd, [32_000, 48_000], warmup_steps=400)
    """

    shows = ("steps", "milestones", "factor")

    def __init__(
        self,
        optimizer: SGD,
        milestones: Iterable[int],
        *,
        factor: float = 0.1,
        warmup_steps: int = 0,
        warmup_lr: float = 0.01,
    ) -> None:
        if not isinstance(milestones, Iterable):
            raise TypeError(f"MultiStepLR: milestones must be a list of steps, got {milestones!r}")
        self.milestones = [require_integer("MultiStepLR", "a milestone", milestone) for milestone in milestones]
        if self.milestones != sorted(set(self.milestones)) or (self.milestones and self.milestones[0] < 1):
            raise ValueError(f"MultiStepLR: milestones must be increasing positive steps, got {self.milestones}")
        self.factor = require_number("MultiStepLR", "factor", factor)
        if not 0 < self.factor < math.inf:
            raise ValueError(f"MultiStepLR: factor must be > 0, got {factor}")
        super().__init__(optimizer, warmup_steps, warmup_lr)

    def _planned(self, steps: int) -> float:
        return self.factor ** bisect.bisect_right(self.milestones, steps)


class CosineLR(_Planned):
    """lr along half a cosine from its initial value down to ``least`` times that, reached after ``total_steps``.

    Step t uses lr (least + (1 - least) (1 + cos(pi t / T)) / 2): Loshchilov and Hutter 2016 (SGDR), eq. 5, without
    restarts. ``warmup_steps`` steps at ``warmup_lr`` come first, as in :class:`MultiStepLR`; t and T count from their
    end. Afterwards the rate stays. Call ``step()`` after each iteration (or epoch).

    Raises ValueError unless ``warmup_steps`` < ``total_steps`` and ``least`` is in [0, 1].

    >>> schedule = optim.CosineLR(sgd, total_steps=epochs * len(loader))
    """

    shows = ("steps", "total_steps", "least")

    def __init__(
        self,
        optimizer: SGD,
        total_steps: int,
        *,
        least: float = 0.0,
        warmup_steps: int = 0,
        warmup_lr: float = 0.01,
    ) -> None:
        self.total_steps = require_integer("CosineLR", "total_steps", total_steps)
        self.least = require_number("CosineLR", "least", least, least=0, most=1)
        if self.total_steps <= max(0, require_integer("CosineLR", "warmup_steps", warmup_steps)):
            raise ValueError(f"CosineLR: total_steps must be positive and above warmup_steps, got {total_steps}, "
                             f"{warmup_steps}")  # fmt: skip
        super().__init__(optimizer, warmup_steps, warmup_lr)

    def _planned(self, steps: int) -> float:
        done = min((steps - self.warmup_steps) / (self.total_steps - self.warmup_steps), 1.0)
        return self.least + (1 - self.least) * (1 + math.cos(math.pi * done)) / 2


class ReduceLROnPlateau(Schedule):
    """lr times ``factor`` when an error stops falling: "divided by 10 when the error plateaus" (He et al. 2015).

    Call ``step(error)`` after each evaluation. An error counts as better when it is below the best by more than
    ``threshold`` times the best's size; with ``mode="max"``, for an accuracy, when it is above it by that. When more
    than ``patience`` evaluations in a row weren't better, lr is reduced, but not below ``min_lr``: a rate that is lower
    already stays. Raises ValueError unless 0 < factor < 1, patience, threshold and min_lr are at least 0 and mode is
    "min" or "max"; ``step`` raises it for a NaN.

    >>> schedule = optim.ReduceLROnPlateau(sgd, patience=5)
    """

    remembers = ("best", "waited")
    optional = ("best",)
    shows = ("best", "waited", "patience", "factor")

    def __init__(
        self,
        optimizer: SGD,
        *,
        mode: Literal["min", "max"] = "min",
        factor: float = 0.1,
        patience: int = 10,
        threshold: float = 1e-4,
        min_lr: float = 0.0,
    ) -> None:
        super().__init__(optimizer)
        name = "ReduceLROnPlateau"
        if mode not in ("min", "max"):
            raise ValueError(f"{name}: mode must be 'min' or 'max', got {mode!r}")
        self.mode, self.factor = mode, require_number(name, "factor", factor)
        self.patience = require_integer(name, "patience", patience)
        if not 0 < self.factor < 1 or self.patience < 0:
            raise ValueError(f"{name}: 0 < factor < 1 and patience >= 0, got {factor}, {patience}")
        self.threshold = require_number(name, "threshold", threshold, least=0)
        self.min_lr = require_number(name, "min_lr", min_lr, least=0)
        self.best: float | None = None
        self.waited = 0

    def step(self, error: float) -> None:
        """Take note of ``error`` and reduce the lr if it has stopped falling (or rising, with mode "max")."""
        error = require_number("ReduceLROnPlateau", "the error", error)
        if math.isnan(error):
            raise ValueError("ReduceLROnPlateau: the error is NaN; the training has diverged")
        if self._is_better(error):
            self.best, self.waited = error, 0
            return
        self.waited += 1
        if self.waited > self.patience:
            self.waited = 0
            for group, rate in zip(self.optimizer.groups, _rates(self), strict=True):
                group["lr"] = min(rate, max(rate * self.factor, self.min_lr))

    def after_epoch(self, error: float) -> None:
        """The same: the trainer's epochs are judged by their error in %, or, with mode "max", by what it leaves."""
        self.step(error if self.mode == "min" else 100 - error)

    def _is_better(self, error: float) -> bool:
        if self.best is None or math.isinf(self.best):
            return self.best is None or (error < self.best if self.mode == "min" else error > self.best)
        gain = self.best - error if self.mode == "min" else error - self.best
        return gain > self.threshold * abs(self.best)
