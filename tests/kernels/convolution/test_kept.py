"""Plans are kept within a bound in bytes, whatever many shapes a net meets."""

import threading

import numpy as np
import pytest

from minires_kernels import Window
from minires_kernels.convolution import _kept

pytest.importorskip("numba", reason="about plans of compiled convolutions")


def value(bytes_):
    return np.zeros(bytes_, np.uint8), "more", (np.zeros(0),)


def test_the_least_recently_used_is_given_up():
    kept = _kept.Kept(3 * (_kept.ENTRY_BYTES + 100))
    for key in "abc":
        kept.put(key, value(100))
    assert kept.get("a") is not None
    kept.put("d", value(100))
    assert [kept.get(key) is not None for key in "abcd"] == [True, False, True, True]
    assert kept.bytes == 3 * (_kept.ENTRY_BYTES + 100)


def test_a_value_larger_than_the_bound_is_kept_alone_and_its_bytes_are_given_back():
    kept = _kept.Kept(10_000)
    kept.put("a", value(100))
    kept.put("b", value(20_000))
    assert (kept.get("a"), len(kept)) == (None, 1)
    kept.put("b", value(100))
    assert kept.bytes == _kept.ENTRY_BYTES + 100
    kept.clear()
    assert (kept.bytes, len(kept), kept.get("b")) == (0, 0, None)


def test_threads_that_put_at_once_keep_the_account():
    kept = _kept.Kept(50 * (_kept.ENTRY_BYTES + 10))

    def work(first):
        for i in range(2000):
            kept.put((first + i) % 97, value(10))
            kept.get((3 * i) % 97)

    threads = [threading.Thread(target=work, args=(13 * k,)) for k in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert kept.bytes == len(kept) * (_kept.ENTRY_BYTES + 10) <= kept.most


@pytest.mark.parametrize("implementation", ["numba_cpu", "winograd2_cpu"])
def test_many_sizes_of_images_cost_no_more_than_the_bound(monkeypatch, implementation):
    from minires_kernels import load

    kernels, window = load("convolution", implementation), Window.of(3, padding=1)
    weight = np.ones((2, 2, 3, 3), np.float32)
    plans = _kept.PLANS
    plans.clear()
    monkeypatch.setattr(plans, "most", 100_000)
    for width in range(4, 60):
        x = np.ones((1, 2, 4, width), np.float32)
        y = kernels.forward(x, weight, window)
        kernels.grad_input(y, weight, x.shape, window)
        kernels.grad_weight(y, x, window)
        assert 0 < plans.bytes <= 100_000
    assert 3 < len(plans) < 50
    before = len(plans)
    kernels.forward(x, weight, window)
    assert len(plans) == before, "what has just been used is found"
    plans.clear()
