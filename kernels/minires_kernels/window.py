"""Window: the one description of a sliding window, shared by convolution, pooling, im2col and col2im.

The letters of every shape in this project:

=======  =====================================================================
N        images in the batch
C, O     input channels, output channels
H, W     input height and width
KH, KW   window height and width
SH, SW   stride; PH, PW padding (zeros on both sides); DH, DW dilation
OH, OW   output height and width
G        groups: channels c with equal c // (C / G) see each other, no others
K        rows of a column matrix, C/G * KH * KW
L        output positions, OH * OW
=======  =====================================================================
"""

from __future__ import annotations

import operator
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from types import EllipsisType
from typing import TypeAlias

Pair: TypeAlias = tuple[int, int]
LONGEST = (1 << 31) - 1
"""The largest size, stride, padding and dilation: products of two of them are still integers of 64 bits."""

PixelIndex: TypeAlias = tuple[EllipsisType, slice, slice]


def as_pair(value: int | Sequence[int], name: str, *, least: int, op: str = "Window") -> Pair:
    """``value`` as (vertical, horizontal): an int counts for both.

    Raises TypeError when it isn't one or two integers, ValueError when one of them is below ``least`` or above
    ``LONGEST``; both name ``op`` and ``name``.
    """
    if type(value) is tuple and len(value) == 2:  # by far the most usual: a layer's own
        vertical, horizontal = value
        if (
            type(vertical) is type(horizontal) is int
            and least <= vertical <= LONGEST
            and least <= horizontal <= LONGEST
        ):
            return value
    items = tuple(value) if isinstance(value, Sequence) and not isinstance(value, bytes) else (value, value)
    if len(items) != 2 or not all(is_integer(item) for item in items):
        raise TypeError(f"{op}: {name} must be an integer or a pair of integers, got {shown(value)}")
    vertical, horizontal = int(items[0]), int(items[1])
    if min(vertical, horizontal) < least:
        raise ValueError(f"{op}: {name} must be at least {least}, got {shown(value)}")
    if max(vertical, horizontal) > LONGEST:
        raise ValueError(f"{op}: {name} must be at most {LONGEST}, got {shown(value)}")
    return vertical, horizontal


def is_integer(value: object) -> bool:
    """Whether ``value`` is a whole number: Python's or NumPy's, but no boolean, which is True by mistake for 1."""
    if isinstance(value, bool) or not hasattr(value, "__index__"):
        return False
    try:
        operator.index(value)  # an array has the method too, and raises
    except TypeError:
        return False
    return True


def shown(value: object) -> str:
    """``value`` as an error message shows it: as it is written, on one line of sensible length."""
    text = " ".join(repr(value).split())
    return text if len(text) <= 80 else f"{text[:60]} ... ({type(value).__name__})"


@dataclass(frozen=True, slots=True)
class Window:
    """A window of ``size`` (KH, KW) that moves by ``stride`` over an image with ``padding`` zeros on each side.

    ``dilation`` is the distance between neighbouring taps. Build it with :meth:`of`, which accepts plain integers.
    """

    size: Pair
    stride: Pair = (1, 1)
    padding: Pair = (0, 0)
    dilation: Pair = (1, 1)

    def __post_init__(self) -> None:
        """Raises ValueError for what no window can be: compiled loops divide by strides, and count with 64 bits."""
        try:
            numbers: tuple[int, ...] = (*self.size, *self.stride, *self.dilation, *self.padding)
        except TypeError:
            numbers = ()
        integers = len(numbers) == 8 and set(map(type, numbers)) == {int}
        if not integers or min(numbers[:6]) < 1 or min(numbers) < 0 or max(numbers) > LONGEST:
            raise ValueError(
                f"Window: sizes, strides and dilations are pairs of integers from 1 to {LONGEST}, paddings from 0 on; "
                f"got kernel_size {self.size}, stride {self.stride}, padding {self.padding}, dilation {self.dilation}; "
                "Window.of takes plain integers too"
            )

    @classmethod
    def of(
        cls,
        size: int | Sequence[int],
        *,
        stride: int | Sequence[int] = 1,
        padding: int | Sequence[int] = 0,
        dilation: int | Sequence[int] = 1,
        op: str = "Window",
    ) -> Window:
        """A Window from integers or pairs.

        Raises TypeError or ValueError, naming ``op``, for anything but positive sizes, strides and dilations
        and non-negative paddings.
        """
        return cls(
            as_pair(size, "kernel_size", least=1, op=op),
            as_pair(stride, "stride", least=1, op=op),
            as_pair(padding, "padding", least=0, op=op),
            as_pair(dilation, "dilation", least=1, op=op),
        )

    @property
    def span(self) -> Pair:
        """Rows and columns that one window covers: D (K - 1) + 1."""
        (KH, KW), (DH, DW) = self.size, self.dilation
        return DH * (KH - 1) + 1, DW * (KW - 1) + 1

    def output_size(self, H: int, W: int, *, ceil_mode: bool = False, op: str = "Window") -> Pair:
        """Output rows and columns over an (H, W) image: O = floor((I + 2P - D (K - 1) - 1) / S) + 1 for each axis.

        (Dumoulin and Visin 2016, relationship 15.) With ``ceil_mode`` the division rounds up, but a window that would
        start beyond the image and its left padding is dropped, as in PyTorch and Caffe.

        Raises ValueError when the padded image is smaller than the window.
        """
        return self._positions(0, H, W, ceil_mode, op), self._positions(1, H, W, ceil_mode, op)

    def _positions(self, axis: int, H: int, W: int, ceil_mode: bool, op: str) -> int:
        length = (H, W)[axis]
        room = length + 2 * self.padding[axis] - self.span[axis]
        if room < 0:
            padded = (H + 2 * self.padding[0], W + 2 * self.padding[1])
            raise ValueError(
                f"{op}: the padded input {padded} is smaller than the window, which covers {self.span}; "
                f"input (H, W) = {(H, W)}, kernel_size {self.size}, padding {self.padding}, dilation {self.dilation}; "
                "use a smaller kernel or dilation, or more padding"
            )
        stride = self.stride[axis]
        if not ceil_mode:
            return room // stride + 1
        positions = -(-room // stride) + 1
        if (positions - 1) * stride >= length + self.padding[axis]:
            positions -= 1
        return positions

    def taps(self, OH: int, OW: int) -> Iterator[tuple[int, int, PixelIndex]]:
        """(i, j, pixels) for each tap in row order: ``padded[pixels]`` are the OH x OW pixels that tap (i, j) meets.

        ``padded`` is the image with its padding; for ``ceil_mode`` it must reach as far as the last window does.
        """
        (KH, KW), (SH, SW), (DH, DW) = self.size, self.stride, self.dilation
        for i in range(KH):
            for j in range(KW):
                rows = slice(i * DH, i * DH + (OH - 1) * SH + 1, SH)
                yield i, j, (..., rows, slice(j * DW, j * DW + (OW - 1) * SW + 1, SW))

    def __str__(self) -> str:
        parts = ["x".join(map(str, self.size))]
        for name, value, usual in (
            ("stride", self.stride, (1, 1)),
            ("padding", self.padding, (0, 0)),
            ("dilation", self.dilation, (1, 1)),
        ):
            if value != usual:
                parts.append(f"{name} {value[0]}" if value[0] == value[1] else f"{name} {value}")
        return ", ".join(parts)
