"""Cross-entropy: the softmax of each row, its loss against an integer class, and their gradient.

Contract, for each implementation, with z = logits (N, K), t = target (N,) integers in 0 ... K - 1, s = label_smoothing
and q_k = (1 - s) [k = t] + s / K (Szegedy et al. 2016, section 7):

- ``cross_entropy`` gives losses (N,), -sum_k q_k log softmax(z)_k, and probabilities (N, K), softmax(z). The largest
  logit of a row is subtracted from each before anything else is done, so that nothing overflows and an offset common
  to all costs no digits. Without smoothing, a class with logit -inf (masked) has probability 0 and costs nothing.
- NaN and infinities: a row that holds a NaN or +inf, or -inf alone, has NaN for its loss and all its probabilities; one
  whose target has -inf, or any class with smoothing, costs +inf. No other row is touched, in either direction.
- ``cross_entropy_backward`` gives grad_logits (N, K): (probabilities - q) share, with ``share`` (N,) the gradient with
  respect to each loss.
- float32 or float64, kept; any strides accepted; new C-contiguous arrays returned; inputs never written. Shapes and
  the range of target are checked here.

Cost: forward reads N K numbers, writes as many, and takes the exponential of each (counted as one operation of four);
backward reads and writes N K.
"""

from __future__ import annotations

from minires_kernels.arrays import Array
from minires_kernels.fit import axes, number, require, require_integers
from minires_kernels.registry import select

FAMILY = "cross_entropy"
KERNELS = {
    "cross_entropy": ("losses n", "probabilities n k"),
    "cross_entropy_backward": ("grad_logits n k",),
}
"""Each kernel, with the names of its results and of their axes: what a report of a difference calls them."""


def cross_entropy(logits: Array, target: Array, label_smoothing: float = 0.0) -> tuple[Array, Array]:
    """(losses (N,), probabilities (N, K)) of ``logits`` (N, K) against the classes ``target`` (N,).

    Raises ValueError for another shape and for a class that isn't there, TypeError for one that isn't an integer.
    """
    shape = axes("cross_entropy", "logits", logits, "N, K")
    require("cross_entropy", logits=(logits, shape))
    _check_target("cross_entropy", target, *shape)
    label_smoothing = _share("cross_entropy", label_smoothing)
    kernel = select(FAMILY, "cross_entropy", logits, target, label_smoothing)
    losses, probabilities = kernel(logits, target, label_smoothing)
    return losses, probabilities


def cross_entropy_backward(probabilities: Array, target: Array, label_smoothing: float, share: Array) -> Array:
    """The gradient with respect to the logits (N, K), for the gradient ``share`` (N,) with respect to each loss.

    Raises as :func:`cross_entropy` does.
    """
    shape = axes("cross_entropy_backward", "probabilities", probabilities, "N, K")
    require("cross_entropy_backward", probabilities=(probabilities, shape), share=(share, shape[:1]))
    _check_target("cross_entropy_backward", target, *shape)
    label_smoothing = _share("cross_entropy_backward", label_smoothing)
    kernel = select(FAMILY, "cross_entropy_backward", probabilities, target, label_smoothing, share)
    return kernel(probabilities, target, label_smoothing, share)


def _share(op: str, label_smoothing: float) -> float:
    label_smoothing = number(op, "label_smoothing", label_smoothing)
    if not 0 <= label_smoothing <= 1:
        raise ValueError(f"{op}: label_smoothing must lie in [0, 1], got {label_smoothing}")
    return label_smoothing


def _check_target(op: str, target: Array, N: int, K: int) -> None:
    if K == 0:
        raise ValueError(f"{op}: there is no class; logits or probabilities must be (N, K) with K > 0, got {(N, K)}")
    if axes(op, "target", target, "N") != (N,):
        raise ValueError(f"{op}: target must have shape ({N},), a class for each row, got {target.shape}")
    require_integers(op, "target", target, 0, K)


def cost(kernel: str, N: int, K: int, itemsize: int = 4) -> tuple[int, int]:
    """(floating-point operations, bytes that must move) of one call."""
    return N * K * (4 if kernel == "cross_entropy" else 2), 2 * itemsize * N * K
