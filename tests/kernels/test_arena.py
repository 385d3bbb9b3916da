"""Scratch memory: aligned, reused, one set for each thread."""

import threading

import numpy as np
import pytest

from minires_kernels import arena


@pytest.fixture(autouse=True)
def empty_arena():
    arena.release()
    yield
    arena.release()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_scratch_starts_on_a_cache_line(dtype):
    for count in (1, 7, 1000):
        buffer = arena.scratch("a role", count, dtype)
        assert buffer.shape == (count,)
        assert buffer.dtype == dtype
        assert buffer.ctypes.data % arena.ALIGNMENT == 0


def test_a_role_keeps_its_memory_and_shares_it_with_no_other():
    first, other = arena.scratch("one", 100, "float32"), arena.scratch("two", 100, "float32")
    assert not np.shares_memory(first, other)
    assert np.shares_memory(first, arena.scratch("one", 50, "float64"))


def test_a_role_grows_when_asked_for_more():
    arena.scratch("one", 10, "float32")
    grown = arena.scratch("one", 10_000, "float32")
    grown[...] = 1
    assert np.shares_memory(grown, arena.scratch("one", 10, "float32"))


def test_threads_do_not_share():
    mine, theirs = arena.scratch("one", 10, "float32"), []
    thread = threading.Thread(target=lambda: theirs.append(arena.scratch("one", 10, "float32")))
    thread.start()
    thread.join()
    assert not np.shares_memory(mine, theirs[0])


def test_release_forgets():
    before = arena.scratch("one", 10, "float32")
    arena.release()
    assert not np.shares_memory(before, arena.scratch("one", 10, "float32"))
