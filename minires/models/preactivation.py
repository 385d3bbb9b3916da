"""Pre-activation nets of He et al. 2016, "Identity Mappings in Deep Residual Networks".

Batch norm and ReLU come *before* each convolution, so that nothing stands between one addition and the next:
x_{l+1} = x_l + F(x_l), and with it x_L = x_l + sum of all F between (eq. 4) and
dE/dx_l = dE/dx_L (1 + d/dx_l sum F) (eq. 5): a part of the gradient reaches every block unchanged.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np

from minires import nn
from minires.models.resnet import make_stages, require_widths, stages
from minires.models.shortcuts import Option, make_shortcut
from minires.nn.initializers import Fan
from minires.tensor import Tensor

Activates = Literal["residual", "both", "nothing"]
"""What a unit's first batch norm and ReLU act on.

``residual``: the residual branch alone; the shortcut takes the raw x (fig. 1b, the rule). ``both``: the shortcut too:
the first unit of a stage, where dimensions change, and of a net, where the activation comes "right after conv1, before
splitting into two paths" (appendix). ``nothing``: x is activated already, by a stem that ends in a ReLU.
"""


class _PreActivation(nn.Module):
    """What both units share: the first activation, the shortcut and the addition."""

    downsample: nn.Module

    def _begin(self, in_channels: int, activates: Activates) -> None:
        self.activates = activates
        if activates != "nothing":
            self.bn1 = nn.BatchNorm2d(in_channels)

    def _residual(self, activated: Tensor) -> Tensor:
        raise TypeError(f"{type(self).__name__} must define _residual")

    def forward(self, x: Tensor) -> Tensor:
        """(N, in_channels, H, W) -> (N, expansion channels, H/stride, W/stride)."""
        activated = x if self.activates == "nothing" else self.bn1(x, relu=True)
        shortcut = self.downsample(x if self.activates == "residual" else activated)
        return shortcut + self._residual(activated)  # type: ignore[no-any-return]


class PreActivationBlock(_PreActivation):
    """x + conv(relu(bn(conv(relu(bn(x)))))): full pre-activation, fig. 4e."""

    expansion = 1

    def __init__(
        self,
        in_channels: int,
        channels: int,
        stride: int,
        *,
        shortcut: Option,
        activates: Activates = "residual",
        rng: np.random.Generator,
        fan: Fan,
    ) -> None:
        self._begin(in_channels, activates)
        self.conv1 = nn.Conv2d(in_channels, channels, 3, stride=stride, padding=1, bias=False, rng=rng, fan=fan)
        self.bn2 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False, rng=rng, fan=fan)
        self.downsample = make_shortcut(shortcut, in_channels, channels, stride, normalized=False, rng=rng, fan=fan)

    def _residual(self, activated: Tensor) -> Tensor:
        return self.conv2(self.bn2(self.conv1(activated), relu=True))  # type: ignore[no-any-return]


class PreActivationBottleneck(_PreActivation):
    """The same with three convolutions: 1x1 (which has the stride, as in the authors' code), 3x3, 1x1 to 4x as many."""

    expansion = 4

    def __init__(
        self,
        in_channels: int,
        channels: int,
        stride: int,
        *,
        shortcut: Option,
        activates: Activates = "residual",
        rng: np.random.Generator,
        fan: Fan,
    ) -> None:
        self._begin(in_channels, activates)
        out_channels = channels * self.expansion
        self.conv1 = nn.Conv2d(in_channels, channels, 1, stride=stride, bias=False, rng=rng, fan=fan)
        self.bn2 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False, rng=rng, fan=fan)
        self.bn3 = nn.BatchNorm2d(channels)
        self.conv3 = nn.Conv2d(channels, out_channels, 1, bias=False, rng=rng, fan=fan)
        self.downsample = make_shortcut(shortcut, in_channels, out_channels, stride, normalized=False, rng=rng, fan=fan)

    def _residual(self, activated: Tensor) -> Tensor:
        inner = self.conv2(self.bn2(self.conv1(activated), relu=True))
        return self.conv3(self.bn3(inner, relu=True))  # type: ignore[no-any-return]


class PreActivationResNet(nn.Module):
    """Stem, stages of pre-activation units, a last batch norm and ReLU, global average pooling, one linear layer.

    The CIFAR stem is a bare 3x3 convolution: its batch norm and ReLU are the first unit's. The ImageNet stem is the
    original one, and ends in an activation of its own.
    """

    def __init__(
        self,
        unit: Callable[[int, int, int, bool], nn.Module],
        expansion: int,
        units: Sequence[int],
        widths: Sequence[int],
        *,
        imagenet_stem: bool,
        num_classes: int,
        in_channels: int,
        rng: np.random.Generator,
        fan: Fan,
    ) -> None:
        require_widths(units, widths)
        self.imagenet_stem = imagenet_stem
        kernel_size, stride, stem_width = (7, 2, 64) if imagenet_stem else (3, 1, 16 if expansion > 1 else widths[0])
        self.conv1 = nn.Conv2d(
            in_channels, stem_width, kernel_size, stride=stride, padding=kernel_size // 2, bias=False, rng=rng, fan=fan
        )
        if imagenet_stem:
            self.bn1 = nn.BatchNorm2d(stem_width)
            self.maxpool = nn.MaxPool2d(3, 2, 1)
        features = make_stages(self, unit, expansion, stem_width, units, widths)
        self.bn_last = nn.BatchNorm2d(features)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.flatten = nn.Flatten()
        self.fc = nn.Linear(features, num_classes, rng=rng, fan=fan)

    def forward(self, x: Tensor) -> Tensor:
        """(N, in_channels, H, W) -> logits (N, num_classes)."""
        x = self.conv1(x)
        if self.imagenet_stem:
            x = self.maxpool(self.bn1(x, relu=True))
        for stage in stages(self):
            x = stage(x)
        return self.fc(self.flatten(self.avgpool(self.bn_last(x, relu=True))))  # type: ignore[no-any-return]
