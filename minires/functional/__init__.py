"""Functions of tensors, with PyTorch's names: a file holds an op's Functions and its public face."""

from minires.functional.activation import log_softmax, relu, sigmoid, softmax, tanh
from minires.functional.batch_norm import batch_norm, batch_norm_relu
from minires.functional.conv import conv2d
from minires.functional.dropout import dropout
from minires.functional.linear import linear
from minires.functional.loss import cross_entropy
from minires.functional.pooling import adaptive_avg_pool2d, avg_pool2d, max_pool2d
from minires.functional.rearrange import concatenate, pad, stack, where
from minires.functional.shortcut import subsample_and_pad

__all__ = [
    "adaptive_avg_pool2d",
    "avg_pool2d",
    "batch_norm",
    "batch_norm_relu",
    "concatenate",
    "conv2d",
    "cross_entropy",
    "dropout",
    "linear",
    "log_softmax",
    "max_pool2d",
    "pad",
    "relu",
    "sigmoid",
    "softmax",
    "stack",
    "subsample_and_pad",
    "tanh",
    "where",
]
