"""Second witnesses: every operation once more, as float64 loops over single numbers, importing nothing of ours.

Nothing here is fast, shares code with what it judges, or knows of strides in memory. An oracle takes plain integers
and pairs where the library takes a Window, and gathers where the library scatters wherever that is possible.
"""

from __future__ import annotations

import math
from itertools import product
from math import isnan

import numpy as np


def output_length(length, size, stride, padding, dilation, ceil_mode=False):
    """The number of window positions on one axis, found by trying them: no formula."""
    count = 0
    while True:
        first = count * stride - padding
        last = first + (size - 1) * dilation
        fits = last <= length + padding - 1
        # ceil_mode keeps one window that sticks out, provided that it starts in the image or its left padding
        previous_last = last - stride
        sticks_out = ceil_mode and count > 0 and previous_last < length + padding - 1 and first < length
        if not (fits or sticks_out):
            return count
        count += 1


def _geometry(x_shape, size, stride, padding, dilation, ceil_mode=False):
    return tuple(
        output_length(x_shape[2 + axis], size[axis], stride[axis], padding[axis], dilation[axis], ceil_mode)
        for axis in (0, 1)
    )


def _tap(oh, ow, i, j, stride, padding, dilation):
    """The pixel under tap (i, j) of the window at (oh, ow)."""
    return oh * stride[0] - padding[0] + i * dilation[0], ow * stride[1] - padding[1] + j * dilation[1]


# ---- patches ---------------------------------------------------------------------------------------------------------


def im2col(x, size, stride, padding, dilation):
    """(N, C KH KW, OH OW)."""
    N, C, H, W = x.shape
    (KH, KW), (OH, OW) = size, _geometry(x.shape, size, stride, padding, dilation)
    columns = np.zeros((N, C * KH * KW, OH * OW))
    for n, c, i, j, oh, ow in product(*map(range, (N, C, KH, KW, OH, OW))):
        h, w = _tap(oh, ow, i, j, stride, padding, dilation)
        if 0 <= h < H and 0 <= w < W:
            columns[n, (c * KH + i) * KW + j, oh * OW + ow] = x[n, c, h, w]
    return columns


def col2im(columns, x_shape, size, stride, padding, dilation):
    """(N, C, H, W): what each pixel lent to im2col, added up."""
    N, C, H, W = x_shape
    (KH, KW), (OH, OW) = size, _geometry(x_shape, size, stride, padding, dilation)
    x = np.zeros(x_shape)
    for n, c, i, j, oh, ow in product(*map(range, (N, C, KH, KW, OH, OW))):
        h, w = _tap(oh, ow, i, j, stride, padding, dilation)
        if 0 <= h < H and 0 <= w < W:
            x[n, c, h, w] += columns[n, (c * KH + i) * KW + j, oh * OW + ow]
    return x


# ---- convolution -----------------------------------------------------------------------------------------------------


def _products(x_shape, O, size, stride, padding, dilation, groups):
    """Every (output, weight, input) index triple whose product enters a convolution."""
    N, C, H, W = x_shape
    OH, OW = _geometry(x_shape, size, stride, padding, dilation)
    for o, c, i, j, oh, ow in product(range(O), range(C // groups), *map(range, (*size, OH, OW))):
        h, w = _tap(oh, ow, i, j, stride, padding, dilation)
        if 0 <= h < H and 0 <= w < W:
            seen = (o // (O // groups)) * (C // groups) + c
            for n in range(N):
                yield (n, o, oh, ow), (o, c, i, j), (n, seen, h, w)


def conv_forward(x, weight, stride, padding, dilation, groups):
    """(N, O, OH, OW)."""
    O, _, *size = weight.shape
    y = np.zeros((x.shape[0], O, *_geometry(x.shape, size, stride, padding, dilation)))
    x, weight = x.astype(float), weight.astype(float)
    for out, tap, seen in _products(x.shape, O, size, stride, padding, dilation, groups):
        y[out] += weight[tap] * x[seen]
    return y


def conv_grad_input(grad_output, weight, x_shape, stride, padding, dilation, groups):
    """(N, C, H, W)."""
    O, _, *size = weight.shape
    grad_x = np.zeros(x_shape)
    grad_output, weight = grad_output.astype(float), weight.astype(float)
    for out, tap, seen in _products(x_shape, O, size, stride, padding, dilation, groups):
        grad_x[seen] += weight[tap] * grad_output[out]
    return grad_x


def conv_grad_weight(grad_output, x, size, stride, padding, dilation, groups):
    """(O, C/G, KH, KW)."""
    O = grad_output.shape[1]
    grad_weight = np.zeros((O, x.shape[1] // groups, *size))
    grad_output, x = grad_output.astype(float), x.astype(float)
    for out, tap, seen in _products(x.shape, O, size, stride, padding, dilation, groups):
        grad_weight[tap] += grad_output[out] * x[seen]
    return grad_weight


# ---- normalization ---------------------------------------------------------------------------------------------------


def batch_statistics(x):
    """Mean and biased variance of each channel."""
    N, C, H, W = x.shape
    mean, variance = np.zeros(C), np.zeros(C)
    for c in range(C):
        values = [float(x[n, c, h, w]) for n, h, w in product(range(N), range(H), range(W))]
        mean[c] = sum(values) / len(values)
        variance[c] = sum((value - mean[c]) ** 2 for value in values) / len(values)
    return mean, variance


def normalize(x, mean, inverse_std, weight, bias, addend=None, relu=False):
    """(N, C, H, W)."""
    y = np.zeros(x.shape)
    for index in np.ndindex(*x.shape):
        c = index[1]
        value = (float(x[index]) - float(mean[c])) * float(inverse_std[c]) * float(weight[c]) + float(bias[c])
        if addend is not None:
            value += float(addend[index])
        y[index] = 0.0 if relu and value < 0 else value
    return y


def batch_norm_backward(grad_output, x, mean, inverse_std, weight, output=None):
    """(grad_x, grad_weight, grad_bias, grad_addend), from the whole Jacobian of one channel's normalization.

    With x_hat_a = (x_a - mean) s and s = (variance + eps)^(-1/2),
    d x_hat_a / d x_b = s ([a = b] - 1/m - x_hat_a x_hat_b / m): summed here pair by pair, term by term.
    """
    N, C, H, W = x.shape
    grad_x, grad_weight, grad_bias, gated = np.zeros(x.shape), np.zeros(C), np.zeros(C), np.zeros(x.shape)
    for c in range(C):
        places = [(n, c, h, w) for n, h, w in product(range(N), range(H), range(W))]
        s, m = float(inverse_std[c]), len(places)
        x_hat = {a: (float(x[a]) - float(mean[c])) * s for a in places}
        for a in places:
            gated[a] = 0.0 if output is not None and output[a] <= 0 else float(grad_output[a])
            grad_weight[c] += gated[a] * x_hat[a]
            grad_bias[c] += gated[a]
        for b in places:
            slopes = (s * ((a == b) - 1 / m - x_hat[a] * x_hat[b] / m) for a in places)
            grad_x[b] = sum(gated[a] * float(weight[c]) * slope for a, slope in zip(places, slopes, strict=True))
    return grad_x, grad_weight, grad_bias, gated


def normalize_backward(grad_output, x, mean, inverse_std, weight, output=None):
    """(grad_x, grad_weight, grad_bias, grad_addend) for constant statistics."""
    C = x.shape[1]
    grad_x, grad_weight, grad_bias, gated = np.zeros(x.shape), np.zeros(C), np.zeros(C), np.zeros(x.shape)
    for a in np.ndindex(*x.shape):
        c = a[1]
        gated[a] = 0.0 if output is not None and output[a] <= 0 else float(grad_output[a])
        grad_x[a] = gated[a] * float(weight[c]) * float(inverse_std[c])
        grad_weight[c] += gated[a] * (float(x[a]) - float(mean[c])) * float(inverse_std[c])
        grad_bias[c] += gated[a]
    return grad_x, grad_weight, grad_bias, gated


# ---- activation ------------------------------------------------------------------------------------------------------


def relu(x):
    """max(x, 0); NaN stays NaN."""
    y = np.zeros(x.shape)
    for index in np.ndindex(*x.shape):
        value = float(x[index])
        y[index] = value if value > 0 or isnan(value) else 0.0
    return y


def relu_backward(grad_output, output):
    """grad_output where output > 0 or is NaN."""
    grad_x = np.zeros(output.shape)
    for index in np.ndindex(*output.shape):
        if output[index] > 0 or isnan(output[index]):
            grad_x[index] = grad_output[index]
    return grad_x


def add(x, y):
    """x + y."""
    total = np.zeros(x.shape)
    for index in np.ndindex(*x.shape):
        total[index] = float(x[index]) + float(y[index])
    return total


# ---- pooling ---------------------------------------------------------------------------------------------------------


def max_pool(x, size, stride, padding, dilation, ceil_mode=False):
    """(y, argmax); a window without a pixel gives (-inf, -1)."""
    N, C, H, W = x.shape
    OH, OW = _geometry(x.shape, size, stride, padding, dilation, ceil_mode)
    y, argmax = np.full((N, C, OH, OW), -np.inf), np.full((N, C, OH, OW), -1)
    for n, c, oh, ow in np.ndindex(N, C, OH, OW):
        pixels = [_tap(oh, ow, i, j, stride, padding, dilation) for i, j in np.ndindex(*size)]
        candidates = [(float(x[n, c, h, w]), h * W + w) for h, w in pixels if 0 <= h < H and 0 <= w < W]
        invalid = [candidate for candidate in candidates if isnan(candidate[0])]
        if candidates:
            y[n, c, oh, ow], argmax[n, c, oh, ow] = (invalid or [max(candidates, key=lambda pair: pair[0])])[0]
    return y, argmax


def max_pool_backward(grad_output, argmax, x_shape):
    """Each pixel collects the gradients of the windows that it won."""
    W = x_shape[3]
    grad_x = np.zeros(x_shape)
    for n, c, oh, ow in np.ndindex(*argmax.shape):
        if argmax[n, c, oh, ow] >= 0:
            h, w = divmod(int(argmax[n, c, oh, ow]), W)
            grad_x[n, c, h, w] += float(grad_output[n, c, oh, ow])
    return grad_x


def _counted_taps(x_shape, size, stride, padding, oh, ow, count_include_pad):
    """(pixels of the image under a window, by what their sum is divided)."""
    H, W = x_shape[2:]
    taps = [_tap(oh, ow, i, j, stride, padding, (1, 1)) for i, j in np.ndindex(*size)]
    pixels = [(h, w) for h, w in taps if 0 <= h < H and 0 <= w < W]
    padded = [(h, w) for h, w in taps if h < H + padding[0] and w < W + padding[1]]
    return pixels, max(1, len(padded if count_include_pad else pixels))


def avg_pool(x, size, stride, padding, ceil_mode=False, count_include_pad=True):
    """(N, C, OH, OW)."""
    OH, OW = _geometry(x.shape, size, stride, padding, (1, 1), ceil_mode)
    y = np.zeros((*x.shape[:2], OH, OW))
    for n, c, oh, ow in np.ndindex(*y.shape):
        pixels, divisor = _counted_taps(x.shape, size, stride, padding, oh, ow, count_include_pad)
        y[n, c, oh, ow] = sum(float(x[n, c, h, w]) for h, w in pixels) / divisor
    return y


def avg_pool_backward(grad_output, x_shape, size, stride, padding, ceil_mode=False, count_include_pad=True):
    """(N, C, H, W)."""
    grad_x = np.zeros(x_shape)
    for n, c, oh, ow in np.ndindex(*grad_output.shape):
        pixels, divisor = _counted_taps(x_shape, size, stride, padding, oh, ow, count_include_pad)
        for h, w in pixels:
            grad_x[n, c, h, w] += float(grad_output[n, c, oh, ow]) / divisor
    return grad_x


# ---- update ----------------------------------------------------------------------------------------------------------


def sgd(parameter, grad, velocity, lr, momentum, weight_decay, nesterov, caffe):
    """(new parameter, new velocity or None)."""
    new_parameter = np.zeros(parameter.shape)
    new_velocity = None if velocity is None else np.zeros(parameter.shape)
    for index in np.ndindex(*parameter.shape):
        old = float(parameter[index])
        g = float(grad[index]) + (weight_decay * old if weight_decay else 0.0)  # 0 times infinity isn't added
        if velocity is None:
            new_parameter[index] = old - lr * g
        elif caffe:
            v = new_velocity[index] = momentum * float(velocity[index]) + lr * g
            new_parameter[index] = old - (lr * g + momentum * v if nesterov else v)
        else:
            v = new_velocity[index] = momentum * float(velocity[index]) + g
            new_parameter[index] = old - lr * (g + momentum * v if nesterov else v)
    return new_parameter, new_velocity


# ---- shortcut


def subsample_and_pad(x, channels, stride):
    """Option A of He et al. 2015, section 3.3, number by number."""
    N, C, H, W = x.shape
    y = np.zeros((N, channels, (H + stride - 1) // stride, (W + stride - 1) // stride))
    for n, c, h, w in np.ndindex(N, C, *y.shape[2:]):
        y[n, c, h, w] = x[n, c, h * stride, w * stride]
    return y


def subsample_and_pad_backward(grad_output, x_shape, stride):
    """The adjoint: each number that was kept sends its gradient back."""
    grad_x = np.zeros(x_shape)
    for n, c, h, w in np.ndindex(*x_shape):
        if h % stride == 0 and w % stride == 0:
            grad_x[n, c, h, w] = grad_output[n, c, h // stride, w // stride]
    return grad_x


# ---- cross-entropy


def _smoothed(target, K, label_smoothing):
    """q, the distribution that the softmax is compared with, row by row."""
    q = np.full((len(target), K), label_smoothing / K)
    for n, label in enumerate(target):
        q[n, label] += 1 - label_smoothing
    return q


def cross_entropy(logits, target, label_smoothing):
    """(losses, probabilities), by exact sums; a term whose share is 0 isn't added, whatever its logarithm."""
    probabilities, losses = np.empty(logits.shape), np.empty(len(logits))
    q = _smoothed(target, logits.shape[1], label_smoothing)
    for n, row in enumerate(np.asarray(logits, np.float64)):
        largest = max(row)
        exponentials = [math.exp(z - largest) for z in row]
        total = math.fsum(exponentials)
        probabilities[n] = [e / total for e in exponentials]
        losses[n] = -math.fsum(q[n, k] * (z - largest - math.log(total)) for k, z in enumerate(row) if q[n, k])
    return losses, probabilities


def cross_entropy_backward(probabilities, target, label_smoothing, share):
    """The gradient of each row's loss, times its share."""
    return (probabilities - _smoothed(target, probabilities.shape[1], label_smoothing)) * share[:, None]
