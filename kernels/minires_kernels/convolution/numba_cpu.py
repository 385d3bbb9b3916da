"""Direct convolution on register tiles, channels last: the default on a CPU."""

from __future__ import annotations

import numba
import numpy as np

from minires_kernels.arena import scratch
from minires_kernels.arrays import Array, empty_channels_last
from minires_kernels.convolution._geometry import (
    Plan,
    flat,
    pixels,
    plan_forward,
    plan_grad_input,
    plan_grad_weight,
)
from minires_kernels.simd import in_parallel, kinds
from minires_kernels.window import Window

DEVICE = "cpu"
PREFERENCE = 100


def forward(x: Array, weight: Array, window: Window, groups: int = 1) -> Array:
    """See :func:`minires_kernels.convolution.forward`. Returns channels last."""
    (N, _, H, W), O = x.shape, weight.shape[0]
    y = empty_channels_last((N, O, *window.output_size(H, W, op="convolution")), x.dtype)
    if y.size:
        plan = plan_forward(
            x.shape, weight.shape, window, groups, x.dtype.name, numba.get_num_threads(), kinds.REGISTER_BYTES
        )
        _correlate(plan, x, weight, y)
    return y


def grad_input(
    grad_output: Array, weight: Array, x_shape: tuple[int, int, int, int], window: Window, groups: int = 1
) -> Array:
    """See :func:`minires_kernels.convolution.grad_input`. Returns channels last."""
    grad_x = empty_channels_last(x_shape, grad_output.dtype)
    if grad_x.size:
        plan = plan_grad_input(
            grad_output.shape, weight.shape, tuple(x_shape), window, groups, grad_output.dtype.name,
            numba.get_num_threads(), kinds.REGISTER_BYTES,
        )  # fmt: skip
        _correlate(plan, grad_output, weight, grad_x)
    return grad_x


def _correlate(plan: Plan, source: Array, weight: Array, y: Array) -> None:
    parts, dtype = numba.get_num_threads(), y.dtype
    panels, packed = scratch("panels", plan.weights, dtype), scratch("packed", plan.packed, dtype)
    weight = flat(np.ascontiguousarray(weight))
    pack_weight, correlate = plan.programs
    in_parallel(pack_weight, parts, plan.scan, plan.phases, weight, panels, panels, panels)
    in_parallel(correlate, parts, plan.scan, plan.phases, pixels(source), panels, pixels(y), packed)


def grad_weight(grad_output: Array, x: Array, window: Window, groups: int = 1) -> Array:
    """See :func:`minires_kernels.convolution.grad_weight`. Returns a contiguous (O, C/G, KH, KW)."""
    parts = numba.get_num_threads()
    gradient = np.empty((grad_output.shape[1], x.shape[1] // groups, *window.size), x.dtype)
    if x.size == 0 or grad_output.size == 0:
        gradient[...] = 0
    else:
        plan = plan_grad_weight(grad_output.shape, x.shape, window, groups, x.dtype.name, parts, kinds.REGISTER_BYTES)
        sums, packed = scratch("sums", parts * plan.weights, x.dtype), scratch("packed", plan.packed, x.dtype)
        accumulate, add_sums = plan.programs
        in_parallel(accumulate, parts, plan.scan, plan.phases, pixels(x), pixels(grad_output), sums, packed)
        in_parallel(add_sums, parts, plan.scan, plan.phases, sums, gradient.reshape(-1), sums, sums)
    return gradient
