"""Convolution as a matrix product: im2col lays the windows out as columns, and BLAS does the rest.

With x's columns (K, L) of one image and one group, the three kernels are (Chellapilla, Puri and Simard 2006)

    y = weight @ columns        grad_columns = weight^T @ grad_output        grad_weight = sum_n grad_output @ columns^T

and ``grad_x = col2im(grad_columns)``. It is the version to read between the reference and the vectorised one: as many
operations as the direct sum, at the speed of BLAS, but with columns KH KW / (SH SW) times as large as x to write and
read again.
"""

from __future__ import annotations

from minires_kernels import patches
from minires_kernels.arrays import Array, array_module
from minires_kernels.window import Window

DEVICE = "any"
PREFERENCE = 10


def forward(x: Array, weight: Array, window: Window, groups: int = 1) -> Array:
    """See :func:`minires_kernels.convolution.forward`."""
    N, _, H, W = x.shape
    O, G = weight.shape[0], groups
    columns = _columns(x, window, groups)
    y = weight.reshape(G, O // G, columns.shape[2]) @ columns  # (G, O/G, K) @ (N, G, K, L) -> (N, G, O/G, L)
    return y.reshape(N, O, *window.output_size(H, W))


def grad_input(
    grad_output: Array, weight: Array, x_shape: tuple[int, int, int, int], window: Window, groups: int = 1
) -> Array:
    """See :func:`minires_kernels.convolution.grad_input`."""
    N, O, OH, OW = grad_output.shape
    G, L, K = groups, OH * OW, weight.shape[1] * window.size[0] * window.size[1]
    transposed = weight.reshape(G, O // G, K).swapaxes(1, 2)
    grad_columns = transposed @ grad_output.reshape(N, G, O // G, L)  # (G, K, O/G) @ (N, G, O/G, L) -> (N, G, K, L)
    return patches.col2im(grad_columns.reshape(N, G * transposed.shape[1], L), x_shape, window)


def grad_weight(grad_output: Array, x: Array, window: Window, groups: int = 1) -> Array:
    """See :func:`minires_kernels.convolution.grad_weight`."""
    N, O, OH, OW = grad_output.shape
    G = groups
    columns = _columns(x, window, groups)
    grad_output = grad_output.reshape(N, G, O // G, OH * OW)
    gradient = array_module(x).zeros((G, O // G, columns.shape[2]), x.dtype)
    for n in range(N):
        gradient += grad_output[n] @ columns[n].swapaxes(1, 2)  # (G, O/G, L) @ (G, L, K) -> (G, O/G, K)
    return gradient.reshape(O, x.shape[1] // G, *window.size)


def _columns(x: Array, window: Window, groups: int) -> Array:
    columns = patches.im2col(x, window)
    N, K, L = columns.shape
    return columns.reshape(N, groups, K // groups, L)  # a group's channels are neighbours, and so are their rows
