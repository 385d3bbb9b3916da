"""Learning-rate schedules: each changes ``lr`` in the groups of an optimizer while it trains."""

from __future__ import annotations

import bisect
import math
from collections.abc import Iterable, Mapping
from typing import Any, Literal

from minires.arguments import require_integer, require_number
from minires.display import brief
from minires.optim.sgd import SGD


class Schedule:
    """What all schedules share: subclass it and write :meth:`after_step` or :meth:`after_epoch`.

    The trainer calls both. What has to be remembered from call to call stands, by the names of the attributes, in
    ``remembers``: :meth:`state_dict` saves it. A rate that is set by hand (``optimizer.groups[0]["lr"] = 0.01``)
    counts from then on: every schedule here goes on from what it finds.
    """

    remembers: tuple[str, ...] = ()
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

        Raises ValueError, before any change, when it is the state of another schedule or of another number of groups.
        """
        own = self.state_dict()
        name = own["schedule"]
        if not isinstance(state, Mapping) or set(state) != set(own) or state["schedule"] != name:
            given = state.get("schedule") if isinstance(state, Mapping) else type(state).__name__
            raise ValueError(f"{name}: the state is of {given}, not of a {name}, or has other entries than "
                             f"{', '.join(own)}")  # fmt: skip
        for key, value in own.items():
            if isinstance(value, list) and len(state[key]) != len(value):
                raise ValueError(f"{name}: the state is of {len(state[key])} groups, this optimizer has {len(value)}")
        for key in self.remembers:
            setattr(self, key, list(state[key]) if isinstance(own[key], list) else state[key])


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
        self.bases = [float(group["lr"]) for group in optimizer.groups]
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
        """Set lr = base * share where the share changes; a rate found other than it was set has another base."""
        warms_up = self.steps < self.warmup_steps
        share = self.warmup_share if warms_up else self._planned(self.steps)
        if share == self.share:
            return
        if len(self.optimizer.groups) != len(self.bases):
            raise ValueError(
                f"{type(self).__name__}: the optimizer has {len(self.optimizer.groups)} groups, and had "
                f"{len(self.bases)} when the schedule was made; make the schedule after the groups"
            )
        for i, group in enumerate(self.optimizer.groups):
            if group["lr"] != self.set_rates[i]:
                self.bases[i] = group["lr"] / self.share if self.share else group["lr"]
            group["lr"] = self.set_rates[i] = self.bases[i] * share
        self.share = share


class MultiStepLR(_Planned):
    """lr times ``factor`` at each milestone, with an optional warm-up; call ``step()`` after each iteration (or epoch).

    With milestones (32000, 48000) steps 0 .. 31,999 use the initial lr, 32,000 .. 47,999 a tenth of it, the rest a
    hundredth: He et al. 2015, section 4.2 (Caffe's "multistep"). ``warmup_steps`` steps at ``warmup_lr`` come first:
    the paper trains 110 layers at 0.01 for about 400 iterations before 0.1. (Of several groups, the one with the
    largest lr has ``warmup_lr``, and the others keep their proportions.)

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
            for group in self.optimizer.groups:
                group["lr"] = min(group["lr"], max(group["lr"] * self.factor, self.min_lr))

    def after_epoch(self, error: float) -> None:
        """The same: the trainer's epochs are judged by their error in %, or, with mode "max", by what it leaves."""
        self.step(error if self.mode == "min" else 100 - error)

    def _is_better(self, error: float) -> bool:
        if self.best is None or math.isinf(self.best):
            return self.best is None or (error < self.best if self.mode == "min" else error > self.best)
        gain = self.best - error if self.mode == "min" else error - self.best
        return gain > self.threshold * abs(self.best)
