"""Structure is the subject of these tests, not speed: they run on the specification of every kernel."""

from __future__ import annotations

import pytest

from minires import using


@pytest.fixture(autouse=True)
def _on_the_reference():
    with using("reference"):
        yield
