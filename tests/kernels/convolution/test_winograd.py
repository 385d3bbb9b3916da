"""Winograd's algorithm: its matrices exactly, every width, blocks and threads, refusals, and when it is chosen."""

from fractions import Fraction

import numba
import numpy as np
import pytest

from minires_kernels import Window, arena, convolution, load, using
from minires_kernels.convolution import _winograd, first_choice, numba_cpu
from minires_kernels.convolution._kept import PLANS
from minires_kernels.convolution._winograd_algorithm import FILTERINGS, Algorithm
from minires_kernels.simd import kinds, vector
from tests.kernels.cases import convolved
from tests.kernels.test_contract import USUAL_TOLERANCE

every_algorithm = pytest.mark.parametrize(("m", "stride"), [(2, 1), (4, 1), (2, 2)])


@pytest.fixture
def fresh_plans():
    """Plans made under a test's settings stay in the test."""
    PLANS.clear()
    yield
    PLANS.clear()


def arguments(rng, x_shape, O, window, dtype="float32"):
    x = rng.standard_normal(x_shape).astype(dtype)
    weight = rng.standard_normal((O, x_shape[1], 3, 3)).astype(dtype)
    grad_output = rng.standard_normal((x_shape[0], O, *window.output_size(*x_shape[2:]))).astype(dtype)
    return x, weight, grad_output


def all_three(m, x, weight, grad_output, window):
    implementation = load("convolution", f"winograd{m}_cpu")
    return (
        implementation.forward(x, weight, window),
        implementation.grad_input(grad_output, weight, x.shape, window),
        implementation.grad_weight(grad_output, x, window),
    )


def assert_right(results, m, x, weight, grad_output, window):
    expected = convolved(x, weight, grad_output, window)
    limit = getattr(load("convolution", f"winograd{m}_cpu"), "TOLERANCE", USUAL_TOLERANCE)[x.dtype.name]
    for result, value in zip(results, expected, strict=True):
        np.testing.assert_allclose(result, value, rtol=0, atol=limit * abs(value).max())


@pytest.mark.parametrize(
    ("name", "sees"),
    [
        ("F2", lambda output, tap: output + tap),
        ("F4", lambda output, tap: output + tap),
        ("F2 of stride 2", lambda output, tap: 2 * output + tap),
        # x[h] saw tap k of output (h + 1 - k) / 2, where that is a whole number; its filters come turned round
        ("F2 of stride 2, adjoint", lambda output, tap: (output + 1 - (2 - tap)) / 2),
    ],
)
def test_the_matrices_make_a_correlation_exactly(name, sees):
    """A^T [(G g) * (B^T d)] is linear in d and g, so unit vectors of both, in rationals, prove it for all."""
    filtering = FILTERINGS[name]
    input_rows, filter_rows, output_rows = (
        [[Fraction(number).limit_denominator(130) for number in row] for row in rows] for rows in filtering[:3]
    )
    for tap in range(3):
        for pixel in range(len(input_rows[0])):
            products = [f[tap] * i[pixel] for f, i in zip(filter_rows, input_rows, strict=True)]
            outputs = [sum(a * p for a, p in zip(row, products, strict=True)) for row in output_rows]
            assert outputs == [int(sees(output, tap) == pixel) for output in range(len(output_rows))]


@every_algorithm
@pytest.mark.parametrize("register_bytes", [64, 32, 16, 1])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_every_width_gives_the_same_convolution(monkeypatch, rng, m, stride, register_bytes, dtype):
    monkeypatch.setattr(kinds, "REGISTER_BYTES", register_bytes)
    window = Window.of(3, stride=stride, padding=(1, 0) if stride == 1 else 1)
    x, weight, grad_output = arguments(rng, (2, 9, 7, 10), 17, window, dtype)
    assert_right(all_three(m, x, weight, grad_output, window), m, x, weight, grad_output, window)


@every_algorithm
@pytest.mark.parametrize(
    ("H", "W", "padding"), [(1, 1, 1), (3, 3, 0), (4, 8, 1), (5, 13, 2), (9, 2, (2, 1)), (6, 7, 1)]
)
def test_tiles_stick_out_of_the_image_on_any_side(rng, m, stride, H, W, padding):
    window = Window.of(3, stride=stride, padding=padding if stride == 1 else 1)
    x, weight, grad_output = arguments(rng, (2, 3, H, W), 5, window)
    assert_right(all_three(m, x, weight, grad_output, window), m, x, weight, grad_output, window)


@every_algorithm
@pytest.mark.parametrize("filters_first", [False, True])
@pytest.mark.parametrize("number", [np.nan, np.inf, -np.inf, 3e38])
def test_what_is_not_finite_is_computed_again_without_mixing(
    monkeypatch, fresh_plans, rng, m, stride, number, filters_first
):
    """One bad pixel spoils the 9 outputs that see it, not the 20 of its tile: bit by bit what the direct sum gives.

    3e38 is finite, but the transforms make infinities of it.
    """
    monkeypatch.setattr(_winograd, "_filters_first", lambda *_: filters_first)
    window = Window.of(3, stride=stride, padding=1)
    x, weight, grad_output = arguments(rng, (2, 19, 9, 12), 21, window)
    x[1, 7, 4, 5] = grad_output[0, 3, 2, 1] = number
    with np.errstate(all="ignore"):
        results = all_three(m, x, weight, grad_output, window)
    expected = (
        numba_cpu.forward(x, weight, window),
        numba_cpu.grad_input(grad_output, weight, x.shape, window),
        numba_cpu.grad_weight(grad_output, x, window),
    )
    for result, value in zip(results, expected, strict=True):
        np.testing.assert_array_equal(result, value)
    weight[5, 2, 1, 0] = number
    np.testing.assert_array_equal(all_three(m, x, weight, grad_output, window)[0], numba_cpu.forward(x, weight, window))


@every_algorithm
@pytest.mark.parametrize("outlier", [1e3, 1e5, 1e30])
def test_what_an_outlier_costs_outputs_that_do_not_see_it(rng, m, stride, outlier):
    """Nothing with F(2x2), which mixes no output with such a pixel; with F(4x4) a float32's rounding of the outlier."""
    window = Window.of(3, stride=stride, padding=1)
    x, weight, _ = arguments(rng, (1, 32, 16, 16), 16, window)
    weight /= 17  # outputs around 1
    x[0, 7, 5, 6] = 0
    blind = numba_cpu.forward(np.isin(np.arange(x.size), 7 * 256 + 5 * 16 + 6).reshape(x.shape) * np.float32(1),
                              np.ones_like(weight), window) == 0  # fmt: skip
    expected = numba_cpu.forward(x.astype("float64"), weight.astype("float64"), window)
    x[0, 7, 5, 6] = outlier
    y = load("convolution", f"winograd{m}_cpu").forward(x, weight, window)
    limit = 3e-6 if m == 2 else 3e-6 + 2e-7 * outlier
    np.testing.assert_allclose(y[blind], expected[blind], rtol=0, atol=limit)
    y = load("convolution", f"winograd{m}_cpu").forward(np.where(x == np.float32(outlier), x, 0), weight, window)
    np.testing.assert_allclose(y[blind], 0, rtol=0, atol=0 if m == 2 else 2e-7 * outlier)


@every_algorithm
@pytest.mark.parametrize("filters_first", [False, True])
def test_what_is_finite_is_computed_once_whatever_came_before(monkeypatch, fresh_plans, rng, m, stride, filters_first):
    monkeypatch.setattr(_winograd, "_filters_first", lambda *_: filters_first)
    window = Window.of(3, stride=stride, padding=1)
    x, weight, grad_output = arguments(rng, (2, 19, 9, 12), 21, window)
    before = all_three(m, x, weight, grad_output, window)
    all_three(m, np.full_like(x, np.nan), weight, np.full_like(grad_output, np.inf), window)
    for kernel in ("forward", "grad_input", "grad_weight"):
        monkeypatch.setattr(numba_cpu, kernel, None)  # who calls it now fails
    for result, value in zip(all_three(m, x, weight, grad_output, window), before, strict=True):
        np.testing.assert_array_equal(result, value)


@every_algorithm
def test_blocks_of_tiles_change_no_result(monkeypatch, fresh_plans, rng, m, stride):
    window = Window.of(3, stride=stride, padding=1)
    x, weight, grad_output = arguments(rng, (3, 16, 12, 12), 16, window)
    monkeypatch.setattr(_winograd, "BLOCK_TILES", (1000, 1000))
    whole = all_three(m, x, weight, grad_output, window)
    assert_right(whole, m, x, weight, grad_output, window)
    PLANS.clear()
    monkeypatch.setattr(_winograd, "BLOCK_TILES", (7, 7))
    cut = all_three(m, x, weight, grad_output, window)
    np.testing.assert_array_equal(cut[0], whole[0])
    np.testing.assert_array_equal(cut[1], whole[1])
    np.testing.assert_allclose(cut[2], whole[2], rtol=0, atol=1e-5 * abs(whole[2]).max())


@every_algorithm
@pytest.mark.parametrize(("C", "O"), [(70, 33), (64, 16), (130, 24), (5, 7)])
def test_filters_first_changes_no_output(monkeypatch, fresh_plans, rng, m, stride, C, O):
    """The schedule for few pixels and many channels, against that for many pixels, at shapes that suit neither."""
    window = Window.of(3, stride=stride, padding=1)
    x, weight, grad_output = arguments(rng, (2, C, 6, 7), O, window)
    results = {}
    for filters_first in (False, True):
        monkeypatch.setattr(_winograd, "_filters_first", lambda *_, choice=filters_first: choice)
        PLANS.clear()
        results[filters_first] = all_three(m, x, weight, grad_output, window)
        assert_right(results[filters_first], m, x, weight, grad_output, window)
    np.testing.assert_array_equal(results[True][0], results[False][0])
    np.testing.assert_array_equal(results[True][1], results[False][1])


def test_filters_come_first_where_they_are_larger_than_the_patches():
    def choice(N, C, O, side):
        algorithm, x_shape, y_shape = Algorithm(vector("float32"), "F4"), (N, C, side, side), (N, O, side, side)
        return _winograd._filters_first(algorithm, _winograd._grid(algorithm, x_shape, y_shape, 2))

    assert choice(8, 512, 512, 7)
    assert choice(1, 256, 256, 14)
    assert not choice(128, 512, 512, 7)
    assert not choice(128, 16, 16, 32)
    assert not choice(1, 16, 16, 8)  # the filters fit into any cache


@every_algorithm
def test_scratch_left_from_another_geometry_is_never_read(rng, m, stride):
    window = Window.of(3, stride=stride, padding=1)
    geometries = [((2, 3, 9, 6), 5), ((1, 4, 4, 4), 17), ((3, 18, 6, 11), 3)]
    for x, weight, grad_output in [arguments(rng, *geometry, window) for geometry in geometries] * 2:
        for buffer in arena._buffers.by_role.values():
            buffer[: buffer.size // 4 * 4].view(np.float32)[...] = np.nan
        assert_right(all_three(m, x, weight, grad_output, window), m, x, weight, grad_output, window)


@every_algorithm
@pytest.mark.skipif(numba.config.NUMBA_NUM_THREADS < 2, reason="one thread is all that this process may use")
def test_the_number_of_threads_changes_only_the_order_of_the_weights_sums(rng, m, stride):
    window = Window.of(3, stride=stride, padding=1)
    x, weight, grad_output = arguments(rng, (5, 6, 8, 8), 10, window)
    threads = numba.get_num_threads()
    results = {}
    try:
        for count in (1, 2):
            numba.set_num_threads(count)
            results[count] = all_three(m, x, weight, grad_output, window)
            np.testing.assert_array_equal(all_three(m, x, weight, grad_output, window)[2], results[count][2])
    finally:
        numba.set_num_threads(threads)
    np.testing.assert_array_equal(results[1][0], results[2][0])
    np.testing.assert_array_equal(results[1][1], results[2][1])
    np.testing.assert_allclose(results[1][2], results[2][2], rtol=0, atol=1e-5 * abs(results[1][2]).max())


@pytest.mark.parametrize(
    ("m", "window", "groups"),
    [
        (4, Window.of(3, stride=2, padding=1), 1),
        (2, Window.of(3, stride=2, padding=0), 1),
        (2, Window.of(3, stride=2, padding=(1, 2)), 1),
        (2, Window.of(3, stride=(1, 2), padding=1), 1),
        (2, Window.of(3, stride=3, padding=1), 1),
        (2, Window.of(3, stride=2, padding=1, dilation=2), 1),
        (2, Window.of(3, stride=2, padding=1), 2),
        *(
            (m, *refused)
            for m in (2, 4)
            for refused in (
                (Window.of(3, padding=1, dilation=2), 1),
                (Window.of(3, padding=3), 1),
                (Window.of(5, padding=1), 1),
                (Window.of((3, 1)), 1),
                (Window.of(3, padding=1), 2),
            )
        ),
    ],
    ids=str,
)
def test_other_windows_are_refused_and_handed_on(rng, m, window, groups):
    x = rng.standard_normal((2, 4, 7, 8)).astype("float32")
    weight = rng.standard_normal((6, 4 // groups, *window.size)).astype("float32")
    grad_output = rng.standard_normal((2, 6, *window.output_size(7, 8))).astype("float32")
    implementation = load("convolution", f"winograd{m}_cpu")
    for kernel, call in (
        ("forward", (x, weight, window, groups)),
        ("grad_input", (grad_output, weight, x.shape, window, groups)),
        ("grad_weight", (grad_output, x, window, groups)),
    ):
        assert not implementation.covers(kernel, *call)
        with pytest.raises(ValueError, match=rf"Winograd's F\({m}x{m}, 3x3\) needs a 3x3 window of dilation 1"):
            getattr(implementation, kernel)(*call)
        with using(f"winograd{m}_cpu"):
            handed_on = getattr(convolution, kernel)(*call)
        with using("reference"):
            np.testing.assert_allclose(handed_on, getattr(convolution, kernel)(*call), rtol=1e-4, atol=1e-5)


FILTERED, HALVED = Window.of(3, padding=1), Window.of(3, stride=2, padding=1)


@pytest.mark.parametrize(
    ("choice", "dtype", "channels", "output", "window", "groups"),
    [
        ("winograd4_cpu", "float32", (16, 16), (128, 32, 32), FILTERED, 1),
        ("winograd4_cpu", "float32", (64, 32), (4, 16, 16), FILTERED, 1),
        (None, "float64", (64, 64), (128, 8, 8), FILTERED, 1),
        (None, "float32", (3, 16), (128, 32, 32), FILTERED, 1),
        (None, "float32", (64, 10), (128, 32, 32), FILTERED, 1),
        ("winograd4_cpu", "float32", (16, 64), (2, 16, 16), FILTERED, 1),
        (None, "float32", (16, 64), (1, 16, 31), FILTERED, 1),
        ("winograd4_cpu", "float32", (512, 512), (2, 7, 7), FILTERED, 1),
        (None, "float32", (512, 512), (1, 7, 7), FILTERED, 1),
        ("winograd4_cpu", "float32", (256, 256), (8, 14, 14), FILTERED, 1),
        (None, "float32", (64, 64), (128, 8, 8), Window.of(3, padding=2, dilation=2), 1),
        (None, "float32", (64, 64), (128, 8, 8), Window.of(3, stride=3, padding=1), 1),
        (None, "float32", (64, 64), (128, 8, 8), Window.of(1), 1),
        (None, "float32", (64, 64), (128, 8, 8), FILTERED, 4),
        ("winograd2_cpu", "float32", (16, 32), (128, 16, 16), HALVED, 1),
        ("winograd2_cpu", "float32", (128, 256), (8, 14, 14), HALVED, 1),
        ("winograd2_cpu", "float32", (256, 512), (8, 7, 7), HALVED, 1),
        (None, "float32", (256, 512), (32, 7, 7), HALVED, 1),
        (None, "float32", (16, 32), (1, 16, 16), HALVED, 1),
        (None, "float64", (64, 128), (8, 28, 28), HALVED, 1),
    ],
)
def test_winograd_is_chosen_where_it_pays_and_never_for_float64(choice, dtype, channels, output, window, groups):
    assert first_choice("grad_weight", np.dtype(dtype), channels, output, window, groups).name == choice


@pytest.mark.parametrize(
    ("kernel", "channels", "side", "window", "choice"),
    [
        ("forward", (3, 3), 32, FILTERED, None),
        ("forward", (16, 16), 32, FILTERED, "winograd2_cpu"),
        ("forward", (31, 64), 32, FILTERED, "winograd2_cpu"),
        ("forward", (32, 32), 32, FILTERED, "winograd4_cpu"),
        ("grad_input", (16, 16), 32, FILTERED, "winograd4_cpu"),
        ("forward", (256, 256), 14, FILTERED, "winograd2_cpu"),  # tiles of 4 x 4 stick out there
        ("grad_input", (256, 256), 14, FILTERED, "winograd2_cpu"),
        ("grad_input", (256, 256), 7, FILTERED, "winograd4_cpu"),
        ("forward", (16, 32), 16, HALVED, None),
        ("forward", (32, 64), 8, HALVED, "winograd2_cpu"),
        ("grad_input", (16, 32), 16, HALVED, None),
        ("forward", (256, 512), 7, HALVED, None),
    ],
)
def test_each_kernel_takes_the_winograd_that_suits_it(kernel, channels, side, window, choice):
    assert first_choice(kernel, np.dtype("float32"), channels, (128, side, side), window, 1).name == choice


def test_a_dilated_window_with_many_channels_still_convolves(rng):
    """What the rule might wrongly hand to Winograd, through the public functions."""
    window = Window.of(3, padding=2, dilation=2)
    x, weight, _ = arguments(rng, (1, 16, 34, 34), 16, window)
    with using("reference"):
        expected = convolution.forward(x, weight, window)
    np.testing.assert_allclose(
        convolution.forward(x, weight, window), expected, rtol=0, atol=1e-5 * abs(expected).max()
    )


def test_the_public_functions_take_winograd_for_a_large_layer(rng):
    window = Window.of(3, padding=1)
    x, weight, grad_output = arguments(rng, (2, 32, 16, 16), 32, window)
    expected = all_three(4, x, weight, grad_output, window)
    np.testing.assert_array_equal(convolution.forward(x, weight, window), expected[0])
    np.testing.assert_array_equal(convolution.grad_input(grad_output, weight, x.shape, window), expected[1])
    np.testing.assert_array_equal(convolution.grad_weight(grad_output, x, window), expected[2])
