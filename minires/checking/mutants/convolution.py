"""Mistakes in the backward pass of convolution."""

from __future__ import annotations

from typing import Any

import numpy as np

from minires.checking.mutants.mutant import Gradients, Right, mutant, replaced
from minires.functional.conv import Conv2d
from minires_kernels import convolution
from minires_kernels.arrays import Array


@mutant(Conv2d, "flipped")
def conv_kernel_flipped(node: Any, g: Array, right: Right) -> Gradients:
    """``grad_x`` correlates with the flipped kernel: a true convolution where its adjoint belongs."""
    flipped = np.ascontiguousarray(node.saved.weight[:, :, ::-1, ::-1])
    return replaced(right(g), 0, lambda grad: convolution.grad_input(g, flipped, grad.shape, node.window, node.groups))


@mutant(Conv2d, "flipped")
def conv_grad_weight_flipped(node: Any, g: Array, right: Right) -> Gradients:
    """``grad_weight`` comes out flipped."""
    return replaced(right(g), 1, lambda grad: grad[:, :, ::-1, ::-1])


@mutant(Conv2d, "transposed")
def conv_grad_weight_transposed(node: Any, g: Array, right: Right) -> Gradients:
    """``grad_weight`` has rows and columns of the kernel exchanged."""
    return replaced(right(g), 1, lambda grad: grad.swapaxes(2, 3) if grad.shape[2] == grad.shape[3] else grad)


@mutant(Conv2d, "transposed")
def conv_grad_weight_channels_exchanged(node: Any, g: Array, right: Right) -> Gradients:
    """``grad_weight`` has input and output channels exchanged."""
    return replaced(right(g), 1, lambda grad: grad.swapaxes(0, 1) if grad.shape[0] == grad.shape[1] else grad)


@mutant(Conv2d, "shifted")
def conv_grad_x_shifted(node: Any, g: Array, right: Right) -> Gradients:
    """``grad_x`` lies one column off: the padding was cut from the wrong side."""

    def shift(grad: Array) -> Array:
        moved = np.zeros_like(grad)
        moved[..., 1:] = grad[..., :-1]
        return moved

    return replaced(right(g), 0, shift)


@mutant(Conv2d, "border")
def conv_grad_x_border(node: Any, g: Array, right: Right) -> Gradients:
    """``grad_x`` misses the border rows: col2im forgets the windows that reach into the padding."""

    def cut(grad: Array) -> Array:
        kept = grad.copy()
        kept[:, :, 0] = 0
        kept[:, :, -1] = 0
        return kept

    return replaced(right(g), 0, cut)


@mutant(Conv2d, "factor")
def conv_grad_bias_averaged(node: Any, g: Array, right: Right) -> Gradients:
    """``grad_bias`` is the mean over the batch instead of the sum."""
    return replaced(right(g), 2, lambda grad: grad / len(g))


@mutant(Conv2d, "factor")
def conv_grad_weight_averaged(node: Any, g: Array, right: Right) -> Gradients:
    """``grad_weight`` is divided by the batch size."""
    return replaced(right(g), 1, lambda grad: grad / len(g))


@mutant(Conv2d, "partial")
def conv_grad_weight_last_image(node: Any, g: Array, right: Right) -> Gradients:
    """``grad_weight`` is overwritten image by image: only the last one counts."""
    last = np.zeros_like(g)
    last[-1:] = g[-1:]
    return (right(g)[0], right(last)[1], right(g)[2])


@mutant(Conv2d, "partial")
def conv_grad_bias_last_image(node: Any, g: Array, right: Right) -> Gradients:
    """``grad_bias`` is overwritten image by image: only the last one counts."""
    return replaced(right(g), 2, lambda grad: g[-1:].sum((0, 2, 3)))


@mutant(Conv2d, "permuted")
def conv_grad_x_channels_reversed(node: Any, g: Array, right: Right) -> Gradients:
    """``grad_x`` has its channels in reverse order."""
    return replaced(right(g), 0, lambda grad: grad[:, ::-1])


@mutant(Conv2d, "overwritten")
def conv_col2im_assigns(node: Any, g: Array, right: Right) -> Gradients:
    """Col2im assigns where windows overlap, instead of adding."""

    def assign(grad: Array) -> Array:
        total = np.zeros_like(grad)
        for position in np.ndindex(*g.shape[2:]):
            only = np.zeros_like(g)
            only[(..., *position)] = g[(..., *position)]
            part = right(only)[0]
            assert part is not None
            rows, columns = (
                slice(max(p * s - q, 0), p * s - q + k)
                for p, s, q, k in zip(position, node.window.stride, node.window.padding, node.window.span, strict=True)
            )
            total[:, :, rows, columns] = part[:, :, rows, columns]
        return total

    return replaced(right(g), 0, assign)


@mutant(Conv2d, "sign")
def conv_grad_x_sign(node: Any, g: Array, right: Right) -> Gradients:
    """``grad_x`` has the wrong sign."""
    return replaced(right(g), 0, lambda grad: -grad)


@mutant(Conv2d, "detached")
def conv_grad_bias_missing(node: Any, g: Array, right: Right) -> Gradients:
    """The bias gets no gradient."""
    return (*right(g)[:2], None)


@mutant(Conv2d, "permuted")
def conv_grad_weight_batch_mixed(node: Any, g: Array, right: Right) -> Gradients:
    """``grad_weight`` pairs each image with the gradient of another one."""
    grads = right(g)
    return (grads[0], right(g[::-1].copy())[1], grads[2])
