"""What the contract's small arrays cannot see of the compiled SGD: pieces, widths, layouts, read-only arrays."""

import numpy as np
import pytest

from minires_kernels.flat import SMALL
from minires_kernels.simd import kinds
from minires_kernels.update import numba_cpu, reference

RULES = [(0.0, False, False), (0.9, False, False), (0.9, True, False), (0.9, False, True), (0.9, True, True)]


def both(parameter, grad, velocity, momentum, *form):
    """(parameter, velocity) after the same step by Numba, in place, and by the reference, in double precision."""
    if not momentum:
        velocity = None
    expected = parameter.astype(np.float64), None if velocity is None else velocity.astype(np.float64)
    reference.sgd(expected[0], grad.astype(np.float64), expected[1], 0.1, momentum, 0.01, *form)
    numba_cpu.sgd(parameter, grad, velocity, 0.1, momentum, 0.01, *form)
    return (parameter, velocity), expected


def assert_same(results, expected):
    for result, value in zip(results, expected, strict=True):
        if value is not None:
            np.testing.assert_allclose(result, value, rtol=0, atol=1e-6)


@pytest.mark.parametrize("size", [SMALL - 1, SMALL, SMALL + 1, 2 * SMALL + 37])
@pytest.mark.parametrize("rule", RULES, ids=str)
def test_every_element_of_several_pieces(rng, size, rule):
    assert_same(*both(*rng.normal(size=(3, size)).astype("float32"), *rule))


@pytest.mark.parametrize("register_bytes", [32, 16, 1])
def test_every_width_of_vectors(monkeypatch, rng, register_bytes):
    monkeypatch.setattr(kinds, "REGISTER_BYTES", register_bytes)
    for size in range(40):
        assert_same(*both(*rng.normal(size=(3, size)).astype("float32"), 0.9, True, False))


@pytest.mark.parametrize("rule", RULES, ids=str)
def test_arrays_of_different_layouts_are_written_in_place(rng, rule):
    gaps = rng.normal(size=(3, 4, 10))[:, :, ::2]
    for parameter, velocity in (
        (rng.normal(size=(4, 3, 5)).transpose(1, 0, 2), rng.normal(size=(4, 3, 5)).transpose(1, 0, 2)),
        (rng.normal(size=(3, 4, 5)), np.asfortranarray(rng.normal(size=(3, 4, 5)))),
        (gaps, rng.normal(size=(3, 4, 5))),
        (rng.normal(size=(3, 4, 5)), gaps),
        (rng.normal(size=(3, 4, 5))[::-1], rng.normal(size=(3, 4, 5))[:, ::-1]),
    ):
        assert_same(*both(parameter, np.asfortranarray(rng.normal(size=(3, 4, 5))), velocity, *rule))


def test_neighbours_of_a_view_are_left_alone(rng):
    buffer = rng.normal(size=(6, 50))
    before = buffer.copy()
    numba_cpu.sgd(buffer[1:5, 7:39], rng.normal(size=(4, 32)), None, 0.1)
    changed = buffer != before
    assert changed[1:5, 7:39].all()
    assert changed.sum() == 4 * 32


def test_a_read_only_parameter_is_not_written(rng):
    for shape in ((20,), (4, 5)):
        parameter, grad = rng.normal(size=(2, *shape))
        before = parameter.copy()
        parameter.flags.writeable = False
        with pytest.raises(Exception, match="read-only"):
            numba_cpu.sgd(parameter, grad, None, 0.1)
        np.testing.assert_array_equal(parameter, before)
