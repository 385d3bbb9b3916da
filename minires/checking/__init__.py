"""Is a backward pass right? Gradient checks that explain, and what is built on them.

``minires.gradcheck`` is the front door. It needs NumPy alone.
"""

from minires.checking.blame import BlameReport, blame
from minires.checking.diagnosis import Diagnosis
from minires.checking.gradcheck import check, gradcheck
from minires.checking.report import Comparison, GradReport, Point

__all__ = ["BlameReport", "Comparison", "Diagnosis", "GradReport", "Point", "blame", "check", "gradcheck"]
