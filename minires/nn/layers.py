"""The layers of residual nets, with PyTorch's constructor and parameter names. Weights are drawn from a passed rng."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from minires import functional
from minires.functional.checks import refuse_inplace
from minires.nn.initializers import Fan, he_normal
from minires.nn.module import Module
from minires.tensor import Parameter, Tensor
from minires_kernels.window import as_pair


class Conv2d(Module):
    """:func:`minires.functional.conv2d` with its weight (O, C/groups, KH, KW), He-normal, and bias (O,) or none."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | Sequence[int],
        *,
        stride: int | Sequence[int] = 1,
        padding: int | Sequence[int] = 0,
        dilation: int | Sequence[int] = 1,
        groups: int = 1,
        bias: bool = True,
        rng: np.random.Generator,
        fan: Fan = "fan_in",
    ) -> None:
        size = as_pair(kernel_size, "kernel_size", least=1, op="Conv2d")
        if min(in_channels, out_channels, groups) < 1 or in_channels % groups or out_channels % groups:
            raise ValueError(
                f"Conv2d: groups must be a positive divisor of both channel counts, got in_channels = {in_channels}, "
                f"out_channels = {out_channels}, groups = {groups}"
            )
        self.in_channels, self.out_channels, self.kernel_size = in_channels, out_channels, size
        self.stride = as_pair(stride, "stride", least=1, op="Conv2d")
        self.padding = as_pair(padding, "padding", least=0, op="Conv2d")
        self.dilation = as_pair(dilation, "dilation", least=1, op="Conv2d")
        self.groups = groups
        self.weight = Parameter(he_normal((out_channels, in_channels // groups, *size), rng=rng, fan=fan))
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


class BatchNorm2d(Module):
    """:func:`minires.functional.batch_norm` with its weight (1), bias (0), running mean (0) and variance (1), all (C,).

    ``momentum`` is the share of the new batch in the running statistics.
    """

    def __init__(self, num_features: int, *, eps: float = 1e-5, momentum: float = 0.1) -> None:
        if num_features < 1:
            raise ValueError(f"BatchNorm2d: num_features must be at least 1, got {num_features}")
        self.num_features, self.eps, self.momentum = num_features, eps, momentum
        self.weight = Parameter(np.ones(num_features, np.float32))
        self.bias = Parameter(np.zeros(num_features, np.float32))
        self.running_mean = np.zeros(num_features, np.float32)
        self.running_var = np.ones(num_features, np.float32)
        self.num_batches_tracked = np.zeros((), np.int64)

    def forward(self, x: Tensor, *, plus: Tensor | None = None, relu: bool = False) -> Tensor:
        """(N, C, H, W) -> the same shape.

        ``relu=True`` computes relu(bn(x) + plus) in one fused step: what follows a convolution in a residual block.
        ``plus``, the shortcut, may be absent; without ``relu`` there is nothing to fuse, so it isn't taken.
        """
        if plus is not None and not relu:
            raise ValueError(
                "BatchNorm2d: plus is added in front of the ReLU, so it needs relu=True; else write bn(x) + y"
            )
        state = self.running_mean, self.running_var, self.weight, self.bias
        options: dict[str, Any] = {"training": self.training, "momentum": self.momentum, "eps": self.eps}
        if relu:
            y = functional.batch_norm_relu(x, *state, plus, **options)
        else:
            y = functional.batch_norm(x, *state, **options)
        if self.training:
            self.num_batches_tracked += 1
        return y


class Linear(Module):
    """:func:`minires.functional.linear` with its weight (out, in), He-normal, and bias (out,), 0 or absent."""

    def __init__(
        self, in_features: int, out_features: int, bias: bool = True, *, rng: np.random.Generator, fan: Fan = "fan_in"
    ) -> None:
        if min(in_features, out_features) < 1:
            raise ValueError(
                f"Linear: in_features and out_features must be at least 1, got {in_features}, {out_features}"
            )
        self.in_features, self.out_features = in_features, out_features
        self.weight = Parameter(he_normal((out_features, in_features), rng=rng, fan=fan))
        self.bias = Parameter(np.zeros(out_features, np.float32)) if bias else None

    def forward(self, x: Tensor) -> Tensor:
        """(N, in_features) -> (N, out_features)."""
        return functional.linear(x, self.weight, self.bias)


class ReLU(Module):
    """max(x, 0). ``inplace=True``, known from PyTorch, is refused with the reason, by a ValueError."""

    def __init__(self, inplace: bool = False) -> None:
        refuse_inplace("ReLU", inplace)

    def forward(self, x: Tensor) -> Tensor:
        """Any shape -> the same."""
        return functional.relu(x)


class Dropout(Module):
    """:func:`minires.functional.dropout`; active in training only."""

    def __init__(self, p: float = 0.5, *, rng: np.random.Generator) -> None:
        self.p, self._rng = p, rng

    def forward(self, x: Tensor) -> Tensor:
        """Any shape -> the same."""
        return functional.dropout(x, self.p, training=self.training, rng=self._rng)


class MaxPool2d(Module):
    """:func:`minires.functional.max_pool2d`; stride defaults to kernel_size."""

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
        geometry: dict[str, Any] = {"stride": self.stride, "padding": self.padding, "dilation": self.dilation}
        return functional.max_pool2d(x, self.kernel_size, **geometry, ceil_mode=self.ceil_mode)


class AvgPool2d(Module):
    """:func:`minires.functional.avg_pool2d`; stride defaults to kernel_size."""

    def __init__(
        self,
        kernel_size: int | Sequence[int],
        stride: int | Sequence[int] | None = None,
        padding: int | Sequence[int] = 0,
        *,
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
    """All axes but the first merged into one."""

    def forward(self, x: Tensor) -> Tensor:
        """(N, ...) -> (N, features)."""
        return x.flatten(1)


class Identity(Module):
    """What goes in comes out: the shortcut of a residual block."""

    def forward(self, x: Tensor) -> Tensor:
        """Any shape -> the same tensor."""
        return x


class Sequential(Module):
    """Modules one after the other, named ``0``, ``1``, ...; indexable and iterable."""

    def __init__(self, *modules: Module) -> None:
        for position, module in enumerate(modules):
            if not isinstance(module, Module):
                raise TypeError(f"Sequential: item {position} must be a Module, got {type(module).__name__}")
        self._modules = list(modules)

    def forward(self, x: Any) -> Any:
        """The last module's output."""
        for module in self._modules:
            x = module(x)
        return x

    def named_children(self) -> Iterator[tuple[str, Module]]:
        """(position, module) of each."""
        return ((str(i), module) for i, module in enumerate(self._modules))

    def __iter__(self) -> Iterator[Module]:
        return iter(self._modules)

    def __len__(self) -> int:
        return len(self._modules)

    def __getitem__(self, position: int) -> Module:
        return self._modules[position]
