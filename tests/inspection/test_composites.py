"""Composite Functions: the fused kernel equals the textbook's expansion, which a tape records, within rounding."""

from __future__ import annotations

import numpy as np
import pytest

from minires import Function, Tensor, functional, record
from minires.functional.batch_norm import BatchNormReLU

TOLERANCE = {np.float32: 2e-5, np.float64: 1e-13}  # a hundred roundings of numbers around 1


def every_function(base=Function):
    for kind in base.__subclasses__():
        yield kind
        yield from every_function(kind)


def test_each_composite_of_the_engine_is_checked_here():
    composites = {
        kind for kind in every_function() if kind.expand is not None and kind.__module__.startswith("minires")
    }
    assert composites == {BatchNormReLU}


def run(dtype, training, with_addend, affine):
    """Output, gradients and running statistics of batch_norm_relu on the same numbers each time."""
    rng = np.random.default_rng(7)
    x, addend = (rng.standard_normal((3, 5, 4, 7)).astype(dtype) for _ in range(2))
    weight, bias, mean = (rng.standard_normal(5).astype(dtype) for _ in range(3))
    var, upstream = rng.uniform(0.5, 2, 5).astype(dtype), rng.standard_normal(x.shape).astype(dtype)
    leaves = [Tensor(array, requires_grad=True) for array in (x, weight, bias, addend)]
    y = functional.batch_norm_relu(
        leaves[0],
        mean,
        var,
        *(leaves[1:3] if affine else (None, None)),
        leaves[3] if with_addend else None,
        training=training,
        momentum=0.3,
    )
    made_by = type(y.creator).__name__
    y.backward(upstream)
    return made_by, [y.data, mean, var, *(leaf.grad for leaf in leaves if leaf.grad is not None)]


@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("with_addend", [True, False])
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_batch_norm_relu_fused_equals_expanded_forward_and_backward(dtype, training, with_addend, affine):
    fused_by, fused = run(dtype, training, with_addend, affine)
    with record() as tape:
        expanded_by, expanded = run(dtype, training, with_addend, affine)
    assert (fused_by, expanded_by) == ("BatchNormReLU", "ReLU")
    norm = "batch_norm" if training else "normalize"
    operations = [node.op for node in tape.nodes if node.kind != "input"]
    assert operations == ([norm, "add", "relu"] if with_addend else [norm, "relu"])
    assert len(fused) == len(expanded) == 4 + 2 * affine + with_addend
    for one, other in zip(fused, expanded, strict=True):
        assert one.dtype == other.dtype == dtype
        np.testing.assert_allclose(one, other, rtol=TOLERANCE[dtype], atol=TOLERANCE[dtype])
