"""Every implementation that can run here keeps its family's contract: generated from the registry, nothing is listed.

An implementation whose rounding differs from a plain sum's says so in a module constant ``TOLERANCE``, the error
allowed relative to the largest expected number for each dtype, with the reason beside it.
"""

import importlib
import inspect

import numpy as np
import pytest

from minires_kernels import available, convolution, families, kernels, load, using
from minires_kernels.arrays import channels_last, is_channels_last
from minires_kernels.window import Window
from tests.kernels.cases import CASES, GEOMETRIES, POOLS

# A plain float32 sum of a few hundred terms; float64 has ten digits to spare.
USUAL_TOLERANCE = {"float32": 2e-6, "float64": 1e-12}

IMPLEMENTED = [(family, name) for family in families() for name in available(family, "cpu")]
KERNELS = [(family, name, kernel) for family, name in IMPLEMENTED for kernel in kernels(family)]
CALLS = [(name, case) for family, name, kernel in KERNELS for case in CASES[family, kernel]]


def identify(value):
    return str(value) if isinstance(value, str) else f"{value.family}.{value.kernel}-{value}"


every_call = pytest.mark.parametrize(("implementation", "case"), CALLS, ids=identify)
every_kernel = pytest.mark.parametrize(("family", "implementation", "kernel"), KERNELS)
every_implementation = pytest.mark.parametrize(("family", "implementation"), IMPLEMENTED)


def run(case, implementation, arguments):
    """The results of one call as a tuple; by whoever steps in where the implementation doesn't cover it."""
    module = load(case.family, implementation)
    covers = getattr(module, "covers", None)
    if covers is None or covers(case.kernel, *arguments):
        function = getattr(module, case.kernel)
    else:
        function = getattr(importlib.import_module(f"minires_kernels.{case.family}"), case.kernel)
    if case.family == "update":  # the one family that writes its arguments: they are its results
        parameter, grad, velocity, *options = arguments
        parameter, velocity = copied(parameter), velocity if velocity is None else copied(velocity)
        with using(implementation):
            assert function(parameter, grad, velocity, *options) is None
        return parameter, velocity
    with using(implementation):
        result = function(*arguments)
    return result if isinstance(result, tuple) else (result,)


def copied(x):
    """A writable copy that lies in memory as x does, gaps included."""
    extent = np.lib.array_utils.byte_bounds(x)
    buffer = np.zeros(extent[1] - extent[0] if x.size else 0, np.uint8)
    offset = x.__array_interface__["data"][0] - extent[0] if x.size else 0
    copy = np.ndarray(x.shape, x.dtype, buffer, offset, x.strides) if x.size else np.empty_like(x)
    copy[...] = x
    return copy


def tolerance(case, implementation, dtype):
    return getattr(load(case.family, implementation), "TOLERANCE", USUAL_TOLERANCE)[dtype]


def assert_near(results, expected, limit):
    assert len(results) == len(expected)
    for result, value in zip(results, expected, strict=True):
        if value is None:
            assert result is None
            continue
        assert result.shape == value.shape
        finite = np.isfinite(value)
        np.testing.assert_array_equal(np.asarray(result)[~finite], value[~finite])
        largest = np.abs(value[finite]).max(initial=0)
        np.testing.assert_allclose(np.asarray(result)[finite], value[finite], rtol=0, atol=limit * largest)


def frozen(arguments):
    for argument in arguments:
        if isinstance(argument, np.ndarray):
            argument.flags.writeable = False
    return arguments


# ---- is the value right?


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@every_call
def test_agrees_with_the_oracle_and_leaves_its_inputs_alone(implementation, case, dtype):
    arguments = frozen(case.arguments(dtype))
    results = run(case, implementation, arguments)
    assert_near(results, case.expected(dtype), tolerance(case, implementation, dtype))
    for result in results:
        if result is not None:
            assert isinstance(result, np.ndarray)
            assert result.dtype == ("int32" if result.dtype.kind == "i" else dtype)
    for argument, original in zip(arguments, case.arguments(dtype), strict=True):
        if isinstance(argument, np.ndarray):
            np.testing.assert_array_equal(argument, original)


# ---- is it polite?


def sliced(x):
    """x in the gaps of a buffer of NaN, which whoever reads beside x will show."""
    buffer = np.full([2 * length + 3 for length in x.shape], np.nan if x.dtype.kind == "f" else -7, x.dtype)
    view = buffer[tuple(slice(2, 2 + 2 * length, 2) for length in x.shape)]
    view[...] = x
    return view


def laid_out_as_nhwc(x):
    return channels_last(x) if x.ndim == 4 else np.asfortranarray(x)


def backwards(x):
    return np.flip(np.flip(x).copy())


@pytest.mark.parametrize("layout", [sliced, laid_out_as_nhwc, np.asfortranarray, backwards])
@every_call
def test_accepts_any_strides(implementation, case, layout):
    arguments = case.arguments("float32")
    strided = [
        layout(argument) if isinstance(argument, np.ndarray) and argument.ndim else argument for argument in arguments
    ]
    results = run(case, implementation, frozen(strided))
    assert_near(results, case.expected("float32"), tolerance(case, implementation, "float32"))


def in_records(x):
    """x as a field of records whose other field takes one byte: neither aligned nor contiguous."""
    records = np.zeros(x.shape, [("mark", np.int8), ("x", x.dtype)])
    records["x"] = x
    return records["x"]


@every_kernel
def test_accepts_arrays_that_are_not_aligned(family, implementation, kernel):
    case = CASES[family, kernel][1]
    arguments = [
        in_records(argument) if isinstance(argument, np.ndarray) and argument.ndim else argument
        for argument in case.arguments("float32")
    ]
    results = run(case, implementation, frozen(arguments))
    assert_near(results, case.expected("float32"), tolerance(case, implementation, "float32"))


@pytest.mark.parametrize(
    ("implementation", "case"), [call for call in CALLS if call[1].family != "update"], ids=identify
)  # update's results are its arguments
def test_results_share_memory_with_nothing(implementation, case):
    arguments = case.arguments("float32")
    results = [result for result in run(case, implementation, arguments) if result is not None]
    if case.kernel in ("batch_norm_backward", "normalize_backward") and arguments[5] is None and arguments[6]:
        assert results.pop() is arguments[0], "without a ReLU the addend's gradient is grad_output itself"
    arrays = [argument for argument in arguments if isinstance(argument, np.ndarray)]
    for position, result in enumerate(results):
        assert not any(np.shares_memory(result, other) for other in (*arrays, *results[:position]))


@every_kernel
def test_repeated_calls_give_the_same_bits_whatever_ran_between(family, implementation, kernel):
    """Scratch memory must not carry anything from one call, or geometry, to the next."""
    cases = CASES[family, kernel]
    for dtype in ("float32", "float64"):
        before = [run(case, implementation, case.arguments(dtype)) for case in cases]
        after = [run(case, implementation, case.arguments(dtype)) for case in reversed(cases)]
        for first, second in zip(before, reversed(after), strict=True):
            for one, other in zip(first, second, strict=True):
                np.testing.assert_array_equal(one, other)


# ---- does memory look as promised?


@pytest.mark.parametrize("implementation", available("patches", "cpu"))
def test_patches_are_c_contiguous(implementation, rng):
    module, window = load("patches", implementation), Window.of(3, stride=2, padding=1)
    columns = module.im2col(channels_last(rng.normal(size=(2, 3, 5, 6))), window)
    assert columns.flags.c_contiguous
    assert module.col2im(np.asfortranarray(columns), (2, 3, 5, 6), window).flags.c_contiguous


@pytest.mark.parametrize("kernel", kernels("activation"))
@pytest.mark.parametrize("implementation", available("activation", "cpu"))
def test_activations_lie_in_memory_as_their_first_operand_does(implementation, kernel, rng):
    x, y = rng.normal(size=(2, 3, 4, 5)), rng.normal(size=(2, 3, 4, 5))
    function = getattr(load("activation", implementation), kernel)
    for first, second in ((x, y), (x, channels_last(y)), (channels_last(x), y), (channels_last(x), channels_last(y))):
        result = function(first) if kernel == "relu" else function(first, second)
        assert result.strides == first.strides


@pytest.mark.parametrize("addend", [False, True])
@pytest.mark.parametrize("implementation", available("normalization", "cpu"))
def test_normalized_images_lie_in_memory_as_x_does(implementation, addend, rng):
    module = load("normalization", implementation)
    x, other = rng.normal(size=(2, 3, 4, 5)), rng.normal(size=(2, 3, 4, 5))
    mean, inverse_std, weight, bias = rng.random((4, 3)) + 0.5
    for first, second in ((x, channels_last(other)), (channels_last(x), other)):
        y = module.normalize(first, mean, inverse_std, weight, bias, second if addend else None, addend)
        assert is_channels_last(y) == is_channels_last(first)
        for kernel in (module.batch_norm_backward, module.normalize_backward):
            grad_x = kernel(second, first, mean, inverse_std, weight, y if addend else None, addend)[0]
            assert is_channels_last(grad_x) == is_channels_last(first)


# ---- are backwards the adjoints of forwards?


def assert_adjoint(image, upstream, x, gradient):
    """<A x, g> == <x, A* g>, to 1e-12 of what the sums could reach (Cauchy and Schwarz)."""
    reach = max(np.linalg.norm(image) * np.linalg.norm(upstream), np.linalg.norm(x) * np.linalg.norm(gradient))
    assert abs(np.vdot(image, upstream) - np.vdot(x, gradient)) <= 1e-12 * reach


@pytest.mark.parametrize("geometry", GEOMETRIES, ids=lambda geometry: geometry[0])
@pytest.mark.parametrize("implementation", available("convolution", "cpu"))
def test_both_gradients_of_a_convolution_are_its_adjoints(implementation, geometry, rng):
    _, x_shape, O, groups, window = geometry
    x, weight = rng.normal(size=x_shape), rng.normal(size=(O, x_shape[1] // groups, *window.size))
    with using(implementation):
        y = convolution.forward(x, weight, window, groups)
        g = rng.normal(size=y.shape)
        assert_adjoint(y, g, x, convolution.grad_input(g, weight, x_shape, window, groups))
        assert_adjoint(y, g, weight, convolution.grad_weight(g, x, window, groups))


@pytest.mark.parametrize("geometry", GEOMETRIES, ids=lambda geometry: geometry[0])
@pytest.mark.parametrize("implementation", available("patches", "cpu"))
def test_col2im_is_the_adjoint_of_im2col(implementation, geometry, rng):
    _, x_shape, _, _, window = geometry
    module, x = load("patches", implementation), rng.normal(size=x_shape)
    columns = module.im2col(x, window)
    g = rng.normal(size=columns.shape)
    assert_adjoint(columns, g, x, module.col2im(g, x_shape, window))


@pytest.mark.parametrize("count_include_pad", [False, True])
@pytest.mark.parametrize("pool", POOLS, ids=lambda pool: pool[0])
@pytest.mark.parametrize("implementation", available("pooling", "cpu"))
def test_avg_pool_backward_is_the_adjoint_of_avg_pool(implementation, pool, count_include_pad, rng):
    _, x_shape, window, ceil_mode = pool
    module, x = load("pooling", implementation), rng.normal(size=x_shape)
    y = module.avg_pool(x, window, ceil_mode, count_include_pad)
    g = rng.normal(size=y.shape)
    assert_adjoint(y, g, x, module.avg_pool_backward(g, x_shape, window, ceil_mode, count_include_pad))


# ---- does it fail well?


@pytest.mark.parametrize(
    ("family", "kernel", "arguments"),
    [
        ("patches", "im2col", (np.ones((1, 1, 2, 2)), Window.of(3))),
        ("patches", "col2im", (np.ones((1, 9, 1)), (1, 1, 2, 2), Window.of(3))),
        ("pooling", "max_pool", (np.ones((1, 1, 2, 2)), Window.of(3))),
        ("pooling", "avg_pool", (np.ones((1, 1, 2, 2)), Window.of(3))),
    ],
)
def test_a_window_larger_than_the_image_is_refused_by_each_implementation(family, kernel, arguments):
    for name in available(family, "cpu"):
        with pytest.raises(ValueError, match=r"the padded input \(2, 2\) is smaller than the window.*\(3, 3\)"):
            getattr(load(family, name), kernel)(*arguments)


# ---- does a file say what the registry reads?


@every_kernel
def test_signature_is_the_contracts(family, implementation, kernel):
    contract = getattr(importlib.import_module(f"minires_kernels.{family}"), kernel)
    function = getattr(load(family, implementation), kernel)
    assert parameters(function) == parameters(contract)


def parameters(function):
    return [(each.name, each.kind, each.default) for each in inspect.signature(function).parameters.values()]


@every_implementation
def test_constants_and_docstring(family, implementation):
    module = load(family, implementation)
    assert module.__doc__
    assert getattr(module, "DEVICE", "cpu") in ("cpu", "cuda", "any")
    assert isinstance(getattr(module, "PREFERENCE", 0), int)
    assert set(getattr(module, "TOLERANCE", USUAL_TOLERANCE)) == {"float32", "float64"}


def test_every_kernel_has_cases_and_every_family_a_reference_for_any_device():
    assert set(CASES) == {(family, kernel) for family in families() for kernel in kernels(family)}
    assert all(load(family, "reference").DEVICE == "any" for family in families())
