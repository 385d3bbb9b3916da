"""Errors of classification: how many labels aren't among the k likeliest classes."""

from __future__ import annotations

from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]


def top_k_errors(logits: Array, labels: Array, k: int = 1) -> int:
    """How many rows of ``logits`` (N, classes) don't have their label (N,) among the ``k`` largest.

    A tie counts against the label, and so does a NaN: a net that says the same of every class is never right. With
    ``k`` classes or fewer there is no error to make. Raises ValueError when ``k`` is below 1 or N differs.
    """
    if k < 1 or logits.ndim != 2 or labels.shape != logits.shape[:1]:
        raise ValueError(
            "top_k_errors: k must be at least 1, logits (N, classes) and labels (N,), "
            f"got k = {k}, logits {logits.shape}, labels {labels.shape}"
        )
    own = logits[np.arange(len(labels)), labels][:, None]  # (N, 1)
    rank = (~(logits < own)).sum(1)  # (N,) 1 for the largest; a comparison with NaN is False
    return int((rank > k).sum())
