"""The threads that pieces are handed to: late ones aren't waited for, waiting ones sleep, and a fork has its own."""

import os
import subprocess
import sys
import threading
import time

import numba
import numpy as np
import pytest
from numba import types

from minires_kernels import environment, simd
from minires_kernels.jit import njit
from minires_kernels.simd import pool

usleep = types.ExternalFunction("usleep", types.int32(types.uint32))


@njit(cache=False)
def dawdle(microseconds, workers, worker, i):
    usleep(microseconds)
    workers[i] = worker


@njit(cache=False)
def share_out_dawdling(microseconds, workers):
    simd.for_each_worker(dawdle, workers.size, (microseconds, workers))


@pytest.fixture
def two_threads():
    if numba.config.NUMBA_NUM_THREADS < 2:
        pytest.skip("one thread is all that this process may use")
    before = numba.get_num_threads()
    numba.set_num_threads(2)
    yield
    numba.set_num_threads(before)


def test_pieces_that_take_long_are_shared_by_both_also_when_the_helper_has_gone_to_sleep(two_threads):
    for pause in (0, 0.1):
        time.sleep(pause)
        workers = np.full(40, -1)
        share_out_dawdling(1000, workers)
        assert set(workers) == {0, 1}


def test_a_job_that_is_done_before_anybody_comes_is_not_held_up(two_threads):
    """The helper's place is shut up in another job: a thread that never comes is nobody's loss."""
    pool.WORDS[pool.OWNER] = 1  # as if somebody else's job were being done
    try:
        workers = np.full(5, -1)
        share_out_dawdling(0, workers)
    finally:
        pool.WORDS[pool.OWNER] = 0
    assert (workers == 0).all()


def test_many_small_jobs_lose_no_piece_whether_helpers_wait_or_sleep(two_threads, monkeypatch):
    before = int(pool.WORDS[pool.PATIENCE])
    try:
        for patience in (0, 1, 50, before):
            pool.WORDS[pool.PATIENCE] = patience
            for count in range(1, 1500):
                workers = np.full(count % 7 + 2, -1)
                share_out_dawdling(0, workers) if count % 50 == 0 else share_out_quickly(workers)
                assert set(workers) <= {0, 1}
    finally:
        pool.WORDS[pool.PATIENCE] = before


@njit(cache=False)
def note(workers, worker, i):
    workers[i] = worker


@njit(cache=False)
def share_out_quickly(workers):
    simd.for_each_worker(note, workers.size, (workers,))


def test_two_threads_of_python_share_out_at_once(two_threads):
    """Each is done by somebody, and workers of one job are numbered for that job alone."""
    results = {}

    def work(name):
        numba.set_num_threads(2)
        for _ in range(100):
            workers = np.full(20, -1)
            share_out_quickly(workers)
            results.setdefault(name, set()).update(workers)

    threads = [threading.Thread(target=work, args=(name,)) for name in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 4
    assert all(found <= {0, 1} for found in results.values())


@njit(cache=False)
def outer(all_workers, i):
    simd.for_each_worker(note, all_workers.shape[1], (all_workers[i],))


@njit(cache=False)
def share_out_twice(all_workers):
    simd.for_each(outer, len(all_workers), (all_workers,))


def test_a_piece_may_share_out_pieces(two_threads):
    all_workers = np.full((30, 10), -1)
    share_out_twice(all_workers)
    assert set(all_workers.ravel()) <= {0, 1}


def test_a_helper_that_waits_sleeps(two_threads):
    share_out_quickly(np.full(8, -1))
    time.sleep(0.2)
    assert pool.WORDS[pool.FIRST_HELPER :: pool.LINE].tolist() == [1] * (numba.config.NUMBA_NUM_THREADS - 1)
    before = time.process_time()
    time.sleep(0.3)
    assert time.process_time() - before < 0.05


STEP = """
import os, sys
import numpy as np
import minires
from minires import functional, nn, optim, models

def step(seed):
    rng = np.random.default_rng(seed)
    net = models.create("resnet8", widths=(4, 8, 8), rng=rng)
    sgd = optim.SGD(net.parameters(), lr=0.1)
    images, labels = rng.standard_normal((8, 3, 16, 16), np.float32), rng.integers(0, 10, 8)
    loss = functional.cross_entropy(net(minires.Tensor(images)), labels)
    loss.backward()
    sgd.step()
    return float(sum(np.abs(parameter.data).sum() for parameter in net.parameters()))
"""
FORKS = {
    "os.fork": """
expected = step(0)
child = os.fork()
if child == 0:
    os._exit(0 if step(0) == expected else 3)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
assert step(0) == expected
print("right")
""",
    "multiprocessing": """
import multiprocessing
expected = [step(seed) for seed in range(3)]
with multiprocessing.get_context("fork").Pool(2) as workers:
    assert workers.map(step, range(3)) == expected
print("right")
""",
    "a child of a child, while another thread computes": """
import threading
expected, done = step(0), False
def compute():
    while not done:
        step(1)
thread = threading.Thread(target=compute)
thread.start()
for _ in range(5):
    child = os.fork()
    if child == 0:
        grandchild = os.fork()
        right = step(0) == expected
        if grandchild == 0:
            os._exit(0 if right else 3)
        os._exit(os.waitstatus_to_exitcode(os.waitpid(grandchild, 0)[1]) or (0 if right else 4))
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
done = True
thread.join()
print("right")
""",
}


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
@pytest.mark.parametrize("way", FORKS)
def test_a_child_made_by_fork_after_a_step_computes_the_same(way):
    settings = {**os.environ, "NUMBA_NUM_THREADS": "2"}
    done = subprocess.run([sys.executable, "-c", STEP + FORKS[way]], env=settings, capture_output=True, text=True,
                          timeout=120, check=False)  # fmt: skip
    assert (done.returncode, done.stdout) == (0, "right\n"), done.stderr


PRANGE = """
import os
import numpy as np
from numba import prange
from minires_kernels.jit import njit

@njit(parallel=True, cache=False)
def double(x):
    for i in prange(x.size):
        x[i] *= 2

double(np.ones(100))
child = os.fork()
if child == 0:
    try:
        double(np.ones(100))
    except RuntimeError as refused:
        print(refused, flush=True)
    os._exit(0)
os.waitpid(child, 0)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_a_loop_of_numbas_own_says_after_a_fork_why_it_does_not_run():
    settings = {**os.environ, "NUMBA_NUM_THREADS": "2", "NUMBA_THREADING_LAYER": "omp"}
    done = subprocess.run([sys.executable, "-c", PRANGE], env=settings, capture_output=True, text=True, timeout=120,
                          check=False)  # fmt: skip
    if "can't be had" in done.stderr:
        pytest.skip("Numba has no OpenMP here")
    assert "double: its prange needs threads of OpenMP, which a process made by fork can't enter" in done.stdout
    assert 'get_context("spawn")' in done.stdout


@pytest.mark.parametrize(("settings", "expected"), [
    ({}, 100),
    ({"OMP_WAIT_POLICY": "passive"}, 0),
    ({"OMP_WAIT_POLICY": " PASSIVE "}, 0),
    ({"OMP_WAIT_POLICY": "ACTIVE"}, 100_000),
    ({"GOMP_SPINCOUNT": "7"}, 7),
    ({"GOMP_SPINCOUNT": "7", "OMP_WAIT_POLICY": "active"}, 7),
    ({"GOMP_SPINCOUNT": "infinity"}, sys.maxsize),
    ({"GOMP_SPINCOUNT": "9" * 30}, sys.maxsize),
    ({"GOMP_SPINCOUNT": "often"}, 100),
])  # fmt: skip
def test_how_long_threads_wait_is_the_users_choice(monkeypatch, settings, expected):
    for name in environment.WAITING:
        monkeypatch.delenv(name, raising=False)
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    assert environment.patience(100) == expected


@pytest.mark.parametrize("chosen", [None, "OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME"])
def test_what_openmp_is_told_does_not_stay_in_the_environment(monkeypatch, chosen):
    for name in (*environment.WAITING, *environment.BRIEFLY):
        monkeypatch.delenv(name, raising=False)
    if chosen:
        monkeypatch.setenv(chosen, "active")
    before = dict(os.environ)
    with environment.waiting_briefly():
        within = dict(os.environ)
    assert within == before | ({} if chosen else environment.BRIEFLY)
    assert dict(os.environ) == before


def test_an_import_leaves_the_environment_alone():
    code = "import os; a = dict(os.environ); from minires_kernels import simd; print(a == dict(os.environ))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "True\n"
