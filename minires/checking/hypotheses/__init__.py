"""Named ways for a backward pass to be wrong, each with the test that recognises it.

A hypothesis looks at :class:`Evidence` and yields candidates: what went wrong, in words, and how much of the mismatch
it leaves unexplained. There are three kinds. *About the result*: the right gradient is the wrong one, changed (by a
factor, another order, an added term). *About the upstream gradient v*: the wrong result is right for another v, which
costs nothing to try, for the Jacobian J has been measured and J^T v is linear in v. *About another variable*: the wrong
result is right for another value of it (a weight that was flipped or forgotten), measured at a few elements.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from minires.checking.evidence import Evidence
from minires.checking.hypotheses.candidate import Candidate
from minires.checking.hypotheses.result import (
    constant_factor,
    factor_per_slice,
    nothing_arrives,
    only_somewhere,
    other_order,
    overwritten_at_fan_out,
    passes_where_it_must_not,
    shifted_without_wrapping,
    skip_path,
    swapped_gradients,
)
from minires.checking.hypotheses.terms import (
    diagonal_only,
    missing_softmax_term,
    missing_terms,
    one_hot,
    other_statistics,
    raw_input,
)
from minires.checking.hypotheses.upstream import (
    other_at_the_border,
    other_upstream,
    overwritten_by_windows,
    unweighted_windows,
)
from minires.checking.hypotheses.variable import other_variable

__all__ = ["HYPOTHESES", "Candidate", "Hypothesis"]

Hypothesis = Callable[[Evidence], Iterator[Candidate]]

HYPOTHESES: tuple[Hypothesis, ...] = (
    nothing_arrives,
    constant_factor,
    factor_per_slice,
    skip_path,
    overwritten_at_fan_out,
    swapped_gradients,
    other_order,
    shifted_without_wrapping,
    passes_where_it_must_not,
    only_somewhere,
    missing_terms,
    missing_softmax_term,
    diagonal_only,
    one_hot,
    raw_input,
    other_statistics,
    other_upstream,
    other_at_the_border,
    overwritten_by_windows,
    unweighted_windows,
    other_variable,
)
