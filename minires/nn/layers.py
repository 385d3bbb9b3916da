"""The layers of residual nets, with PyTorch's constructor and parameter names. Weights are drawn from a passed rng."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

from minires import functional
from minires.arguments import require_flag, require_generator, require_integer, require_number
from minires.functional.checks import refuse_inplace, require_addressable
from minires.nn.initializers import Fan, he_normal
from minires.nn.module import Module
from minires.tensor import Parameter, Tensor
from minires_kernels.window import as_pair


class Conv2d(Module):
    """:func:`minires.functional.conv2d` with its weight (O, C/groups, KH, KW), He-normal, and bias (O,) or none.

    ``padding``: numbers, or ``"same"`` or ``"valid"`` as there.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | Sequence[int],
        stride: int | Sequence[int] = 1,
        padding: int | Sequence[int] | str = 0,
        dilation: int | Sequence[int] = 1,
        groups: int = 1,
        bias: bool = True,
        *,
        rng: np.random.Generator,
        fan: Fan = "fan_in",
    ) -> None:
        size = as_pair(kernel_size, "kernel_size", least=1, op="Conv2d")
        counts = {"in_channels": in_channels, "out_channels": out_channels, "groups": groups}
        in_channels, out_channels, groups = (require_integer("Conv2d", *count) for count in counts.items())
        if min(in_channels, out_channels, groups) < 1 or in_channels % groups or out_channels % groups:
            raise ValueError(
                f"Conv2d: groups must be a positive divisor of both channel counts, got in_channels = {in_channels}, "
                f"out_channels = {out_channels}, groups = {groups}"
            )
        self.in_channels, self.out_channels, self.kernel_size = in_channels, out_channels, size
        self.stride = as_pair(stride, "stride", least=1, op="Conv2d")
        self.padding: Any = padding
        if not isinstance(padding, str):
            self.padding = as_pair(padding, "padding", least=0, op="Conv2d")
        elif padding not in ("same", "valid"):
            raise ValueError(f"Conv2d: padding must be numbers, 'same' or 'valid', got {padding!r}")
        elif padding == "same" and self.stride != (1, 1):
            raise ValueError(
                f"Conv2d: padding='same' is for stride 1, got stride {self.stride}; give padding as numbers"
            )
        self.dilation = as_pair(dilation, "dilation", least=1, op="Conv2d")
        self.groups = groups
        require_flag("Conv2d", "bias", bias)
        shape = (out_channels, in_channels // groups, *size)
        require_addressable("Conv2d", shape, np.float64)
        self.weight = Parameter(he_normal(shape, rng=rng, fan=fan))
        self.bias = Parameter(np.zeros(out_channels, np.float32)) if bias else None

    def forward(self, x: Tensor) -> Tensor:
        """(N, in_channels, H, W) -> (N, out_channels, OH, OW)."""
        return functional.conv2d(
            x,
            self.weight,
            self.bias,
            stride=self.stride,
            padding=self.padding,
            dilation=self.dilation,
            groups=self.groups,
        )

    def configuration(self) -> str:
        """The channels, the kernel and what isn't at its default."""
        usual = {"padding": (0, 0), "dilation": (1, 1), "groups": 1}
        special = [f", {name}={getattr(self, name)!r}" for name, value in usual.items() if getattr(self, name) != value]
        without = "" if self.bias is not None else ", bias=False"
        return (
            f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}, stride={self.stride}"
            f"{''.join(special)}{without}"
        )


class _BatchNorm(Module):
    """What batch norm is whatever it normalizes: its parameters, its statistics and which of them it uses."""

    _forms: ClassVar[dict[int, str]]

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = True,
        track_running_stats: bool = True,
    ) -> None:
        name = type(self).__name__
        if require_integer(name, "num_features", num_features) < 1:
            raise ValueError(f"{name}: num_features must be at least 1, got {num_features}")
        require_addressable(name, (num_features,), np.float32)
        eps = require_number(name, "eps", eps, least=0)
        momentum = None if momentum is None else require_number(name, "momentum", momentum, least=0, most=1)
        for flag, value in (("affine", affine), ("track_running_stats", track_running_stats)):
            require_flag(name, flag, value)
        self.num_features, self.eps, self.momentum = num_features, eps, momentum
        self.affine, self.track_running_stats = affine, track_running_stats
        self.weight = Parameter(np.ones(num_features, np.float32)) if affine else None
        self.bias = Parameter(np.zeros(num_features, np.float32)) if affine else None
        self.running_mean = np.zeros(num_features, np.float32) if track_running_stats else None
        self.running_var = np.ones(num_features, np.float32) if track_running_stats else None
        self.num_batches_tracked = np.zeros((), np.int64) if track_running_stats else None

    def forward(self, x: Tensor, *, plus: Tensor | None = None, relu: bool = False) -> Tensor:
        """A batch of the class's shape -> the same shape.

        ``relu=True`` computes relu(bn(x) + plus) in one fused step: what follows a convolution in a residual block.
        ``plus``, the shortcut, may be absent; without ``relu`` there is nothing to fuse, so it isn't taken.
        """
        if plus is not None and not relu:
            raise ValueError(
                f"{type(self).__name__}: plus is added in front of the ReLU, so it needs relu=True; else write "
                "bn(x) + y"
            )
        if isinstance(x, Tensor) and x.ndim not in self._forms:
            forms = " or ".join(self._forms.values())
            raise ValueError(f"{type(self).__name__}: x must be {forms}, got shape {x.shape}")
        state = self.running_mean, self.running_var, self.weight, self.bias
        own = self.training or self.running_mean is None  # without running statistics, the batch's own serve always
        options: dict[str, Any] = {"training": own, "momentum": self._share(), "eps": self.eps}
        if relu:
            y = functional.batch_norm_relu(x, *state, plus, **options)
        else:
            y = functional.batch_norm(x, *state, **options)
        if self.training and self.num_batches_tracked is not None:
            self.num_batches_tracked += 1
        return y

    def _share(self) -> float:
        """The share of this batch in the running statistics: without momentum, that of each batch until now."""
        if self.momentum is not None or self.num_batches_tracked is None:
            return 0.0 if self.momentum is None else self.momentum
        return 1 / (int(self.num_batches_tracked) + 1)

    def configuration(self) -> str:
        """The number of channels, and the settings that aren't at their defaults."""
        usual = {"eps": 1e-5, "momentum": 0.1, "affine": True, "track_running_stats": True}
        special = [f", {name}={getattr(self, name)!r}" for name, value in usual.items() if getattr(self, name) != value]
        return f"{self.num_features}{''.join(special)}"


class BatchNorm2d(_BatchNorm):
    """:func:`minires.functional.batch_norm` of images (N, C, H, W).

    It has a weight (1) and a bias (0), without ``affine`` neither; a running mean (0) and variance (1), all (C,), and
    the number of batches in them, without ``track_running_stats`` none: then the batch's own statistics are used in
    evaluation too. ``momentum`` is the share of the new batch in the running statistics; with None they are the mean
    over all batches until now.
    """

    _forms: ClassVar[dict[int, str]] = {4: "(N, C, H, W)"}


class BatchNorm1d(_BatchNorm):
    """The same for (N, C) or series (N, C, L)."""

    _forms: ClassVar[dict[int, str]] = {2: "(N, C)", 3: "(N, C, L)"}


class Linear(Module):
    """:func:`minires.functional.linear` with its weight (out, in), He-normal, and bias (out,), 0 or absent."""

    def __init__(
        self, in_features: int, out_features: int, bias: bool = True, *, rng: np.random.Generator, fan: Fan = "fan_in"
    ) -> None:
        for name, value in (("in_features", in_features), ("out_features", out_features)):
            require_integer("Linear", name, value)
        require_flag("Linear", "bias", bias)
        if min(in_features, out_features) < 1:
            raise ValueError(
                f"Linear: in_features and out_features must be at least 1, got {in_features}, {out_features}"
            )
        self.in_features, self.out_features = in_features, out_features
        require_addressable("Linear", (out_features, in_features), np.float64)
        self.weight = Parameter(he_normal((out_features, in_features), rng=rng, fan=fan))
        self.bias = Parameter(np.zeros(out_features, np.float32)) if bias else None

    def forward(self, x: Tensor) -> Tensor:
        """(N, in_features) -> (N, out_features)."""
        return functional.linear(x, self.weight, self.bias)

    def configuration(self) -> str:
        """The numbers of features, and whether the bias is missing."""
        without = "" if self.bias is not None else ", bias=False"
        return f"in_features={self.in_features}, out_features={self.out_features}{without}"


class ReLU(Module):
    """max(x, 0). ``inplace`` is there for those who know it from PyTorch: True is refused, with the reason."""

    def __init__(self, inplace: bool = False) -> None:
        refuse_inplace("ReLU", inplace)

    def forward(self, x: Tensor) -> Tensor:
        """Any shape -> the same."""
        return functional.relu(x)


class Dropout(Module):
    """:func:`minires.functional.dropout`; active in training only. ``inplace`` is refused, as by :class:`ReLU`."""

    def __init__(self, p: float = 0.5, inplace: bool = False, *, rng: np.random.Generator) -> None:
        refuse_inplace("Dropout", inplace)
        self.p = require_number("Dropout", "p", p, least=0, most=1)
        self._rng = require_generator("Dropout", rng)

    def forward(self, x: Tensor) -> Tensor:
        """Any shape -> the same."""
        return functional.dropout(x, self.p, training=self.training, rng=self._rng)


class MaxPool2d(Module):
    """:func:`minires.functional.max_pool2d`; stride defaults to kernel_size.

    ``ceil_mode`` is given by name: in its place PyTorch has ``return_indices``, which only the function takes.
    """

    def __init__(
        self,
        kernel_size: int | Sequence[int],
        stride: int | Sequence[int] | None = None,
        padding: int | Sequence[int] = 0,
        dilation: int | Sequence[int] = 1,
        *,
        ceil_mode: bool = False,
    ) -> None:
        self.kernel_size, self.stride, self.padding = kernel_size, kernel_size if stride is None else stride, padding
        self.dilation, self.ceil_mode = dilation, ceil_mode

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C, OH, OW)."""
        return functional.max_pool2d(
            x, self.kernel_size, self.stride, self.padding, self.dilation, ceil_mode=self.ceil_mode
        )


class AvgPool2d(Module):
    """:func:`minires.functional.avg_pool2d`; stride defaults to kernel_size."""

    def __init__(
        self,
        kernel_size: int | Sequence[int],
        stride: int | Sequence[int] | None = None,
        padding: int | Sequence[int] = 0,
        ceil_mode: bool = False,
        count_include_pad: bool = True,
    ) -> None:
        self.kernel_size, self.stride, self.padding = kernel_size, kernel_size if stride is None else stride, padding
        self.ceil_mode, self.count_include_pad = ceil_mode, count_include_pad

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C, OH, OW)."""
        options: dict[str, Any] = {"ceil_mode": self.ceil_mode, "count_include_pad": self.count_include_pad}
        return functional.avg_pool2d(x, self.kernel_size, stride=self.stride, padding=self.padding, **options)


class AdaptiveAvgPool2d(Module):
    """:func:`minires.functional.adaptive_avg_pool2d`; output_size 1 is global average pooling."""

    def __init__(self, output_size: int | Sequence[int]) -> None:
        self.output_size = output_size

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C, OH, OW)."""
        return functional.adaptive_avg_pool2d(x, self.output_size)


class Flatten(Module):
    """The axes from ``start_dim`` to ``end_dim`` (inclusive) merged into one: by default all but the first."""

    def __init__(self, start_dim: int = 1, end_dim: int = -1) -> None:
        self.start_dim, self.end_dim = start_dim, end_dim

    def forward(self, x: Tensor) -> Tensor:
        """(N, ...) -> (N, features)."""
        return x.flatten(self.start_dim, self.end_dim)


class Identity(Module):
    """What goes in comes out: the shortcut of a residual block."""

    def forward(self, x: Tensor) -> Tensor:
        """Any shape -> the same tensor."""
        return x
