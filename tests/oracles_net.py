"""Second witnesses above the kernels: operations on tensors, and a whole ResNet with a backward written by hand.

Everything is float64 and NumPy alone, and imports nothing of ours. The operations are loops over single numbers. The
net is written with einsum over windows, since its 40 million multiply-adds an image are too many for loops; each of
its gradients is a formula of its own here (the gradient of a convolution's input, for one, is a convolution of the
spread-out gradient with the turned kernel, where the library scatters columns), so the two share no derivation.
"""

from __future__ import annotations

import math

import numpy as np

# ---- operations, as loops ------------------------------------------------------------------------


def linear(x, weight, bias):
    """x weight^T + bias."""
    y = np.zeros((len(x), len(weight)))
    for n, o in np.ndindex(*y.shape):
        y[n, o] = math.fsum(float(x[n, i]) * float(weight[o, i]) for i in range(x.shape[1])) + float(bias[o])
    return y


def log_softmax(row):
    """The logarithm of the softmax of a sequence of numbers, some of which may be -inf."""
    largest = max(map(float, row))
    logarithm = math.log(math.fsum(math.exp(float(z) - largest) for z in row))
    return [float(z) - largest - logarithm for z in row]


def cross_entropy(logits, target, label_smoothing):
    """The loss of each row: minus the sum of q log p, with q = (1 - s) onehot + s / classes."""
    losses = []
    for row, label in zip(logits, target, strict=True):
        shares = [label_smoothing / len(row) + (1 - label_smoothing) * (k == label) for k in range(len(row))]
        losses.append(-math.fsum(q * p for q, p in zip(shares, log_softmax(row), strict=True) if q))
    return np.array(losses)


def weighted_cross_entropy(logits, target, weight, ignore_index, label_smoothing):
    """(the loss of each place, what their mean divides by), for logits (K,) or (N, K, ...): place by place, class by
    class. ``target``: classes, or probabilities like logits; ``weight`` (K,)."""
    logits = np.asarray(logits, float)
    rows = np.moveaxis(logits, min(1, logits.ndim - 1), -1)
    is_soft = np.ndim(target) == logits.ndim
    target = np.moveaxis(np.asarray(target), min(1, logits.ndim - 1), -1) if is_soft else np.asarray(target)
    K = rows.shape[-1]
    losses, divisor = np.zeros(rows.shape[:-1]), 0.0
    for place in np.ndindex(*losses.shape):
        if not is_soft and target[place] == ignore_index:
            continue
        q = target[place] if is_soft else [float(k == target[place]) for k in range(K)]
        shares = [float(weight[k]) * (label_smoothing / K + (1 - label_smoothing) * q[k]) for k in range(K)]
        logarithms = log_softmax(rows[place])
        losses[place] = -math.fsum(share * log for share, log in zip(shares, logarithms, strict=True) if share)
        divisor += 1.0 if is_soft else float(weight[target[place]])
    return losses, divisor


def adaptive_avg_pool(x, output_size):
    """The mean over rows floor(oh H / OH) to ceil((oh + 1) H / OH) - 1, and columns likewise."""
    H, W = x.shape[2:]
    OH, OW = output_size
    y = np.zeros((*x.shape[:2], OH, OW))
    for n, c, oh, ow in np.ndindex(*y.shape):
        rows = range(math.floor(oh * H / OH), math.ceil((oh + 1) * H / OH))
        columns = range(math.floor(ow * W / OW), math.ceil((ow + 1) * W / OW))
        y[n, c, oh, ow] = math.fsum(float(x[n, c, h, w]) for h in rows for w in columns) / (len(rows) * len(columns))
    return y


def subsample_and_pad(x, channels, stride):
    """Every stride-th pixel; zeros in the channels that x doesn't have."""
    N, C, H, W = x.shape
    y = np.zeros((N, channels, -(-H // stride), -(-W // stride)))
    for n, c, h, w in np.ndindex(*y.shape):
        if c < C:
            y[n, c, h, w] = x[n, c, h * stride, w * stride]
    return y


# ---- the parts of the net: each returns its output and a function from the output's gradient to the inputs'


def _windows(x, size, stride):
    """(N, C, OH, OW, KH, KW): every window of ``x``, which has its padding already."""
    return np.lib.stride_tricks.sliding_window_view(x, size, (2, 3))[:, :, ::stride, ::stride]


def _surrounded(x, width):
    return np.pad(x, ((0, 0), (0, 0), (width, width), (width, width)))


def convolution(x, weight, stride):
    """A square, odd kernel with the padding that keeps the size at stride 1, without bias."""
    size = weight.shape[2:]
    reach = size[0] // 2
    windows = _windows(_surrounded(x, reach), size, stride)
    y = np.einsum("ncyxij,ocij->noyx", windows, weight, optimize=True)

    def backward(grad_y):
        grad_weight = np.einsum("noyx,ncyxij->ocij", grad_y, windows, optimize=True)
        # each input pixel sees the outputs that it reached, through the kernel turned by 180 degrees
        spread = np.zeros((*grad_y.shape[:2], *x.shape[2:]))
        spread[:, :, ::stride, ::stride] = grad_y
        turned = weight[:, :, ::-1, ::-1]
        grad_x = np.einsum("noyxij,ocij->ncyx", _windows(_surrounded(spread, reach), size, 1), turned, optimize=True)
        return grad_x, grad_weight

    return y, backward


def batch_norm(x, gamma, beta, eps=1e-5):
    """With the statistics of the batch; the third result is (mean, unbiased variance) for the running statistics."""
    axes, count = (0, 2, 3), x.size // x.shape[1]
    mean = x.mean(axes, keepdims=True)
    centred = x - mean
    variance = (centred**2).mean(axes, keepdims=True)
    deviation = np.sqrt(variance + eps)
    gamma, beta = gamma.reshape(1, -1, 1, 1), beta.reshape(1, -1, 1, 1)
    y = centred / deviation * gamma + beta

    def backward(grad_y):
        # step by step through y = gamma centred / deviation + beta, as the original paper derives it
        grad_gamma = (grad_y * centred / deviation).sum(axes)
        grad_beta = grad_y.sum(axes)
        grad_x_hat = grad_y * gamma
        grad_variance = (grad_x_hat * centred).sum(axes, keepdims=True) * -0.5 / deviation**3
        grad_mean = -(grad_x_hat / deviation).sum(axes, keepdims=True)
        grad_x = grad_x_hat / deviation + grad_variance * 2 * centred / count + grad_mean / count
        return grad_x, grad_gamma, grad_beta

    return y, backward, (mean.ravel(), variance.ravel() * count / (count - 1))


def shortcut_a(x, channels, stride):
    """Option A: strided pixels, trailing zero channels."""
    missing = channels - x.shape[1]
    y = np.pad(x[:, :, ::stride, ::stride], ((0, 0), (0, missing), (0, 0), (0, 0)))

    def backward(grad_y):
        grad_x = np.zeros(x.shape)
        grad_x[:, :, ::stride, ::stride] = grad_y[:, : x.shape[1]]
        return grad_x

    return y, backward


def shift_into_the_widest_gap(y, reach=0.05):
    """Per channel, the number within ``reach`` of 0 whose addition moves all of ``y`` farthest from 0."""
    shifts = np.zeros(y.shape[1])
    for c in range(y.shape[1]):
        forbidden = np.sort(-y[:, c].ravel())
        forbidden = forbidden[np.abs(forbidden) < reach]
        edges = np.concatenate([[-reach], forbidden, [reach]])
        widest = np.diff(edges).argmax()
        shifts[c] = (edges[widest] + edges[widest + 1]) / 2
    return shifts


class ResidualNet:
    """One training step of a CIFAR ResNet with option A (He et al. 2015, section 4.2) from named float64 arrays.

    ``state`` has the names that torchvision gives to the parameters; after :meth:`step`, ``gradients`` and
    ``statistics`` (the running ones) have them too, and ``margin`` is the least distance of any number from the kink of
    its ReLU. One number of 1.5 million that falls on the other side in float32 changes some gradients by a percent, so
    with ``dodge_kinks`` the forward pass first moves the batch norms' biases, in ``state``, to where the margin is
    large: then a comparison in any precision is about rounding alone.
    """

    def __init__(self, state, depth, *, momentum=0.1, dodge_kinks=False):
        self.state = {name: np.asarray(array, np.float64) for name, array in state.items()}
        self.depth, self.momentum, self.dodge_kinks = depth, momentum, dodge_kinks
        self.gradients, self.statistics, self.margin = {}, {}, np.inf

    def step(self, x, target):
        """The loss; everything else is in ``gradients`` and ``statistics``."""
        x, stem_backward = self._conv_norm(x, "conv1", "bn1", 1)
        x, stem_gate = self._rectify(x, "bn1")
        backwards = []
        for stage in (1, 2, 3):
            for block in range((self.depth - 2) // 6):
                x, backward = self._block(x, f"layer{stage}.{block}", 2 if stage > 1 and block == 0 else 1)
                backwards.append(backward)
        loss, grad = self._head(x, target)
        for backward in reversed(backwards):
            grad = backward(grad)
        stem_backward(stem_gate(grad))
        return loss

    def _conv_norm(self, x, conv, norm, stride):
        convolved, conv_backward = convolution(x, self.state[f"{conv}.weight"], stride)
        y, norm_backward, batch = batch_norm(convolved, self.state[f"{norm}.weight"], self.state[f"{norm}.bias"])
        for name, new in zip(("running_mean", "running_var"), batch, strict=True):
            old = self.state[f"{norm}.{name}"]
            self.statistics[f"{norm}.{name}"] = (1 - self.momentum) * old + self.momentum * new

        def backward(grad_y):
            grad, self.gradients[f"{norm}.weight"], self.gradients[f"{norm}.bias"] = norm_backward(grad_y)
            grad_x, self.gradients[f"{conv}.weight"] = conv_backward(grad)
            return grad_x

        return y, backward

    def _rectify(self, y, norm):
        """The ReLU behind ``norm`` (and an addition): max(y, 0) and its backward pass."""
        if self.dodge_kinks:
            shifts = shift_into_the_widest_gap(y)
            self.state[f"{norm}.bias"] = self.state[f"{norm}.bias"] + shifts
            y = y + shifts.reshape(1, -1, 1, 1)
        self.margin = min(self.margin, np.abs(y).min())
        return np.where(y > 0, y, 0.0), lambda grad_output: np.where(y > 0, grad_output, 0.0)

    def _block(self, x, path, stride):
        inner, first_backward = self._conv_norm(x, f"{path}.conv1", f"{path}.bn1", stride)
        inner, inner_gate = self._rectify(inner, f"{path}.bn1")
        residual, second_backward = self._conv_norm(inner, f"{path}.conv2", f"{path}.bn2", 1)
        shortcut, shortcut_backward = shortcut_a(x, residual.shape[1], stride)
        y, gate = self._rectify(residual + shortcut, f"{path}.bn2")

        def backward(grad_y):
            grad_sum = gate(grad_y)
            return shortcut_backward(grad_sum) + first_backward(inner_gate(second_backward(grad_sum)))

        return y, backward

    def _head(self, x, target):
        (N, _, H, W), weight = x.shape, self.state["fc.weight"]
        features = x.mean((2, 3))
        logits = features @ weight.T + self.state["fc.bias"]
        exponential = np.exp(logits - logits.max(1, keepdims=True))
        probabilities = exponential / exponential.sum(1, keepdims=True)
        onehot = np.eye(len(weight))[target]
        grad_logits = (probabilities - onehot) / N
        self.gradients["fc.weight"] = np.einsum("nk,nf->kf", grad_logits, features)
        self.gradients["fc.bias"] = grad_logits.sum(0)
        grad_x = np.broadcast_to((grad_logits @ weight)[:, :, None, None] / (H * W), x.shape)
        return -np.log(probabilities[onehot == 1]).mean(), grad_x
