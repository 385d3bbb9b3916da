"""What the tests of operations share."""

from __future__ import annotations

import pytest

from minires import using


@pytest.fixture
def on_the_reference():
    """The operation is the subject, whatever computes it: that all kernels agree is the contract tests' matter."""
    with using("reference"):
        yield
