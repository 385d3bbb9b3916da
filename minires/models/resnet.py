"""Plain and residual nets of He et al. 2015, "Deep Residual Learning for Image Recognition".

Blocks of section 3.2 and figure 5, the CIFAR-10 nets of section 4.2, the ImageNet nets of table 1. Attribute names are
torchvision's (``layer2.0.downsample.0.weight``), so that its weights fit.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from minires import nn
from minires.models.shortcuts import Option, make_shortcut
from minires.nn.initializers import Fan
from minires.tensor import Tensor


class PlainBlock(nn.Module):
    """Two 3x3 convolutions, each with batch norm and ReLU: relu(bn(conv(relu(bn(conv(x))))))."""

    expansion = 1

    def __init__(self, in_channels: int, channels: int, stride: int, *, rng: np.random.Generator, fan: Fan) -> None:
        self.conv1 = nn.Conv2d(in_channels, channels, 3, stride=stride, padding=1, bias=False, rng=rng, fan=fan)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False, rng=rng, fan=fan)
        self.bn2 = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        """(N, in_channels, H, W) -> (N, channels, H/stride, W/stride)."""
        inner = self.bn1(self.conv1(x), relu=True)
        return self.bn2(self.conv2(inner), relu=True)  # type: ignore[no-any-return]


class BasicBlock(PlainBlock):
    """The residual block: a plain block whose second ReLU comes after adding x: y = relu(F(x) + x) (eq. 1, fig. 2).

    Forward, x goes two ways: through F and past it. Backward, the gradient behind the ReLU splits at the addition into
    two equal parts; the one that passed F comes back changed, the other as it was, and where x forked they add up.
    """

    def __init__(
        self, in_channels: int, channels: int, stride: int, *, shortcut: Option, rng: np.random.Generator, fan: Fan
    ) -> None:
        super().__init__(in_channels, channels, stride, rng=rng, fan=fan)
        self.downsample = make_shortcut(shortcut, in_channels, channels, stride, normalized=True, rng=rng, fan=fan)

    def forward(self, x: Tensor) -> Tensor:
        """(N, in_channels, H, W) -> (N, channels, H/stride, W/stride)."""
        inner = self.bn1(self.conv1(x), relu=True)
        return self.bn2(self.conv2(inner), plus=self.downsample(x), relu=True)  # type: ignore[no-any-return]


class Bottleneck(nn.Module):
    """1x1 to fewer channels, 3x3, 1x1 to four times as many, and the shortcut (fig. 5, right).

    The stride lies on the first 1x1, as in the paper; ``stride_on_3x3`` moves it, as torchvision does ("v1.5").
    """

    expansion = 4

    def __init__(
        self,
        in_channels: int,
        channels: int,
        stride: int,
        *,
        shortcut: Option,
        stride_on_3x3: bool = False,
        rng: np.random.Generator,
        fan: Fan,
    ) -> None:
        first, second = (1, stride) if stride_on_3x3 else (stride, 1)
        out_channels = channels * self.expansion
        self.conv1 = nn.Conv2d(in_channels, channels, 1, stride=first, bias=False, rng=rng, fan=fan)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, stride=second, padding=1, bias=False, rng=rng, fan=fan)
        self.bn2 = nn.BatchNorm2d(channels)
        self.conv3 = nn.Conv2d(channels, out_channels, 1, bias=False, rng=rng, fan=fan)
        self.bn3 = nn.BatchNorm2d(out_channels)
        self.downsample = make_shortcut(shortcut, in_channels, out_channels, stride, normalized=True, rng=rng, fan=fan)

    def forward(self, x: Tensor) -> Tensor:
        """(N, in_channels, H, W) -> (N, 4 channels, H/stride, W/stride)."""
        inner = self.bn1(self.conv1(x), relu=True)
        inner = self.bn2(self.conv2(inner), relu=True)
        return self.bn3(self.conv3(inner), plus=self.downsample(x), relu=True)  # type: ignore[no-any-return]


def require_widths(units: Sequence[int], widths: Sequence[int]) -> None:
    """Raise ValueError unless there is a width for each stage, and all numbers are positive."""
    if len(units) != len(widths) or min(widths, default=0) < 1 or min(units, default=0) < 1:
        raise ValueError(
            f"models: needs one positive width per stage, got units {tuple(units)}, widths {tuple(widths)}"
        )


def make_stages(
    net: nn.Module,
    unit: Callable[[int, int, int, bool], nn.Module],
    expansion: int,
    in_channels: int,
    units: Sequence[int],
    widths: Sequence[int],
) -> int:
    """Give ``net`` its ``layer1``, ``layer2``, ...: ``units[i]`` blocks of ``widths[i]`` each; returns channels out.

    ``unit(in_channels, width, stride, is_first)`` makes a block; ``is_first`` marks the first of its stage, which has
    stride 2 in every stage but the first.
    """
    for stage, (count, width) in enumerate(zip(units, widths, strict=True)):
        blocks = []
        for position in range(count):
            blocks.append(unit(in_channels, width, 2 if stage and not position else 1, not position))
            in_channels = width * expansion
        setattr(net, f"layer{stage + 1}", nn.Sequential(*blocks))
    return in_channels


class ResNet(nn.Module):
    """Stem, stages of blocks, global average pooling, one linear layer.

    The CIFAR stem is a 3x3 convolution with batch norm and ReLU (section 4.2); the ImageNet stem a 7x7 one of stride 2
    followed by 3x3 max pooling of stride 2 (table 1).
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
        kernel_size, stride = (7, 2) if imagenet_stem else (3, 1)
        stem_width = 64 if imagenet_stem else widths[0]
        self.conv1 = nn.Conv2d(
            in_channels, stem_width, kernel_size, stride=stride, padding=kernel_size // 2, bias=False, rng=rng, fan=fan
        )
        self.bn1 = nn.BatchNorm2d(stem_width)
        self.maxpool = nn.MaxPool2d(3, 2, 1) if imagenet_stem else nn.Identity()
        features = make_stages(self, unit, expansion, stem_width, units, widths)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.flatten = nn.Flatten()
        self.fc = nn.Linear(features, num_classes, rng=rng, fan=fan)

    def forward(self, x: Tensor) -> Tensor:
        """(N, in_channels, H, W) -> logits (N, num_classes)."""
        x = self.maxpool(self.bn1(self.conv1(x), relu=True))
        for stage in stages(self):
            x = stage(x)
        return self.fc(self.flatten(self.avgpool(x)))  # type: ignore[no-any-return]


def stages(net: nn.Module) -> list[nn.Module]:
    """``layer1``, ``layer2``, ... of a net, in order."""
    return [child for name, child in net.named_children() if name.startswith("layer")]
