"""Optimizers and their schedules."""

from minires.optim.schedules import MultiStepLR, ReduceLROnPlateau
from minires.optim.sgd import SGD, decay_groups

__all__ = ["SGD", "MultiStepLR", "ReduceLROnPlateau", "decay_groups"]
