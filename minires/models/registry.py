"""Models by name: ``plain20``, ``resnet56``, ``preact_resnet110``, ``resnet18``, ``resnet50``, ...

A name is a kind and a depth. 18, 34, 50, 101, 152 and 200 are ImageNet nets (table 1 of the 2015 paper); 164 and 1001
are CIFAR nets of bottlenecks (9n + 2 layers, 2016); every other depth of the form 6n + 2 is a CIFAR net of two-layer
blocks (2015, section 4.2).
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from minires import nn
from minires.models.preactivation import Activates, PreActivationBlock, PreActivationBottleneck, PreActivationResNet
from minires.models.resnet import BasicBlock, Bottleneck, PlainBlock, ResNet
from minires.models.shortcuts import Option
from minires.nn.initializers import Fan
from minires_kernels.window import shown

IMAGENET_UNITS = {
    18: (2, 2, 2, 2),
    34: (3, 4, 6, 3),
    50: (3, 4, 6, 3),
    101: (3, 4, 23, 3),
    152: (3, 8, 36, 3),
    200: (3, 24, 36, 3),
}
CIFAR_BOTTLENECKS = (164, 1001)
KINDS = ("plain", "resnet", "preact_resnet")


def names() -> list[str]:
    """The nets that the papers train, by name; ``create`` also takes every other 6n + 2 depth."""
    cifar = {"plain": (20, 32, 44, 56, 110), "resnet": (20, 32, 44, 56, 110, 164, 1001, 1202)}
    cifar["preact_resnet"] = (20, 32, 44, 56, 110, 164, 1001)
    imagenet = {"plain": (18, 34), "resnet": tuple(IMAGENET_UNITS), "preact_resnet": tuple(IMAGENET_UNITS)}
    return [f"{kind}{depth}" for kind in KINDS for depth in (*cifar[kind], *imagenet[kind])]


def create(
    name: str,
    *,
    num_classes: int | None = None,
    in_channels: int = 3,
    widths: Sequence[int] | None = None,
    shortcut: Option | None = None,
    stride_on_3x3: bool = False,
    rng: np.random.Generator | None = None,
    fan: Fan = "fan_in",
) -> nn.Module:
    """A net by name, float32, with He-normal weights drawn from ``rng`` (default: a generator seeded with 0).

    ``num_classes``: default 10 for CIFAR nets, 1000 for ImageNet nets. ``widths``: channels of each stage, default the
    paper's. ``shortcut``: option "A", "B" or "C", default A for CIFAR nets of two-layer blocks, else B.
    ``stride_on_3x3``: for bottleneck ResNets only, torchvision's variant. ``fan``: "fan_in" or "fan_out".

    Raises ValueError, with the nearest valid names, for an unknown name or depth, and for options that don't apply;
    TypeError for a name that is no text.
    """
    if not isinstance(name, str):
        raise TypeError(f"models.create: name must be a text such as 'resnet20', got {shown(name)}")
    match = re.fullmatch(r"(plain|resnet|preact_resnet)(\d+)", name)
    depth = int(match[2]) if match else 0
    if match is None or not _exists(match[1], depth):
        close = difflib.get_close_matches(name, names(), n=3, cutoff=0.5) or names()
        raise ValueError(
            f"models.create: there is no model {name!r}; the nearest: {', '.join(close)} "
            "(CIFAR nets exist for every depth 6n + 2)"
        )
    kind, imagenet = match[1], depth in IMAGENET_UNITS
    bottleneck = depth >= 50 if imagenet else depth in CIFAR_BOTTLENECKS
    for refused, given, applies in (
        ("shortcut", shortcut is not None, kind != "plain"),
        ("stride_on_3x3", stride_on_3x3, bottleneck and kind == "resnet"),
    ):
        if given and not applies:
            raise ValueError(f"models.create: {name} has no option {refused}")
    option: Option = shortcut or ("B" if imagenet or bottleneck else "A")
    rng = np.random.default_rng(0) if rng is None else rng
    units = IMAGENET_UNITS[depth] if imagenet else ((depth - 2) // (9 if bottleneck else 6),) * 3
    settings: dict[str, Any] = {"rng": rng, "fan": fan}

    def unit(in_channels: int, width: int, stride: int, is_first: bool) -> nn.Module:
        if kind == "plain":
            return PlainBlock(in_channels, width, stride, **settings)
        if kind == "resnet" and bottleneck:
            return Bottleneck(in_channels, width, stride, shortcut=option, stride_on_3x3=stride_on_3x3, **settings)
        if kind == "resnet":
            return BasicBlock(in_channels, width, stride, shortcut=option, **settings)
        starts_net = is_first and stride == 1  # only the first stage's first unit has stride 1
        activates: Activates = "nothing" if imagenet and starts_net else "both" if is_first else "residual"
        block = PreActivationBottleneck if bottleneck else PreActivationBlock
        return block(in_channels, width, stride, shortcut=option, activates=activates, **settings)

    net = PreActivationResNet if kind == "preact_resnet" else ResNet
    default_widths = (64, 128, 256, 512) if imagenet else (16, 32, 64)
    return net(
        unit,
        4 if bottleneck else 1,
        units,
        default_widths if widths is None else widths,
        imagenet_stem=imagenet,
        num_classes=(1000 if imagenet else 10) if num_classes is None else num_classes,
        in_channels=in_channels,
        **settings,
    )


def _exists(kind: str, depth: int) -> bool:
    if depth in IMAGENET_UNITS:
        return kind != "plain" or depth < 50
    if depth in CIFAR_BOTTLENECKS:
        return kind != "plain"
    return depth >= 8 and depth % 6 == 2
