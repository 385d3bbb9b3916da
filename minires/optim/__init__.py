"""Optimizers and their schedules."""

from minires.optim.schedules import CosineLR, MultiStepLR, ReduceLROnPlateau, Schedule
from minires.optim.sgd import SGD, decay_groups

__all__ = ["SGD", "CosineLR", "MultiStepLR", "ReduceLROnPlateau", "Schedule", "decay_groups"]
