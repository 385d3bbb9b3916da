"""Direct convolution on register tiles, channels last: the default on a CPU.

The sum of the contract as it stands, but for its order: blocks of it are made in registers. Any window, groups,
number of channels and either dtype; sizes are run-time numbers, so that a new shape compiles at most a new
micro-kernel. The compiled loops are in ``_direct``; ``_plans`` decides by the shapes what they do, with the
arithmetic of ``_geometry``; here they meet.

**Layout.** Arrays are read and written as (N, H, W, C): the channels of a pixel are neighbours, and so are the pixels
of a row. What would need a test for each number is prepared instead, by *packing*: images with the zeros of their
padding around them, one image (or a band of it, or a few) at a time, a quarter of the second-level cache, where it
stays; weights as *panels*, one for each block of output channels, whose numbers lie in the order in which the
micro-kernel meets them, filled up with zeros to whole vectors. Nothing padded is seen outside. Without padding x is
read where it lies, so a 1x1 convolution is a matrix product and nothing else.

**forward.** The micro-kernel ``window_sums`` owns a tile of P output pixels x V vectors of channels::

    for each row of taps, for each channel c in:
        w[0 .. V]                 load V vectors of the panel, for each of 1 or 3 neighbouring taps
        for each pixel p:         broadcast x[p, c], multiply-add into the tile's row p (and p - 1, p - 2)

With AVX-512 and 32 output channels, P x V = 8 x 2 and three taps: 16 registers hold the tile, 6 the weights, 1 the
broadcast. A step is 48 multiply-adds and 16 loads, where 24 cycles are spent by the former and 8 by the latter. Three
taps share a broadcast since pixel p + 1 under tap 0 is pixel p under tap 1; with 16 channels (one vector), loads
would otherwise be as many as multiply-adds. ``best_tile`` picks P and V for each width of image and number of
channels from such a count. Such a tile lies within a row. With one tap at a time, neighbours have nothing in common:
then a tile's pixels are the next P of a list, across rows and images, and rows of 7 pixels waste nothing. The last tile
overlaps its neighbour, so no shape needs a second micro-kernel. A panel of many channels is larger than the first-level
cache, and comes from the second for each tile: a run of memory, which the processor fetches ahead. (Cutting it into
pieces that fit, with y collecting the sums, took 1 to 7 % longer on twelve layers out of twelve.) Where all panels are
larger than the second-level cache, more images are taken at once, so that they come from memory less often. Output
lines are fetched before a tile is computed; stores that wait for memory would stop everything.

**grad_input** is the same program. Of a stride S, the pixels with h mod S = a and w mod S = b are a *phase*: they all
see the same subset of taps, at whole steps in grad_output. Each phase is a convolution of stride 1 with these taps,
for any stride and dilation, and writes every S-th pixel. No multiplication by an inserted zero, no scattered
addition.

**grad_weight.** The micro-kernel ``product_sums`` owns a block of the result: 8 output channels (broadcast from
grad_output) x 3 vectors of one stretch of x, which are the (tap, channel in) of one row of taps as they lie in
memory. It runs over 32 to 128 pixels, as many as the first-level cache holds: 24 multiply-adds and 11 loads each. Then
it is added to the thread's running sums. A sum of such sums has an error of 2e-7 where one long sum has 2e-6. At last
the threads' sums are added, in their order. Pixels of x or of grad_output that lie half a kilobyte apart, or a multiple
of it, would push each other out of the first-level cache; they are packed one cache line farther apart.

**Threads** take images, or bands of rows when images are few, as they finish (``simd.for_each``); of grad_weight they
get equal shares, fixed by the number of threads. forward and grad_input don't depend on it at all, grad_weight by the
order of its last few additions.

**Bound.** Multiply-adds. Measured on one core with AVX-512, share of the rate of multiply-adds that touch no memory
(175 GFLOP/s): 64 channels at 8 x 8, 90 %; 64 at 56 x 56, 88 %; 16 at 32 x 32, 80 %, since packing and output, 16 MB
to and fro, meet too little arithmetic. Error against float64, relative to the largest number: 3e-7 ... 3e-6.
"""

from __future__ import annotations

import numba
import numpy as np

from minires_kernels.arena import empty_channels_last, scratch
from minires_kernels.arrays import Array
from minires_kernels.convolution._geometry import Plan, flat
from minires_kernels.convolution._plans import plan_forward, plan_grad_input, plan_grad_weight
from minires_kernels.flat import pixels
from minires_kernels.simd import in_parallel, kinds
from minires_kernels.window import Window

DEVICE = "cpu"
PREFERENCE = 100


def forward(x: Array, weight: Array, window: Window, groups: int = 1) -> Array:
    """See :func:`minires_kernels.convolution.forward`. Returns channels last."""
    (N, _, H, W), O = x.shape, weight.shape[0]
    y = empty_channels_last((N, O, *window.output_size(H, W, op="convolution")), x.dtype)
    if x.size == 0 or y.size == 0:
        y[...] = 0
    else:
        plan = plan_forward(
            x.shape, weight.shape, window, groups, x.dtype, numba.get_num_threads(), kinds.REGISTER_BYTES
        )
        _correlate(plan, x, weight, y)
    return y


def grad_input(
    grad_output: Array, weight: Array, x_shape: tuple[int, int, int, int], window: Window, groups: int = 1
) -> Array:
    """See :func:`minires_kernels.convolution.grad_input`. Returns channels last."""
    grad_x = empty_channels_last(x_shape, grad_output.dtype)
    if grad_output.size == 0 or grad_x.size == 0:
        grad_x[...] = 0
    else:
        plan = plan_grad_input(
            grad_output.shape, weight.shape, tuple(x_shape), window, groups, grad_output.dtype,
            numba.get_num_threads(), kinds.REGISTER_BYTES,
        )  # fmt: skip
        _correlate(plan, grad_output, weight, grad_x)
    return grad_x


def _correlate(plan: Plan, source: Array, weight: Array, y: Array) -> None:
    dtype = y.dtype
    panels, packed = scratch("panels", plan.weights, dtype), scratch("packed", plan.packed, dtype)
    weight = flat(np.ascontiguousarray(weight))
    (pack_weight, correlate), (panel_parts, parts) = plan.programs, plan.shares
    in_parallel(pack_weight, panel_parts, plan.scan, plan.cases, weight, panels, panels, panels)
    in_parallel(correlate, parts, plan.scan, plan.cases, pixels(source), panels, pixels(y), packed)


def grad_weight(grad_output: Array, x: Array, window: Window, groups: int = 1) -> Array:
    """See :func:`minires_kernels.convolution.grad_weight`. Returns a contiguous (O, C/G, KH, KW)."""
    parts = numba.get_num_threads()
    gradient = np.empty((grad_output.shape[1], x.shape[1] // groups, *window.size), x.dtype)
    if x.size == 0 or grad_output.size == 0:
        gradient[...] = 0
    else:
        plan = plan_grad_weight(grad_output.shape, x.shape, window, groups, x.dtype, parts, kinds.REGISTER_BYTES)
        sums, packed = scratch("sums", parts * plan.weights, x.dtype), scratch("packed", plan.packed, x.dtype)
        (accumulate, add_sums), (image_parts, channel_parts) = plan.programs, plan.shares
        in_parallel(accumulate, image_parts, plan.scan, plan.cases, pixels(x), pixels(grad_output), sums, packed)
        in_parallel(add_sums, channel_parts, plan.scan, plan.cases, sums, gradient.reshape(-1), sums, sums)
    return gradient
