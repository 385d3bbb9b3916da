"""What connects a block's input to its addition: the options A, B and C of He et al. 2015, sections 3.3 and 4.1."""

from __future__ import annotations

from typing import Literal

import numpy as np

from minires import functional, nn
from minires.nn.initializers import Fan
from minires.tensor import Tensor

Option = Literal["A", "B", "C"]


class SubsampleAndPad(nn.Module):
    """Option A where dimensions change: every stride-th pixel, zeros for the new channels; no parameters."""

    def __init__(self, channels: int, stride: int) -> None:
        self.channels, self.stride = channels, stride

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, channels, ceil(H/stride), ceil(W/stride))."""
        return functional.subsample_and_pad(x, self.channels, self.stride)


def make_shortcut(
    option: Option,
    in_channels: int,
    out_channels: int,
    stride: int,
    *,
    normalized: bool,
    rng: np.random.Generator,
    fan: Fan = "fan_in",
) -> nn.Module:
    """The shortcut of one block.

    A: identity, with zeros for new channels. B: a 1x1 convolution where dimensions change, identity elsewhere (eq. 2).
    C: a 1x1 convolution always. ``normalized`` puts a batch norm behind it (2015: yes; pre-activation nets: no).
    Raises ValueError for another option, and for A when channels get fewer.
    """
    if option not in ("A", "B", "C"):
        raise ValueError(f"shortcut: option must be 'A', 'B' or 'C', got {option!r}")
    changes = in_channels != out_channels or stride != 1
    if option == "C" or (option == "B" and changes):
        projection = nn.Conv2d(in_channels, out_channels, 1, stride=stride, bias=False, rng=rng, fan=fan)
        return nn.Sequential(projection, nn.BatchNorm2d(out_channels)) if normalized else nn.Sequential(projection)
    if not changes:
        return nn.Identity()
    if out_channels < in_channels:
        raise ValueError(f"shortcut: option A can't go from {in_channels} to {out_channels} channels; use option 'B'")
    return SubsampleAndPad(out_channels, stride)
