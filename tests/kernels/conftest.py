"""Fixtures of the kernels' tests."""

import numpy as np
import pytest


@pytest.fixture(scope="module", autouse=True)
def _all_threads(all_threads):
    with all_threads():
        yield


@pytest.fixture
def rng():
    return np.random.default_rng(2015)
