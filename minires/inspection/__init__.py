"""Inspection: what happened in a forward and a backward pass, node by node, and how gradients split and meet again.

:func:`record` keeps what the engine computes on a :class:`Tape`; :func:`ledger` reads from a tape how the gradient
divides at each skip connection.
"""

from minires.inspection.ledger import Ledger, ledger
from minires.inspection.record import Contribution, Gradient, GradientState, Node, NonFinite, Tape, record
from minires.inspection.summary import Summary, summary

__all__ = [
    "Contribution",
    "Gradient",
    "GradientState",
    "Ledger",
    "Node",
    "NonFinite",
    "Summary",
    "Tape",
    "ledger",
    "record",
    "summary",
]
