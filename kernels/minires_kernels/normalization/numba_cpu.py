"""Batch normalization with Numba: each array streams through the processor once a pass, and memory sets the pace.

**The bound.** A pass does one to three operations for each number that it loads, a hundredth of what the processor
could do in the time in which memory delivers it. So the whole craft is to read memory in order, as few times as
possible, and to keep everything else in the first-level cache and in registers:

- ``batch_statistics`` reads x once. Deviations are summed up from a provisional mean (that of the first pixels of each
  *piece* of memory), then corrected: sum (x - mean)^2 = sum (x - shift)^2 - (sum (x - shift))^2 / m, whose two terms
  are far from equal as long as the shift is near the mean. That is as accurate as a second pass, unlike
  E[x^2] - mean^2, which is the same with shift 0 (Chan, Golub and LeVeque 1983; their eq. 2.1 joins the pieces).
- ``normalize`` reads x and the addend, writes y: subtraction, multiply-add, addition, maximum.
- backward, pass 1, reads grad_output, output and x and sums up g and g (x - mean). Only where the addend needs it, it
  writes the gated gradient, which pass 2 then reads in place of grad_output and output. Without an addend output isn't
  read: one multiply-add makes the gate again from x, to the last digit, and that saves up to a fifth of the time.
- backward, pass 2, writes grad_x = scale g + slope (x - mean) + offset, two multiply-adds; scale = weight inverse_std,
  slope = -scale inverse_std grad_weight / m, offset = -scale grad_bias / m are the terms of the contract's equation.

**What lies where.** Registers hold one vector of each operand, no more: x, g, output and the result. Coefficients and
sums are rows of small tables, one number for each lane, that stay in the first-level cache (``_loops`` explains the
rows). Sums there are added to in turn, at least four vectors before it's the first one's turn again, so that no
addition waits for the one before. Going down the columns instead, with sums in registers, was measured slower by up to
a third where C >= 64: memory is fetched ahead of its use along rows only.

**Why not one with the convolution.** Statistics taken while its output is still in the cache, and backward's sums taken
where grad_input writes, would save one reading of one array each. Measured at 128 x 16 x 32 x 32 (AVX2, two threads),
that is 0.12 of 0.35 ms and 0.07 of 0.42 ms, and nothing for smaller maps: 0.9 and 0.5 ms of ResNet-20's 170.

**Precision.** Sums of a piece (at most some 16,000 numbers) are in the arrays' dtype, in as many partial sums as a row
has lanes; sums of pieces in double precision. Subtracting the mean first, and not folding it into the bias, keeps all
digits where the mean is large.
"""

from __future__ import annotations

import numpy as np

from minires_kernels.arena import empty_like
from minires_kernels.arrays import Array, channels_last
from minires_kernels.flat import flat, flat_like, vector_of
from minires_kernels.normalization import _loops

DEVICE = "cpu"
PREFERENCE = 100


def batch_statistics(x: Array) -> tuple[Array, Array]:
    """See :func:`minires_kernels.normalization.batch_statistics`."""
    x, inner = _images(x)
    C, dtype = x.shape[1], x.dtype
    mean, variance = np.empty(C, dtype), np.empty(C, dtype)
    _loops.statistics(vector_of(x), flat(x), inner, mean, variance)
    return mean, variance


def normalize(
    x: Array,
    mean: Array,
    inverse_std: Array,
    weight: Array,
    bias: Array,
    addend: Array | None = None,
    relu: bool = False,
) -> Array:
    """See :func:`minires_kernels.normalization.normalize`."""
    x, inner = _images(x)
    y, line = empty_like(x), flat(x)
    channels = flat(mean), flat(inverse_std), flat(weight), flat(bias)
    other = line if addend is None else flat_like(addend, x)
    _loops.normalize(vector_of(x), line, inner, *channels, other, addend is not None, relu, flat(y))
    return y


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
    """See :func:`minires_kernels.normalization.batch_norm_backward`."""
    return _backward(grad_output, x, mean, inverse_std, weight, output, needs_grad_addend, bias, False)


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
    """See :func:`minires_kernels.normalization.normalize_backward`."""
    return _backward(grad_output, x, mean, inverse_std, weight, output, needs_grad_addend, bias, True)


def _backward(
    grad_output: Array,
    x: Array,
    mean: Array,
    inverse_std: Array,
    weight: Array,
    output: Array | None,
    needs_grad_addend: bool,
    bias: Array | None,
    constant: bool,
) -> tuple[Array, Array, Array, Array | None]:
    x, inner = _images(x)
    C, dtype = x.shape[1], x.dtype
    grad_x, grad_weight, grad_bias = empty_like(x), np.empty(C, dtype), np.empty(C, dtype)
    keep = needs_grad_addend and output is not None
    grad_addend = empty_like(x) if keep else None
    line = flat(x)
    _loops.backward(
        vector_of(x),
        flat_like(grad_output, x),
        line if output is None else flat_like(output, x),
        line,
        inner,
        flat(mean),
        flat(inverse_std),
        flat(weight),
        flat(weight if bias is None else bias),
        output is not None,
        output is not None and bias is not None,
        keep,
        constant,
        line if grad_addend is None else flat(grad_addend),
        flat(grad_x),
        grad_weight,
        grad_bias,
    )
    return grad_x, grad_weight, grad_bias, grad_output if needs_grad_addend and output is None else grad_addend


def _images(x: Array) -> tuple[Array, int]:
    """x, copied if it must be, and the distance between its channels: 1 if channels-last, H W if C-contiguous."""
    if x.flags.c_contiguous:
        inner = x.shape[2] * x.shape[3]
        return x, inner
    return channels_last(x), 1
