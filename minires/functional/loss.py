"""The loss of classification: softmax cross-entropy."""

from __future__ import annotations

from typing import Literal

from minires.function import Function
from minires.functional.checks import require_tensor, shapes
from minires.tensor import Tensor, apply
from minires_kernels import cross_entropy as kernels
from minires_kernels.arrays import Array, array_module

Reduction = Literal["mean", "sum", "none"]


class CrossEntropy(Function):
    """-sum_k q_k log softmax(z)_k per row, with q the smoothed one-hot target: dz = (softmax(z) - q) g."""

    def __init__(self, target: Array, label_smoothing: float, reduction: Reduction) -> None:
        self._target, self.label_smoothing, self.reduction = target, label_smoothing, reduction

    def forward(self, logits: Array) -> Array:
        losses, probabilities = kernels.cross_entropy(logits, self._target, self.label_smoothing)  # (N,), (N, K)
        self.save_for_backward(probabilities=probabilities)
        return losses if self.reduction == "none" else losses.sum() if self.reduction == "sum" else losses.mean()

    def backward(self, grad_output: Array) -> tuple[Array | None, ...]:
        probabilities = self.saved.probabilities
        share = grad_output / probabilities.dtype.type(len(probabilities)) if self.reduction == "mean" else grad_output
        shares = array_module(grad_output).broadcast_to(share, self._target.shape)  # one for each row: (N,)
        return (kernels.cross_entropy_backward(probabilities, self._target, self.label_smoothing, shares),)


def cross_entropy(
    logits: Tensor, target: Array | Tensor, *, label_smoothing: float = 0.0, reduction: Reduction = "mean"
) -> Tensor:
    """Softmax cross-entropy of ``logits`` (N, classes) against ``target`` (N,), the integer class of each row.

    ``label_smoothing`` s mixes the one-hot target with the uniform distribution: (1 - s) onehot + s / classes (Szegedy
    et al. 2016). ``reduction`` is "mean" or "sum" over the batch (a 0-d result) or "none" (N,).

    Raises ValueError for shapes that don't fit, classes out of range (it names the first), an empty batch under "mean",
    label_smoothing outside [0, 1] and an unknown reduction; TypeError for a target that isn't integers.
    """
    require_tensor("cross_entropy", "logits", logits, ndim=2)
    labels = target.data if isinstance(target, Tensor) else array_module(logits.data).asarray(target)
    if labels.dtype.kind not in "iu":
        raise TypeError(
            f"cross_entropy: target must hold integer classes, got {labels.dtype}; use .astype(numpy.int64)"
        )
    N, classes = logits.shape
    if labels.shape != (N,):
        raise ValueError(f"cross_entropy: target must have shape ({N},), got {labels.shape}; {shapes(logits=logits)}")
    wrong = (labels < 0) | (labels >= classes)
    if wrong.any():
        first = int(wrong.argmax())
        raise ValueError(
            f"cross_entropy: target[{first}] is {int(labels[first])}, but classes run from 0 to {classes - 1}; "
            f"{shapes(logits=logits)}"
        )
    if not 0 <= label_smoothing <= 1:
        raise ValueError(f"cross_entropy: label_smoothing must lie in [0, 1], got {label_smoothing}")
    if reduction not in ("mean", "sum", "none"):
        raise ValueError(f"cross_entropy: reduction must be 'mean', 'sum' or 'none', got {reduction!r}")
    if N == 0 and reduction == "mean":
        raise ValueError("cross_entropy: the mean over an empty batch doesn't exist; use reduction='sum'")
    return apply(CrossEntropy(labels.copy(), label_smoothing, reduction), logits)
