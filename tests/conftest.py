"""What all tests share: the cores, where several processes of pytest-xdist run them."""

from __future__ import annotations

import os
from contextlib import contextmanager

import pytest

from minires_kernels.environment import cores, prepare


def numba_of_a_process_among_others():
    """Numba; None where it isn't installed, or where this process has all cores for itself."""
    if int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", 1)) < 2:
        return None
    prepare()
    try:
        import numba
    except ImportError:
        return None
    return numba


@pytest.fixture(scope="session", autouse=True)
def a_share_of_the_cores():
    """Each process of pytest-xdist runs kernels on its share of the cores, so that they don't wait for each other."""
    numba = numba_of_a_process_among_others()
    if numba is not None:
        share = max(1, cores() // int(os.environ["PYTEST_XDIST_WORKER_COUNT"]))
        numba.set_num_threads(min(share, numba.config.NUMBA_NUM_THREADS))


@contextmanager
def kernels_on_all_threads():
    numba = numba_of_a_process_among_others()
    if numba is None:
        yield
        return
    share = numba.get_num_threads()
    numba.set_num_threads(numba.config.NUMBA_NUM_THREADS)
    try:
        yield
    finally:
        numba.set_num_threads(share)


@pytest.fixture(scope="session")
def all_threads(a_share_of_the_cores):
    """``with all_threads():`` kernels run on as many threads as outside of tests, and might get in each other's way."""
    return kernels_on_all_threads
