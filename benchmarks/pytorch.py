"""PyTorch, the peer, where it is installed. It is imported when it is asked for, so that ``--help`` needs none."""

from __future__ import annotations

import sys
from typing import Any

INSTALL = "pip install torch==2.13.0"


def find(threads: int) -> Any:
    """PyTorch, set to ``threads`` threads, or None where it isn't installed."""
    try:
        import torch
    except ImportError:
        return None
    torch.set_num_threads(threads)
    return torch


def require(benchmark: str, threads: int) -> Any:
    """The same; where it isn't installed the program ends with 2 and one sentence, which has the command."""
    torch = find(threads)
    if torch is None:
        print(f"{benchmark}: compares with PyTorch, which is not installed here; {INSTALL}", file=sys.stderr)
        sys.exit(2)
    return torch
