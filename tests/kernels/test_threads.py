"""Work shared out among threads: every piece once, on any number of threads, and exceptions where the loop was."""

import numba
import numpy as np
import pytest
from numba import njit, prange, types
from numba.core.errors import TypingError

from minires_kernels import simd
from minires_kernels.jit import njit as kept_njit
from minires_kernels.simd import pool, threads


@pytest.fixture(params=["float32", "float64"])
def kind(request):
    return simd.vector(request.param)


@kept_njit(cache=False)
def add_number(x, forbidden, i):
    if i == forbidden:
        raise ValueError("not this number")
    x[i] += i + 1


@kept_njit(cache=False)
def add_numbers(x, forbidden):
    simd.for_each(add_number, x.size, (x, forbidden))


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("count", [0, 1, 2, 3, 5, 1000])
def test_for_each_meets_every_number_once(threads, count):
    x, before = np.zeros(count), numba.get_num_threads()
    numba.set_num_threads(min(threads, before))
    try:
        add_numbers(x, -1)
    finally:
        numba.set_num_threads(before)
    np.testing.assert_array_equal(x, np.arange(1, count + 1))


@pytest.mark.parametrize("forbidden", [0, 63, 99])
def test_what_a_thread_raises_is_raised_when_all_are_done(forbidden):
    x = np.zeros(100)
    with pytest.raises(ValueError, match="not this number"):
        add_numbers(x, forbidden)
    x[forbidden] = forbidden + 1  # the others, also those of the same thread, have been met
    np.testing.assert_array_equal(x, np.arange(1, 101))


@kept_njit(cache=False)
def return_number(i):
    return i


@njit
def for_each_of_the_wrong_kind(function, arguments):
    simd.for_each(function, 3, arguments)


def test_for_each_wants_a_compiled_function_that_returns_nothing_and_a_tuple():
    with pytest.raises(TypingError, match="must return nothing, but returns int64"):
        for_each_of_the_wrong_kind(return_number, ())
    with pytest.raises(TypingError, match="expected a compiled function, a count and a tuple"):
        for_each_of_the_wrong_kind(3, ())
    with pytest.raises(TypingError, match="expected a compiled function, a count and a tuple"):
        for_each_of_the_wrong_kind(return_number, 3)


@njit
def share(kind, part, parts, worker, scan, phases, first, second, third, fourth):
    first[part] += kind.lanes * parts + scan[0]
    second[part] = worker


@pytest.mark.parametrize("parts", [1, 5, 100])
def test_in_parallel_runs_every_part_once(kind, parts):
    scan, x, workers = np.full(1, 3), np.zeros(parts, kind.dtype), np.full(parts, -1, kind.dtype)
    program = simd.address(share, kind, 0, 0, 0, scan, scan, x, x, x, x)
    simd.in_parallel(program, parts, scan, scan, x, workers, x, x)
    assert (x == kind.lanes * parts + 3).all()
    assert set(workers) <= set(range(numba.get_num_threads()))


@pytest.mark.parametrize("few", [True, False])
def test_in_parallel_wakes_nobody_for_few_numbers(kind, few):
    size = threads.FEW if few else threads.FEW + 1
    scan, x, nothing = np.full(1, 3), np.zeros(size, kind.dtype), np.empty(0, kind.dtype)
    program = simd.address(mark, kind, 0, 0, 0, scan, scan, x, x, x, x)
    before = pool.WORDS[pool.DOOR] >> 16
    simd.in_parallel(program, 4, scan, scan, x, nothing, nothing, nothing)
    assert (x[:4] == 1).all()
    shared = numba.get_num_threads() > 1 and not few
    assert (pool.WORDS[pool.DOOR] >> 16) - before == shared, "the number of jobs"


@njit
def mark(kind, part, parts, worker, scan, phases, first, second, third, fourth):
    first[part] += 1


usleep = types.ExternalFunction("usleep", types.int32(types.uint32))


@kept_njit(cache=False)
def wait_for_the_others(done, limit, worker, i):
    if i == 0:
        for _ in range(limit):  # milliseconds
            if (done >= 0).sum() >= done.size // 2 + 40:
                break
            usleep(1000)
    done[i] = worker


@kept_njit(cache=False)
def wait_once(done, limit):
    simd.for_each_worker(wait_for_the_others, done.size, (done, limit))


@pytest.mark.skipif(numba.get_num_threads() < 2, reason="one thread is all that this process may use")
def test_who_has_finished_takes_what_a_slower_thread_has_not_begun():
    """The first thread's first piece waits until some fifty pieces of its own run of 64 have been done by others."""
    done = np.full(128, -1)
    before = numba.get_num_threads()
    numba.set_num_threads(2)
    try:
        wait_once(done, 20_000)
    finally:
        numba.set_num_threads(before)
    assert (done >= 0).all()
    assert (done[:64] != done[0]).sum() >= 40


@njit(parallel=True)
def in_threads(kind, x, y):
    for part in prange(x.size // kind.lanes):
        simd.store(2 * simd.load(kind, x, part * kind.lanes), y, part * kind.lanes)


def test_constants_pass_into_threads(kind):
    x = np.random.default_rng(0).standard_normal(4 * kind.lanes).astype(kind.dtype)
    y = np.empty_like(x)
    in_threads(kind, x, y)
    np.testing.assert_array_equal(y, 2 * x)
