"""Is a backward pass right? Gradient checks that explain, and what is built on them.

``minires.gradcheck`` is the front door. It needs NumPy alone.
"""

from minires.checking.blame import BlameReport, blame
from minires.checking.diagnosis import Diagnosis
from minires.checking.difference import Difference, diff
from minires.checking.foreign import check_arrays, check_torch
from minires.checking.gradcheck import check, gradcheck
from minires.checking.report import Comparison, GradReport, Point
from minires.checking.rounding import PrecisionReport, check_float32

__all__ = [
    "BlameReport",
    "Comparison",
    "Diagnosis",
    "Difference",
    "GradReport",
    "Point",
    "PrecisionReport",
    "blame",
    "check",
    "check_arrays",
    "check_float32",
    "check_torch",
    "diff",
    "gradcheck",
]
