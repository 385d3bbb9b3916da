"""Convolution by array slicing: a sum over the KH x KW taps, each a matrix product of weights and shifted pixels.

``pixels`` picks the slice of the padded image that one tap meets, one pixel for each output position. Channels are
split into (G, C/G) and (G, O/G), so that one broadcast matrix product serves all images and all groups.
"""

from __future__ import annotations

from minires_kernels.arrays import Array, array_module
from minires_kernels.window import Window

DEVICE = "any"


def forward(x: Array, weight: Array, window: Window, groups: int = 1) -> Array:
    """See :func:`minires_kernels.convolution.forward`."""
    N, C, H, W = x.shape
    O, G = weight.shape[0], groups
    OH, OW = window.output_size(H, W, op="convolution")
    padded = _padded(x, window)
    weight = weight.reshape(G, O // G, C // G, *window.size)
    y = array_module(x).zeros((N, G, O // G, OH * OW), x.dtype)
    for i, j, pixels in window.taps(OH, OW):
        seen = padded[pixels].reshape(N, G, C // G, OH * OW)
        y += weight[..., i, j] @ seen  # (G, O/G, C/G) @ (N, G, C/G, L) -> (N, G, O/G, L)
    return y.reshape(N, O, OH, OW)


def grad_input(
    grad_output: Array, weight: Array, x_shape: tuple[int, int, int, int], window: Window, groups: int = 1
) -> Array:
    """See :func:`minires_kernels.convolution.grad_input`."""
    xp = array_module(grad_output)
    N, C, H, W = x_shape
    _, O, OH, OW = grad_output.shape
    G, (PH, PW) = groups, window.padding
    grad_output = grad_output.reshape(N, G, O // G, OH * OW)
    weight = weight.reshape(G, O // G, C // G, *window.size)
    grad_padded = xp.zeros((N, C, H + 2 * PH, W + 2 * PW), grad_output.dtype)
    for i, j, pixels in window.taps(OH, OW):
        grad_seen = weight[..., i, j].swapaxes(1, 2) @ grad_output  # (G, C/G, O/G) @ (N, G, O/G, L) -> (N, G, C/G, L)
        grad_padded[pixels] += grad_seen.reshape(N, C, OH, OW)
    return xp.ascontiguousarray(grad_padded[:, :, PH : PH + H, PW : PW + W])


def grad_weight(grad_output: Array, x: Array, window: Window, groups: int = 1) -> Array:
    """See :func:`minires_kernels.convolution.grad_weight`."""
    N, C, _, _ = x.shape
    _, O, OH, OW = grad_output.shape
    G = groups
    padded = _padded(x, window)
    grad_output = grad_output.swapaxes(0, 1).reshape(G, O // G, N * OH * OW)
    gradient = array_module(x).empty((G, O // G, C // G, *window.size), x.dtype)
    for i, j, pixels in window.taps(OH, OW):
        seen = padded[pixels].swapaxes(0, 1).reshape(G, C // G, N * OH * OW)
        gradient[..., i, j] = grad_output @ seen.swapaxes(1, 2)  # (G, O/G, N L) @ (G, N L, C/G) -> (G, O/G, C/G)
    return gradient.reshape(O, C // G, *window.size)


def _padded(x: Array, window: Window) -> Array:
    PH, PW = window.padding
    return array_module(x).pad(x, ((0, 0), (0, 0), (PH, PH), (PW, PW)))
