"""Realistic wrong backward passes, to score tests with and to practise on: ``MUTANTS``, by name.

A mistake is a function that takes the node, the upstream gradient and the right backward pass, and returns what the
mistake would. ``with planted(MUTANTS["relu_without_mask"]):`` makes the engine make it.
"""

from minires.checking.mutants import addition, convolution, elementwise, heads, normalization
from minires.checking.mutants.mutant import MUTANTS, Mutant, named, planted, watched

__all__ = [
    "MUTANTS",
    "Mutant",
    "addition",
    "convolution",
    "elementwise",
    "heads",
    "named",
    "normalization",
    "planted",
    "watched",
]
