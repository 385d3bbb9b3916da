"""The loss of classification: softmax cross-entropy."""

from __future__ import annotations

from typing import Literal

import numpy as np

from minires.arguments import require_integer, require_number
from minires.function import Function
from minires.functional.activation import LogSoftmax
from minires.functional.checks import as_array, require_tensor, shapes
from minires.tensor import Tensor, apply
from minires_kernels import cross_entropy as kernels
from minires_kernels.arrays import Array, array_module, total
from minires_kernels.window import shown

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


class WeightedCrossEntropy(Function):
    """-sum_k s_k log softmax(z)_k along the classes, with shares s = weight q: dz = (softmax(z) sum(s) - s) g.

    For everything that the kernel doesn't cover: class weights, ignored places, a target of probabilities (whose own
    gradient is -weight log softmax(z) g), logits (N, K, ...) with the classes on axis 1. q is the smoothed target. A
    share of 0 costs nothing, even where the logarithm is infinite. "mean" divides by ``divisor``.
    """

    def __init__(
        self, weight: Array | None, ignored: Array | None, divisor: float, label_smoothing: float, reduction: Reduction
    ) -> None:
        self._weight, self._ignored, self.divisor = weight, ignored, divisor
        self.label_smoothing, self.reduction = label_smoothing, reduction

    def forward(self, logits: Array, target: Array) -> Array:
        xp, dtype = array_module(logits), logits.dtype.type
        self._axis = _class_axis(logits)
        log_softmax = LogSoftmax(self._axis).forward(logits)  # (N, K, ...)
        smoothing = self.label_smoothing
        shares = self._weighted(target * dtype(1 - smoothing) + dtype(smoothing / logits.shape[self._axis]))
        if self._ignored is not None:
            shares = xp.where(xp.expand_dims(self._ignored, self._axis), 0, shares)
        self.save_for_backward(log_softmax=log_softmax, shares=shares)
        losses = total(shares * xp.where(shares == 0, 0, -log_softmax), self._axis)  # (N, ...)
        if self.reduction == "none":
            return losses
        return total(losses) if self.reduction == "sum" else self._averaged(total(losses))

    def backward(self, grad_output: Array) -> tuple[Array | None, ...]:
        log_softmax, shares = self.saved.log_softmax, self.saved.shares
        xp, axis = array_module(log_softmax), self._axis
        grad = self._averaged(grad_output) if self.reduction == "mean" else grad_output
        rows = log_softmax.shape[:axis] + log_softmax.shape[axis + 1 :]
        grad = xp.expand_dims(xp.broadcast_to(grad, rows), axis)  # (N, 1, ...)
        with np.errstate(invalid="ignore"):  # infinity times 0, where all is ignored
            grad_logits = (xp.exp(log_softmax) * total(shares, axis, keepdims=True) - shares) * grad
        if self._ignored is not None:  # nothing flows back from there, be it NaN, or all there is
            grad_logits = xp.where(xp.expand_dims(self._ignored, axis), 0, grad_logits)
        grad_target = None
        if self.needs_input_grad[1]:
            grad_target = self._weighted(log_softmax * -grad) * log_softmax.dtype.type(1 - self.label_smoothing)
        return grad_logits, grad_target

    def _weighted(self, x: Array) -> Array:
        """``x`` (N, K, ...) times the weight of each class."""
        if self._weight is None:
            return x
        return x * self._weight.reshape((-1,) + (1,) * (x.ndim - self._axis - 1))

    def _averaged(self, x: Array) -> Array:
        """``x`` over the divisor; NaN where nothing counts, as in PyTorch, because there is no mean of nothing."""
        with np.errstate(divide="ignore", invalid="ignore"):
            return x / x.dtype.type(self.divisor)


def _class_axis(logits: Array | Tensor) -> int:
    """Where the classes are: (K,) or (N, K, ...)."""
    return min(1, logits.ndim - 1)


def cross_entropy(
    logits: Tensor,
    target: Array | Tensor,
    weight: Array | Tensor | None = None,
    *,
    ignore_index: int = -100,
    label_smoothing: float = 0.0,
    reduction: Reduction = "mean",
) -> Tensor:
    """Softmax cross-entropy of ``logits`` against ``target``: how surprised the predicted probabilities are by it.

    ``logits`` are (N, K), or (N, K, ...) for a class at each place, or (K,). ``target`` is either integers, the class
    of each place: (N,), (N, ...) or (); or probabilities, of the shape and dtype of ``logits`` (as a Tensor it may
    require a gradient). ``weight`` (K,) multiplies what each class costs. Places whose class is ``ignore_index`` cost
    nothing. ``label_smoothing`` s mixes the target with the uniform distribution: (1 - s) target + s / K (Szegedy et
    al. 2016). ``reduction`` is "sum" over all places, "none" (a loss for each), or "mean": the sum over the number of
    places or, for integer targets, over the weights of the classes of those that aren't ignored; NaN if there are none.
    All this is as in PyTorch.

    >>> cross_entropy(Tensor([[0.0, 0.0], [3.0, 0.0]]), [1, -100]).item()  # log 2: the second place is ignored
    0.6931471824645996

    Raises ValueError for shapes that don't fit, classes out of range (it names the first), an empty batch under "mean",
    label_smoothing outside [0, 1], an unknown reduction and an ignore_index beside probabilities; TypeError for a
    target that is neither integers nor probabilities and a weight of another dtype or with a gradient.
    """
    require_tensor("cross_entropy", "logits", logits)
    if not logits.ndim or not logits.shape[_class_axis(logits)]:
        raise ValueError(f"cross_entropy: logits must be (N, K), (N, K, ...) or (K,), got shape {logits.shape}")
    label_smoothing = require_number("cross_entropy", "label_smoothing", label_smoothing, least=0, most=1)
    ignore_index = require_integer("cross_entropy", "ignore_index", ignore_index)
    if not isinstance(reduction, str) or reduction not in ("mean", "sum", "none"):
        raise ValueError(f"cross_entropy: reduction must be 'mean', 'sum' or 'none', got {shown(reduction)}")
    if logits.size == 0 and reduction == "mean":
        raise ValueError("cross_entropy: the mean over an empty batch doesn't exist; use reduction='sum'")
    weights = None if weight is None else _class_weights(weight, logits)
    labels = as_array("cross_entropy", "target", target, like=logits)
    if labels.dtype.kind == "f":
        probabilities = target if isinstance(target, Tensor) else Tensor(labels)
        _check_probabilities(probabilities, logits, ignore_index)
        ignored, divisor = None, logits.size / logits.shape[_class_axis(logits)]
    else:
        ignored = _check_classes(labels, logits, ignore_index)
        if logits.ndim == 2 and weights is None and ignored is None:
            return apply(CrossEntropy(labels.copy(), label_smoothing, reduction), logits)
        probabilities = Tensor(_one_hot(labels, logits))
        counted = labels if ignored is None else labels[~ignored]
        divisor = counted.size if weights is None else float(weights[counted].sum())
    return apply(WeightedCrossEntropy(weights, ignored, divisor, label_smoothing, reduction), logits, probabilities)


def _class_weights(weight: Array | Tensor, logits: Tensor) -> Array:
    """A copy of the class weights (K,): backward must see what forward saw."""
    classes = logits.shape[_class_axis(logits)]
    array = as_array("cross_entropy", "weight", weight, like=logits)
    if isinstance(weight, Tensor) and weight.requires_grad:
        raise TypeError("cross_entropy: weight is a constant, which no gradient reaches; use weight.detach()")
    if array.dtype != logits.dtype:
        cure = f"use .astype({str(logits.dtype)!r})" if hasattr(weight, "dtype") else "write fractions, as in 1.0"
        raise TypeError(f"cross_entropy: weight is {array.dtype}, but logits are {logits.dtype}; {cure}")
    if array.shape != (classes,):
        raise ValueError(f"cross_entropy: weight must have shape ({classes},), one number per class, "
                         f"got {array.shape}; {shapes(logits=logits)}")  # fmt: skip
    return array.copy()


def _check_probabilities(target: Tensor, logits: Tensor, ignore_index: int) -> None:
    if target.shape != logits.shape:
        raise TypeError(
            f"cross_entropy: target must hold integer classes, got {target.dtype}; use .astype(numpy.int64); or "
            f"probabilities of the shape of logits, got shape {target.shape}; {shapes(logits=logits)}"
        )
    if ignore_index >= 0:
        raise ValueError(
            f"cross_entropy: ignore_index = {ignore_index} is for a target of classes, but this one holds "
            "probabilities; give the class a weight of 0 instead"
        )


def _check_classes(labels: Array, logits: Tensor, ignore_index: int) -> Array | None:
    """Which places are ignored: an array like ``labels``, or None if none is."""
    if labels.dtype.kind not in "iu":
        raise TypeError(
            f"cross_entropy: target must hold integer classes, got {labels.dtype}; use .astype(numpy.int64)"
        )
    axis = _class_axis(logits)
    classes, places = logits.shape[axis], logits.shape[:axis] + logits.shape[axis + 1 :]
    if labels.shape != places:
        raise ValueError(
            f"cross_entropy: target must have shape {places}, got {labels.shape}; {shapes(logits=logits)}; "
            "a target like logits must hold probabilities, as floating-point numbers"
        )
    wrong = (labels < 0) | (labels >= classes)
    if not wrong.any() and not 0 <= ignore_index < classes:
        return None
    ignored = labels == ignore_index
    wrong &= ~ignored
    if wrong.any():
        first = np.unravel_index(int(wrong.argmax()), wrong.shape)
        place = f"[{', '.join(map(str, first))}]" if first else ""
        raise ValueError(
            f"cross_entropy: target{place} is {int(labels[first])}, but classes run from 0 to {classes - 1}; "
            f"{shapes(logits=logits)}"
        )
    return ignored if ignored.any() else None


def _one_hot(labels: Array, logits: Tensor) -> Array:
    """Probabilities like ``logits``: 1 at the class of each place."""
    xp, axis = array_module(labels), _class_axis(logits)
    classes = xp.arange(logits.shape[axis]).reshape((-1,) + (1,) * (logits.ndim - axis - 1))
    return (xp.expand_dims(labels, axis) == classes).astype(logits.dtype)
