"""Normalization: batch statistics, batch norm forward and backward, and their fusions with addition and ReLU.

Contract, for each implementation (Ioffe and Szegedy 2015; channels on axis 1, m = N H W numbers in each):

- ``batch_statistics``: mean and *biased* variance of each channel, by two passes (E[(x - mean)^2], never
  E[x^2] - mean^2, which loses all digits when the mean is large).
- ``normalize``: y = (x - mean) * inverse_std * weight + bias [+ addend] [then ReLU].
- ``batch_norm_backward``: its gradients when mean and inverse_std are the statistics of x itself, so that the gradient
  flows through them too: with x_hat = (x - mean) inverse_std and g the gradient behind the ReLU,
  ``grad_x = weight inverse_std (g - mean(g) - x_hat mean(g x_hat))``, grad_weight = sum(g x_hat), grad_bias = sum(g).
- ``normalize_backward``: the same when the statistics are constants (evaluation): ``grad_x = weight inverse_std g``.
- NaN and infinities stay in their channel. A NaN makes both of its statistics NaN, an infinity its variance. One in x
  or grad_output reaches y, grad_addend and, with constant statistics, grad_x at its own pixel alone, and the channel's
  grad_weight and grad_bias. The ReLU's gate is that of ``activation``: chosen, not multiplied, and open where y is NaN.
  One in a channel's statistics, weight or bias makes its results not finite: whether infinite or NaN isn't promised.
- x (N, C, H, W), any strides; mean, inverse_std, weight, bias (C,); all of one dtype, float32 or float64, which every
  returned array keeps. Results lie in memory as x does where x is contiguous or channels-last. Inputs never written.

The fusions: ``addend`` (like x) is added before the ReLU; the backward kernels get ``output``, the result of that ReLU,
and return the gradient gated by it for the addend as well. Without an addend they also get the ``bias``:
the gate can be computed again from x.

Cost, in numbers moved: forward 3 N C H W (two reads, one write) + 1 with an addend; backward 5 (grad_output and x
twice each, one write) + 2 with a ReLU and an addend. All are bound by memory.
"""

from __future__ import annotations

from minires_kernels.arrays import Array
from minires_kernels.fit import IMAGES, axes, flag, require
from minires_kernels.registry import select

FAMILY = "normalization"
KERNELS = {
    "batch_statistics": ("mean c", "variance c"),
    "normalize": ("y n c h w",),
    "batch_norm_backward": ("grad_x n c h w", "grad_weight c", "grad_bias c", "grad_addend n c h w"),
    "normalize_backward": ("grad_x n c h w", "grad_weight c", "grad_bias c", "grad_addend n c h w"),
}
"""Each kernel, with the names of its results and of their axes: what a report of a difference calls them."""


def batch_statistics(x: Array) -> tuple[Array, Array]:
    """Mean and biased variance of each channel of ``x`` (N, C, H, W): two arrays (C,). N H W must not be 0."""
    N, _, H, W = shape = axes("batch_statistics", "x", x, IMAGES)
    require("batch_statistics", x=(x, shape))
    if N * H * W == 0:
        raise ValueError(f"batch_statistics: nothing has a mean; x {shape} has no number in a channel")
    return select(FAMILY, "batch_statistics", x)(x)  # type: ignore[no-any-return]


def normalize(
    x: Array,
    mean: Array,
    inverse_std: Array,
    weight: Array,
    bias: Array,
    addend: Array | None = None,
    relu: bool = False,
) -> Array:
    """``(x - mean) * inverse_std * weight + bias``, plus ``addend`` if given, through ReLU if asked: (N, C, H, W).

    Raises ValueError for shapes that don't fit, TypeError for mixed dtypes.
    """
    shape = axes("normalize", "x", x, IMAGES)
    C = shape[1:2]
    others = {} if addend is None else {"addend": (addend, shape)}
    require("normalize", x=(x, shape), mean=(mean, C), inverse_std=(inverse_std, C), weight=(weight, C), bias=(bias, C),
            **others)  # fmt: skip
    relu = flag("normalize", "relu", relu)
    kernel = select(FAMILY, "normalize", x, mean, inverse_std, weight, bias, addend, relu)
    return kernel(x, mean, inverse_std, weight, bias, addend, relu)


def batch_norm_backward(
    grad_output: Array,
    x: Array,
    mean: Array,
    inverse_std: Array,
    weight: Array,
    output: Array | None = None,
    needs_grad_addend: bool = False,
    bias: Array | None = None,
) -> tuple[Array, Array, Array, Array | None]:
    """(grad_x, grad_weight, grad_bias, grad_addend) of ``normalize`` with x's own batch statistics.

    ``output``: what ``normalize`` returned when it ended in a ReLU, else None. grad_addend is the gated grad_output
    when ``needs_grad_addend``, else None; without a ReLU it is grad_output itself. ``bias``: normalize's, to be given
    only if there was no addend: the ReLU's gate can then be computed from x, which is at hand, and need not be read.
    Raises ValueError for shapes that don't fit, TypeError for mixed dtypes.
    """
    _check_backward("batch_norm_backward", grad_output, x, mean, inverse_std, weight, output, bias)
    needs_grad_addend = flag("batch_norm_backward", "needs_grad_addend", needs_grad_addend)
    kernel = select(
        FAMILY, "batch_norm_backward", grad_output, x, mean, inverse_std, weight, output, needs_grad_addend, bias
    )
    return kernel(grad_output, x, mean, inverse_std, weight, output, needs_grad_addend, bias)  # type: ignore[no-any-return]


def normalize_backward(
    grad_output: Array,
    x: Array,
    mean: Array,
    inverse_std: Array,
    weight: Array,
    output: Array | None = None,
    needs_grad_addend: bool = False,
    bias: Array | None = None,
) -> tuple[Array, Array, Array, Array | None]:
    """(grad_x, grad_weight, grad_bias, grad_addend) of ``normalize`` with constant statistics (evaluation)."""
    _check_backward("normalize_backward", grad_output, x, mean, inverse_std, weight, output, bias)
    needs_grad_addend = flag("normalize_backward", "needs_grad_addend", needs_grad_addend)
    kernel = select(
        FAMILY, "normalize_backward", grad_output, x, mean, inverse_std, weight, output, needs_grad_addend, bias
    )
    return kernel(grad_output, x, mean, inverse_std, weight, output, needs_grad_addend, bias)  # type: ignore[no-any-return]


def _check_backward(
    op: str,
    grad_output: Array,
    x: Array,
    mean: Array,
    inverse_std: Array,
    weight: Array,
    output: Array | None,
    bias: Array | None,
) -> None:
    shape = axes(op, "x", x, IMAGES)
    C = shape[1:2]
    others = {} if output is None else {"output": (output, shape)}
    if bias is not None:
        others["bias"] = bias, C
    require(op, grad_output=(grad_output, shape), x=(x, shape), mean=(mean, C), inverse_std=(inverse_std, C),
            weight=(weight, C), **others)  # fmt: skip


def cost(
    kernel: str, shape: tuple[int, ...], *, relu: bool = False, addend: bool = False, itemsize: int = 4
) -> tuple[int, int]:
    """(floating-point operations, bytes that must move) of one call on arrays of ``shape``."""
    size = 1
    for length in shape:
        size *= length
    if kernel == "batch_statistics":
        return 3 * size, 2 * itemsize * size
    if kernel == "normalize":
        return (2 + relu + addend) * size, (2 + addend) * itemsize * size
    passes = 2 if kernel == "batch_norm_backward" else 1
    return 7 * size, (2 * passes + 1 + 2 * (relu and addend)) * itemsize * size
