"""Errors of classification: the share of images whose label isn't among the k likeliest classes."""

from __future__ import annotations

from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]


def top_k_errors(logits: Array, labels: Array, k: int = 1) -> int:
    """How many rows of ``logits`` (N, classes) don't have their label (N,) among the ``k`` largest.

    With fewer than ``k`` classes there is no error to make. A row with a NaN counts as wrong.
    """
    own = logits[np.arange(len(labels)), labels][:, None]  # (N, 1)
    not_smaller = (logits >= own).sum(1)  # the label's rank, ties counted against it; 0 for NaN
    return int(((not_smaller > k) | (not_smaller == 0)).sum())
