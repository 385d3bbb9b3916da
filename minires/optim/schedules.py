"""Learning-rate schedules: each changes ``lr`` in the groups of an optimizer when its ``step`` is called."""

from __future__ import annotations

import bisect
from collections.abc import Sequence

from minires.display import brief
from minires.optim.sgd import SGD


class MultiStepLR:
    """lr times ``factor`` at each milestone, with an optional warm-up; call ``step()`` after each iteration (or epoch).

    With milestones (32000, 48000) steps 0 .. 31,999 use the initial lr, 32,000 .. 47,999 a tenth of it, the rest a
    hundredth: He et al. 2015, section 4.2 (Caffe's "multistep"). ``warmup_steps`` steps at ``warmup_lr`` come first:
    the paper trains 110 layers at 0.01 for about 400 iterations before 0.1.

    Raises ValueError unless milestones increase and ``factor`` and ``warmup_lr`` are positive.
    """

    def __init__(
        self,
        optimizer: SGD,
        milestones: Sequence[int],
        *,
        factor: float = 0.1,
        warmup_steps: int = 0,
        warmup_lr: float = 0.01,
    ) -> None:
        if list(milestones) != sorted(set(milestones)) or (milestones and milestones[0] < 1):
            raise ValueError(f"MultiStepLR: milestones must be increasing positive steps, got {list(milestones)}")
        if factor <= 0 or warmup_lr <= 0 or warmup_steps < 0:
            raise ValueError(f"MultiStepLR: factor and warmup_lr must be > 0, warmup_steps >= 0, "
                             f"got {factor}, {warmup_lr}, {warmup_steps}")  # fmt: skip
        self.optimizer, self.milestones, self.factor = optimizer, list(milestones), factor
        self.warmup_steps, self.warmup_lr = warmup_steps, warmup_lr
        self._initial = [group["lr"] for group in optimizer.groups]
        self.steps = 0
        self._set()

    def __repr__(self) -> str:
        rates = _rates(self.optimizer)
        return f"MultiStepLR(step {self.steps}, lr {rates}, milestones {brief(self.milestones)}, factor {self.factor})"

    def step(self) -> None:
        """Count one step and set the lr of the next."""
        self.steps += 1
        self._set()

    def _set(self) -> None:
        scale = self.factor ** bisect.bisect_right(self.milestones, self.steps)
        for group, initial in zip(self.optimizer.groups, self._initial, strict=True):
            group["lr"] = self.warmup_lr if self.steps < self.warmup_steps else initial * scale


class ReduceLROnPlateau:
    """lr times ``factor`` when an error stops falling: "divided by 10 when the error plateaus" (He et al. 2015).

    Call ``step(error)`` after each evaluation. An error counts as better when it is below the best by more than
    ``threshold`` (relative). When more than ``patience`` evaluations in a row weren't better, lr is reduced, but not
    below ``min_lr``. Raises ValueError unless 0 < factor < 1 and patience >= 0; ``step`` raises it for a NaN.
    """

    def __init__(
        self, optimizer: SGD, *, factor: float = 0.1, patience: int = 10, threshold: float = 1e-4, min_lr: float = 0.0
    ) -> None:
        if not 0 < factor < 1 or patience < 0:
            raise ValueError(f"ReduceLROnPlateau: 0 < factor < 1 and patience >= 0, got {factor}, {patience}")
        self.optimizer, self.factor, self.patience = optimizer, factor, patience
        self.threshold, self.min_lr = threshold, min_lr
        self.best, self.waited = float("inf"), 0

    def __repr__(self) -> str:
        waited = f"waited {self.waited} of {self.patience}"
        return f"ReduceLROnPlateau(lr {_rates(self.optimizer)}, best {self.best:g}, {waited}, factor {self.factor})"

    def step(self, error: float) -> None:
        """Take note of ``error`` and reduce the lr if it has stopped falling."""
        if error != error:
            raise ValueError("ReduceLROnPlateau: the error is NaN; the training has diverged")
        if error < self.best * (1 - self.threshold):
            self.best, self.waited = error, 0
            return
        self.waited += 1
        if self.waited > self.patience:
            self.waited = 0
            for group in self.optimizer.groups:
                group["lr"] = max(group["lr"] * self.factor, self.min_lr)


def _rates(optimizer: SGD) -> str:
    """The learning rates of an optimizer's groups, each once: ``0.1`` or ``0.1, 0.01``."""
    return brief(tuple(dict.fromkeys(group["lr"] for group in optimizer.groups))).strip("(,)")
