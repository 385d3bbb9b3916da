"""Fixtures of the kernels' tests."""

import numpy as np
import pytest


@pytest.fixture(scope="module", autouse=True)
def _all_threads(all_threads):
    """What kernels compute, they compute on all threads."""


@pytest.fixture
def rng():
    return np.random.default_rng(2015)
