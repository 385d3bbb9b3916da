"""The second witness: PyTorch, on every call on which the implementations are judged by our own oracles.

An oracle that agrees with PyTorch to 1e-12 and an implementation that agrees with the oracle leave no room for a shared
misreading of a formula.
"""

import numpy as np
import pytest

from tests.kernels.cases import CASES
from tests.kernels.test_contract import assert_near

torch = pytest.importorskip("torch")
F = torch.nn.functional
pytestmark = pytest.mark.witness


def with_gradients(function, upstream, *inputs):
    """(value, the gradient for each input) under ``upstream``."""
    inputs = [torch.tensor(x, requires_grad=True) for x in inputs]
    value = function(*inputs)
    value.backward(torch.from_numpy(upstream))
    return value.detach().numpy(), *(x.grad.numpy() for x in inputs)


def options(window):
    return {"stride": window.stride, "padding": window.padding, "dilation": window.dilation}


def im2col(x, window):
    return F.unfold(torch.from_numpy(x), window.size, **options(window)).numpy()


def col2im(columns, x_shape, window):
    return F.fold(torch.from_numpy(columns), x_shape[2:], window.size, **options(window)).numpy()


def forward(x, weight, window, groups):
    return F.conv2d(torch.from_numpy(x), torch.from_numpy(weight), groups=groups, **options(window)).numpy()


def grad_input(grad_output, weight, x_shape, window, groups):
    gradient = torch.nn.grad.conv2d_input(
        x_shape, torch.from_numpy(weight), torch.from_numpy(grad_output), groups=groups, **options(window)
    )
    return gradient.numpy()


def grad_weight(grad_output, x, window, groups):
    shape = (grad_output.shape[1], x.shape[1] // groups, *window.size)
    gradient = torch.nn.grad.conv2d_weight(
        torch.from_numpy(x), shape, torch.from_numpy(grad_output), groups=groups, **options(window)
    )
    return gradient.numpy()


def batch_statistics(x):
    variance, mean = torch.var_mean(torch.from_numpy(x), (0, 2, 3), correction=0)
    return mean.numpy(), variance.numpy()


def normalize(x, mean, inverse_std, weight, bias, addend, relu):
    y = F.batch_norm(*map(torch.from_numpy, (x, mean, inverse_std**-2, weight, bias)), eps=0)
    y = y if addend is None else y + torch.from_numpy(addend)
    return (torch.relu(y) if relu else y).numpy()


def batch_norm_backward(grad_output, x, mean, inverse_std, weight, output, needs_grad_addend, _):
    gated = np.where(output > 0, grad_output, 0) if output is not None else grad_output
    _, grad_x, grad_weight, grad_bias = with_gradients(
        lambda x, weight, bias: F.batch_norm(x, None, None, weight, bias, training=True, eps=1e-5),
        gated, x, weight, np.zeros_like(weight),
    )  # fmt: skip
    return grad_x, grad_weight, grad_bias, gated if needs_grad_addend else None


def normalize_backward(grad_output, x, mean, inverse_std, weight, output, needs_grad_addend, _):
    gated = np.where(output > 0, grad_output, 0) if output is not None else grad_output
    mean, variance = torch.from_numpy(mean), torch.from_numpy(inverse_std**-2)
    _, grad_x, grad_weight, grad_bias = with_gradients(
        lambda x, weight, bias: F.batch_norm(x, mean, variance, weight, bias, eps=0),
        gated, x, weight, np.zeros_like(weight),
    )  # fmt: skip
    return grad_x, grad_weight, grad_bias, gated if needs_grad_addend else None


def relu(x):
    return torch.relu(torch.from_numpy(x)).numpy()


def relu_backward(grad_output, output):
    return torch.ops.aten.threshold_backward(torch.from_numpy(grad_output), torch.from_numpy(output), 0).numpy()


def add(x, y):
    return torch.add(torch.from_numpy(x), torch.from_numpy(y)).numpy()


def add_relu(x, y):
    return torch.relu(torch.from_numpy(x) + torch.from_numpy(y)).numpy()


def max_pool(x, window, ceil_mode):
    y, argmax = F.max_pool2d(
        torch.from_numpy(x), window.size, ceil_mode=ceil_mode, return_indices=True, **options(window)
    )
    return y.numpy(), argmax.numpy()


def avg_pool(x, window, ceil_mode, count_include_pad):
    return F.avg_pool2d(
        torch.from_numpy(x), window.size, window.stride, window.padding, ceil_mode, count_include_pad
    ).numpy()


def avg_pool_backward(grad_output, x_shape, window, ceil_mode, count_include_pad):
    arguments = (window.size, window.stride, window.padding, ceil_mode, count_include_pad)
    return with_gradients(lambda x: F.avg_pool2d(x, *arguments), grad_output, np.zeros(x_shape))[1]


def max_pool_backward(grad_output, argmax, x_shape):
    places = torch.from_numpy(argmax).long().flatten(2)
    planes = torch.zeros(*x_shape[:2], x_shape[2] * x_shape[3], dtype=torch.float64)
    return planes.scatter_add(2, places, torch.from_numpy(grad_output).flatten(2)).reshape(x_shape).numpy()


def _losses(logits, target, label_smoothing):
    return F.cross_entropy(logits, torch.from_numpy(target), label_smoothing=label_smoothing, reduction="none")


def cross_entropy(logits, target, label_smoothing):
    z = torch.from_numpy(logits)
    return _losses(z, target, label_smoothing).numpy(), torch.softmax(z, 1).numpy()


def cross_entropy_backward(probabilities, target, label_smoothing, share):
    with np.errstate(divide="ignore"):
        logits = np.log(probabilities)  # whose softmax they are; a class of probability 0 has -inf
    return with_gradients(lambda z: _losses(z, target, label_smoothing), share, logits)[1]


def _subsampled(x, channels, stride):
    return F.pad(x[:, :, ::stride, ::stride], (0, 0, 0, 0, 0, channels - x.shape[1]))


def subsample_and_pad(x, channels, stride):
    return _subsampled(torch.from_numpy(x), channels, stride).numpy()


def subsample_and_pad_backward(grad_output, x_shape, stride):
    return with_gradients(
        lambda x: _subsampled(x, grad_output.shape[1], stride), grad_output, np.zeros(x_shape)
    )[1]  # fmt: skip


def sgd(parameter, grad, velocity, lr, momentum, weight_decay, nesterov, caffe):
    tensor = torch.nn.Parameter(torch.tensor(parameter))
    tensor.grad = torch.tensor(grad)
    optimizer = torch.optim.SGD([tensor], lr=lr, momentum=momentum, weight_decay=weight_decay, nesterov=nesterov)
    scale = lr if caffe else 1.0  # within one step, Caffe's velocity is lr times PyTorch's
    if velocity is not None:
        optimizer.state[tensor]["momentum_buffer"] = torch.tensor(velocity / scale)
    optimizer.step()
    if velocity is None:
        return tensor.detach().numpy(), None
    return tensor.detach().numpy(), optimizer.state[tensor]["momentum_buffer"].numpy() * scale


# PyTorch answers a window without a pixel with an index outside the image, 20 in a plane of 16. It refuses to pool with
# padding of more than half the window, images without a pixel, and weights without a channel out; its result for images
# without a channel has none either.
NOT_PYTORCH = "a window without a pixel", "much padding", "no channel", "no pixel"
WITNESSED = [case for cases in CASES.values() for case in cases if not case.name.startswith(NOT_PYTORCH)]


@pytest.mark.parametrize("case", WITNESSED, ids=lambda case: f"{case.family}.{case.kernel}-{case}")
def test_the_oracle_agrees_with_pytorch(case):
    witness = globals()[case.kernel]  # the function above that is named after the kernel
    result, expected = witness(*case.arguments("float64")), case.expected("float64")
    result = result if isinstance(result, tuple) else (result,)
    if case.kernel == "max_pool":  # of several NaNs PyTorch names the last one, we the first
        (y, argmax), (_, expected_argmax) = result, expected
        result = y, np.where(np.isnan(y), expected_argmax, argmax)
    assert_near(result, expected, 1e-12)
