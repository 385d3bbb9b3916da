"""Scratch memory: aligned, reused, one set for each thread. The memory of results: reused once nobody holds it."""

import gc
import threading

import numpy as np
import pytest

from minires_kernels import arena


@pytest.fixture(autouse=True)
def empty_arena():
    gc.collect()  # results that other tests left in cycles
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


LARGE = arena.RECYCLED_BYTES // 4  # numbers of float32


def address(x):
    return x.__array_interface__["data"][0]


def test_a_result_that_has_died_leaves_its_memory_to_the_next_of_its_size():
    first = arena.empty((LARGE,), "float32")
    place, row = address(first), first[5:]
    del first
    second = arena.empty((LARGE,), "float32")
    assert address(second) != place  # the view still looks at it
    del row
    assert address(arena.empty((LARGE // 2,), "float64")) == place
    assert address(arena.empty((2 * LARGE,), "float32")) not in (place, address(second))


def test_results_are_aligned_writable_and_of_the_right_kind():
    x = arena.empty((3, LARGE), "float64")
    assert (x.shape, x.dtype, x.flags.c_contiguous, x.flags.writeable) == ((3, LARGE), np.float64, True, True)
    assert address(x) % arena.ALIGNMENT == 0
    assert arena.empty((2, 3), "float32").flags.owndata  # small ones are left to malloc


@pytest.mark.parametrize("order", [(0, 1, 2, 3), (0, 2, 3, 1), (3, 2, 1, 0)])
def test_empty_like_lies_in_memory_as_its_model_does(order):
    model = np.empty((7, 64, 65, 66), "float32").transpose(np.argsort(order))
    assert arena.empty_like(model).strides == model.strides
    assert arena.empty_like(model).shape == model.shape


def test_what_waits_and_what_is_used_never_exceed_the_most_that_was_used():
    results = arena._results
    kept = [arena.empty((LARGE,), "float32") for _ in range(4)]
    assert (results.used, results.idle, results.peak) == (4 * 4 * LARGE, 0, 4 * 4 * LARGE)
    del kept[1:]
    assert (results.used, results.idle) == (4 * LARGE, 3 * 4 * LARGE)
    other = arena.empty((2 * LARGE,), "float32")  # another size: two of those that wait have to go
    assert (results.used, results.idle, results.peak) == (3 * 4 * LARGE, 4 * LARGE, 4 * 4 * LARGE)
    del other, kept
    arena.release()
    assert (results.used, results.idle, results.peak) == (0, 0, 0)


def test_memory_that_cannot_be_had_is_not_counted():
    results = arena._results
    kept = [arena.empty((LARGE,), "float32") for _ in range(2)]
    with pytest.raises(MemoryError):
        arena.empty((1 << 60,), "float32")
    assert (results.used, results.idle, results.peak) == (2 * 4 * LARGE, 0, 2 * 4 * LARGE)
    del kept[1:]
    other = arena.empty((LARGE + 1,), "float32")  # what waits would exceed the most that was in use
    assert results.used + results.idle <= results.peak
    assert len(other) == LARGE + 1


def test_a_shape_that_no_array_has_gives_its_memory_back():
    with pytest.raises(ValueError, match="negative dimensions"):
        arena.empty((-LARGE, -2), "float32")
    assert arena._results.used == 0


def test_threads_may_take_and_leave_results_at_once():
    def work():
        for k in range(200):
            x = arena.empty((LARGE + k % 3,), "float32")
            x[0] = x[-1] = k
            assert x[0] == x[-1] == k

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert arena._results.used == 0
