"""The nets of both residual-net papers, by class and by name."""

from minires.models.preactivation import PreActivationBlock, PreActivationBottleneck, PreActivationResNet
from minires.models.registry import IMAGENET_UNITS, create, names
from minires.models.resnet import BasicBlock, Bottleneck, PlainBlock, ResNet
from minires.models.shortcuts import SubsampleAndPad, make_shortcut

__all__ = [
    "IMAGENET_UNITS",
    "BasicBlock",
    "Bottleneck",
    "PlainBlock",
    "PreActivationBlock",
    "PreActivationBottleneck",
    "PreActivationResNet",
    "ResNet",
    "SubsampleAndPad",
    "create",
    "make_shortcut",
    "names",
]
