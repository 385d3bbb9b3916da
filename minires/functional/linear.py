"""The fully connected layer."""

from __future__ import annotations

from minires.function import Function
from minires.functional.checks import require_tensor, shapes
from minires.tensor import Tensor, apply
from minires_kernels.arrays import Array


class Linear(Function):
    """Y = X M^T + bias, with M the weight: dX = dY M, dM = dY^T X, dbias = dY summed over the batch."""

    def forward(self, x: Array, weight: Array, bias: Array | None) -> Array:
        self.save_for_backward(x=x, weight=weight)
        y = x @ weight.T  # (N, in) @ (in, out) -> (N, out)
        return y if bias is None else y + bias

    def backward(self, grad_output: Array) -> tuple[Array | None, ...]:
        x, weight = self.saved.x, self.saved.weight
        needs_x, needs_weight, needs_bias = self.needs_input_grad
        return (
            grad_output @ weight if needs_x else None,  # (N, out) @ (out, in) -> (N, in)
            grad_output.T @ x if needs_weight else None,  # (out, N) @ (N, in) -> (out, in)
            grad_output.sum(0) if needs_bias else None,
        )


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x weight^T + bias: (N, in_features), (out_features, in_features), (out_features,) -> (N, out_features).

    Raises TypeError for non-tensors or mixed dtypes, ValueError when the shapes don't fit.
    """
    require_tensor("linear", "x", x, ndim=2)
    require_tensor("linear", "weight", weight, ndim=2)
    if x.shape[1] != weight.shape[1]:
        raise ValueError(
            f"linear: x has {x.shape[1]} features, but weight takes {weight.shape[1]}; {shapes(x=x, weight=weight)}; "
            "weight must be (out_features, in_features)"
        )
    if bias is not None:
        require_tensor("linear", "bias", bias)
        if bias.shape != weight.shape[:1]:
            raise ValueError(
                f"linear: bias must have shape {weight.shape[:1]}; {shapes(x=x, weight=weight, bias=bias)}"
            )
    return apply(Linear(), x, weight, bias)
