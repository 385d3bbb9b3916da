"""Batch normalization, alone and fused with what follows it in a residual block.

Source: Ioffe and Szegedy 2015. In the paper's letters: gamma = weight, beta = bias, x_hat = (x - mean) inverse_std,
m = N H W numbers per channel. Both residual-net papers put a batch norm behind each convolution (2015) or in front of
it (2016).
"""

from __future__ import annotations

import math

import numpy as np

from minires.arguments import require_flag, require_number
from minires.function import Function
from minires.functional.activation import relu
from minires.functional.checks import require_tensor, shapes
from minires.tensor import Tensor, apply
from minires_kernels import normalization
from minires_kernels.arrays import Array, array_module
from minires_kernels.fit import require_apart, require_writable

LARGEST = {np.dtype(kind): float(np.finfo(kind).max) for kind in (np.float32, np.float64)}


class BatchNorm(Function):
    """y = (x - mean) inverse_std weight + bias, with the statistics of x itself (training).

    The gradient flows through the statistics too. With g = grad_output and x_hat = (x - mean) inverse_std, per channel:
    dweight = sum(g x_hat), dbias = sum(g), dx = weight inverse_std (g - mean(g) - x_hat mean(g x_hat)): whatever part
    of g is constant or parallel to x_hat is taken away, because the normalization would undo such a change of x.
    """

    kernel = staticmethod(normalization.batch_norm_backward)

    def __init__(self, eps: float) -> None:
        self.eps = eps

    def statistics(self, x: Array) -> tuple[Array, Array]:
        """Mean and biased variance of each channel of ``x``; kept, for the running statistics."""
        self._mean, self._variance = normalization.batch_statistics(x)
        return self._mean, self._variance

    def forward(self, x: Array, weight: Array | None, bias: Array | None) -> Array:
        return _normalize(self, self, x, weight, bias)

    def backward(self, grad_output: Array) -> tuple[Array | None, ...]:
        saved = self.saved
        return self.kernel(grad_output, saved.x, saved.mean, saved.inverse_std, saved.weight)[:3]


class Normalize(BatchNorm):
    """The same with constant statistics (evaluation): an affine map of each channel, dx = weight inverse_std g."""

    kernel = staticmethod(normalization.normalize_backward)

    def __init__(self, mean: Array, variance: Array, eps: float) -> None:
        super().__init__(eps)
        self._mean, self._variance = mean, variance

    def statistics(self, x: Array) -> tuple[Array, Array]:
        """The constants that it was made with."""
        return self._mean, self._variance


class BatchNormReLU(Function):
    """relu(norm(x) [+ addend]): the end of a residual block in one kernel each way. A composite of ``norm``."""

    def __init__(self, norm: BatchNorm) -> None:
        self.norm = norm

    def forward(self, x: Array, weight: Array | None, bias: Array | None, addend: Array | None) -> Array:
        return _normalize(self, self.norm, x, weight, bias, addend, relu=True)

    def backward(self, grad_output: Array) -> tuple[Array | None, ...]:
        saved = self.saved
        statistics = saved.mean, saved.inverse_std, saved.weight
        return self.norm.kernel(
            grad_output, saved.x, *statistics, saved.output, self.needs_input_grad[3], saved.gate_bias
        )

    def signature(self) -> Array:
        return self.saved.output > 0

    def expand(self, x: Tensor, weight: Tensor | None, bias: Tensor | None, addend: Tensor | None) -> Tensor:
        """The textbook's way: normalize, add, rectify."""
        normalized = apply(self.norm, x, weight, bias)
        return relu(normalized if addend is None else normalized + addend)


def _normalize(
    function: Function,
    norm: BatchNorm,
    x: Array,
    weight: Array | None,
    bias: Array | None,
    addend: Array | None = None,
    relu: bool = False,
) -> Array:
    """Forward of all three: compute, and keep in ``function`` what its backward needs."""
    xp, (C, dtype) = array_module(x), (x.shape[1], x.dtype)
    mean, variance = norm.statistics(x)  # (C,), (C,)
    inverse_std = 1 / xp.sqrt(variance + dtype.type(norm.eps))
    weight = xp.ones(C, dtype) if weight is None else weight
    bias = xp.zeros(C, dtype) if bias is None else bias
    output = normalization.normalize(x, mean, inverse_std, weight, bias, addend, relu)
    function.save_for_backward(
        x=x,
        mean=mean,
        inverse_std=inverse_std,
        weight=weight,
        output=output if relu else None,
        gate_bias=bias if addend is None else None,
    )
    return output


def batch_norm(
    x: Tensor,
    running_mean: Array | None,
    running_var: Array | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """Normalize each channel of ``x``, then scale it by ``weight`` (C,) and shift it by ``bias`` (C,).

    ``x`` is (N, C), or (N, C, ...) with any further axes: a series (N, C, L), images (N, C, H, W), volumes.

    In training the batch's own mean and biased variance are used, and ``running_mean`` and ``running_var`` (arrays
    (C,), or both None to keep none) are updated in place: running = (1 - momentum) running + momentum batch, with the
    *unbiased* variance; momentum is the share of the new batch, PyTorch's convention and the complement of the
    papers'. In evaluation the running statistics are used, as constants.

    Raises ValueError for fewer axes, for parameters or statistics that aren't (C,), for training on one number per
    channel (its variance is 0), for evaluation without statistics, for eps < 0 and momentum outside [0, 1];
    TypeError for statistics of another dtype; in training also ValueError for statistics that are read-only or share
    memory. The running statistics change only if nothing was raised.
    """
    norm = _checked("batch_norm", x, running_mean, running_var, weight, bias, training, momentum, eps)
    images = x if x.ndim == 4 else x.reshape(*x.shape[:2], math.prod(x.shape[2:]), 1)
    y = apply(norm, images, weight, bias)
    _update_running(norm, x, running_mean, running_var, training, momentum)
    return y if x.ndim == 4 else y.reshape(x.shape)


def batch_norm_relu(
    x: Tensor,
    running_mean: Array | None,
    running_var: Array | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    addend: Tensor | None = None,
    *,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """relu(batch_norm(x, ...) + addend): what follows a convolution in a residual block, in one step.

    ``x`` is (N, C, H, W); ``addend``, the shortcut's contribution, is like x, or None for a plain ReLU behind the batch
    norm. Everything else, errors included, is as in :func:`batch_norm`. It is a composite: a recorded graph shows the
    batch norm, the addition and the ReLU as nodes of their own, with results equal within rounding.
    """
    norm = _checked("batch_norm_relu", x, running_mean, running_var, weight, bias, training, momentum, eps)
    require_tensor("batch_norm_relu", "x", x, ndim=4)
    if addend is not None:
        require_tensor("batch_norm_relu", "addend", addend)
        if addend.shape != x.shape:
            raise ValueError(f"batch_norm_relu: addend must have the shape of x; {shapes(x=x, addend=addend)}")
    y = apply(BatchNormReLU(norm), x, weight, bias, addend)
    _update_running(norm, x, running_mean, running_var, training, momentum)
    return y


def _checked(
    op: str,
    x: Tensor,
    running_mean: Array | None,
    running_var: Array | None,
    weight: Tensor | None,
    bias: Tensor | None,
    training: bool,
    momentum: float,
    eps: float,
) -> BatchNorm:
    """The Function that will normalize ``x``, after every check that the public functions promise."""
    require_tensor(op, "x", x)
    if x.ndim < 2:
        raise ValueError(f"{op}: x must be (N, C) or (N, C, ...), got shape {x.shape}")
    C = x.shape[1]
    require_flag(op, "training", training)
    require_number(op, "momentum", momentum, least=0, most=1)
    eps = require_number(op, "eps", eps, least=0, most=LARGEST[x.dtype])
    for name, parameter in (("weight", weight), ("bias", bias)):
        if parameter is not None:
            require_tensor(op, name, parameter)
            if parameter.shape != (C,):
                raise ValueError(f"{op}: {name} must have shape ({C},), one number per channel, got {parameter.shape}; "
                                 f"{shapes(x=x)}")  # fmt: skip
    if (running_mean is None) != (running_var is None):
        raise ValueError(f"{op}: give both running_mean and running_var, or neither")
    for name, statistic in (("running_mean", running_mean), ("running_var", running_var)):
        if statistic is None:
            continue
        if not isinstance(statistic, np.ndarray) and not hasattr(statistic, "__cuda_array_interface__"):
            raise TypeError(f"{op}: {name} must be an array, which training updates, got {type(statistic).__name__}")
        if statistic.shape != (C,):
            raise ValueError(f"{op}: {name} must have shape ({C},), got {statistic.shape}; {shapes(x=x)}")
        if statistic.dtype != x.dtype:
            raise TypeError(f"{op}: {name} is {statistic.dtype}, but x is {x.dtype}; convert it with .astype(x.dtype)")
    if not training:
        if running_mean is None or running_var is None:
            raise ValueError(f"{op}: evaluation needs running_mean and running_var; or pass training=True")
        # Copies: a later training step updates these arrays in place, and backward must see today's values.
        return Normalize(running_mean.copy(), running_var.copy(), eps)
    count = x.shape[0] * math.prod(x.shape[2:])
    if count < 2:
        raise ValueError(f"{op}: training needs at least 2 numbers per channel to have a variance, "
                         f"got {count}; {shapes(x=x)}")  # fmt: skip
    if running_mean is not None:
        require_writable(op, running_mean=running_mean, running_var=running_var)
        require_apart(op, running_mean=running_mean, running_var=running_var)
    return BatchNorm(eps)


def _update_running(
    norm: BatchNorm, x: Tensor, running_mean: Array | None, running_var: Array | None, training: bool, momentum: float
) -> None:
    if not training or running_mean is None or running_var is None:
        return
    count = x.shape[0] * math.prod(x.shape[2:])
    mean, variance = norm._mean, norm._variance
    new_mean = running_mean + x.dtype.type(momentum) * (mean - running_mean)
    new_var = running_var + x.dtype.type(momentum) * (variance * x.dtype.type(count / (count - 1)) - running_var)
    running_mean[...], running_var[...] = new_mean, new_var  # both or none, also where overflow is an error
