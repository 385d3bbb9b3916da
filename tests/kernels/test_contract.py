"""Every implementation that can run here keeps its family's contract: generated from the registry, nothing is listed.

An implementation whose rounding differs from a plain sum's says so in a module constant ``TOLERANCE``, the error
allowed relative to the largest expected number for each dtype, with the reason beside it.
"""

import importlib
import inspect

import numpy as np
import pytest

from minires_kernels import available, families, implementations, kernels, load, using
from minires_kernels.arrays import channels_last, is_channels_last, to_cpu, to_gpu
from minires_kernels.differences import difference
from minires_kernels.registry import lacking
from minires_kernels.window import Window
from tests.kernels.cases import CASES, GEOMETRIES, POOLS

# A plain float32 sum of a few hundred terms; float64 has ten digits to spare.
USUAL_TOLERANCE = {"float32": 2e-6, "float64": 1e-12}


def unusable(family, name):
    """Why an implementation can't be tried on this machine, or None."""
    try:
        module = load(family, name)
    except ImportError as error:
        return str(error)
    if getattr(module, "DEVICE", "cpu") == "cuda":
        try:
            to_gpu(np.zeros(1))
        except Exception as error:
            return f"{family}/{name} needs a GPU: {error}"
    return None


IMPLEMENTED = [(family, name) for family in families() for name in implementations(family)]
UNUSABLE = {each: unusable(*each) for each in IMPLEMENTED}
KERNELS = [
    (family, name, kernel)
    for family, name in IMPLEMENTED
    for kernel in kernels(family)
    if UNUSABLE[family, name] or kernel not in lacking(family, name)
]
CALLS = [(name, case) for family, name, kernel in KERNELS for case in CASES[family, kernel]]


def tried(rows, key=lambda row: row[:2]):
    """``rows``; those of an implementation, (family, name) = ``key(row)``, that can't be tried here are skipped."""
    skip = pytest.mark.skip
    return [pytest.param(*row, marks=skip(reason=why) if (why := UNUSABLE[key(row)]) else ()) for row in rows]


def having(family, *names):
    """The implementations on the CPU that have all these kernels themselves."""
    return [name for name in available(family, "cpu") if not set(names) & set(lacking(family, name))]


def identify(value):
    return str(value) if isinstance(value, str) else f"{value.family}.{value.kernel}-{value}"


def calls(rows):
    rows = tried(rows, key=lambda row: (row[1].family, row[0]))
    return pytest.mark.parametrize(("implementation", "case"), rows, ids=identify)


def every_implementation_of(family):
    rows = tried([(name,) for name in implementations(family)], key=lambda row: (family, *row))
    return pytest.mark.parametrize("implementation", rows)


every_call = calls(CALLS)
every_kernel = pytest.mark.parametrize(("family", "implementation", "kernel"), tried(KERNELS))
every_implementation = pytest.mark.parametrize(("family", "implementation"), tried(IMPLEMENTED))


def call(family, implementation, kernel, *arguments):
    """The results of one call as a tuple; by whoever steps in where the implementation doesn't cover it.

    An implementation for the GPU gets its arrays there, and they come back.
    """
    module = load(family, implementation)
    on_gpu = getattr(module, "DEVICE", "cpu") == "cuda"
    arguments = [to_gpu(each) if on_gpu and isinstance(each, np.ndarray) else each for each in arguments]
    covers = getattr(module, "covers", None)
    if kernel not in lacking(family, implementation) and (covers is None or covers(kernel, *arguments)):
        function = getattr(module, kernel)
    else:
        function = getattr(importlib.import_module(f"minires_kernels.{family}"), kernel)
    with using(implementation):
        result = function(*arguments)
    if family == "update":  # the one family that writes its arguments: they are its results
        assert result is None
        result = arguments[0], arguments[2]
    results = result if isinstance(result, tuple) else (result,)
    return tuple(each if each is None or not on_gpu else to_cpu(each) for each in results)


def run(case, implementation, arguments):
    """The results of one call of a case; what the family writes is copied first."""
    if case.family == "update":
        parameter, grad, velocity, *options = arguments
        arguments = copied(parameter), grad, velocity if velocity is None else copied(velocity), *options
    return call(case.family, implementation, case.kernel, *arguments)


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


def assert_near(results, expected, limit, names=None):
    """Each result is within ``limit`` of what is expected, relative to the largest finite number expected."""
    assert len(results) == len(expected)
    for result, value, name in zip(results, expected, names or ["result"] * len(expected), strict=True):
        if value is None:
            assert result is None
            continue
        largest = np.abs(value[np.isfinite(value)]).max(initial=0)
        problem = difference(np.asarray(result), np.asarray(value), limit * largest, name)
        assert not problem, problem


def names(case):
    """What the contract calls the results of a case."""
    return importlib.import_module(f"minires_kernels.{case.family}").KERNELS[case.kernel]


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
    assert_near(results, case.expected(dtype), tolerance(case, implementation, dtype), names(case))
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
    assert_near(results, case.expected("float32"), tolerance(case, implementation, "float32"), names(case))


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
    assert_near(results, case.expected("float32"), tolerance(case, implementation, "float32"), names(case))


@calls([row for row in CALLS if row[1].family != "update"])  # update's results are its arguments
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


@pytest.mark.parametrize("implementation", having("patches", *kernels("patches")))
def test_patches_are_c_contiguous(implementation, rng):
    module, window = load("patches", implementation), Window.of(3, stride=2, padding=1)
    columns = module.im2col(channels_last(rng.normal(size=(2, 3, 5, 6))), window)
    assert columns.flags.c_contiguous
    assert module.col2im(np.asfortranarray(columns), (2, 3, 5, 6), window).flags.c_contiguous


@pytest.mark.parametrize(
    ("implementation", "kernel"),
    [(name, kernel) for kernel in kernels("activation") for name in having("activation", kernel)],
)
def test_activations_lie_in_memory_as_their_first_operand_does(implementation, kernel, rng):
    x, y = rng.normal(size=(2, 3, 4, 5)), rng.normal(size=(2, 3, 4, 5))
    function = getattr(load("activation", implementation), kernel)
    for first, second in ((x, y), (x, channels_last(y)), (channels_last(x), y), (channels_last(x), channels_last(y))):
        result = function(first) if kernel == "relu" else function(first, second)
        assert result.strides == first.strides


@pytest.mark.parametrize("addend", [False, True])
@pytest.mark.parametrize("implementation", having("normalization", *kernels("normalization")))
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
@every_implementation_of("convolution")
def test_both_gradients_of_a_convolution_are_its_adjoints(implementation, geometry, rng):
    _, x_shape, O, groups, window = geometry
    x, weight = rng.normal(size=x_shape), rng.normal(size=(O, x_shape[1] // groups, *window.size))
    (y,) = call("convolution", implementation, "forward", x, weight, window, groups)
    g = rng.normal(size=y.shape)
    (grad_x,) = call("convolution", implementation, "grad_input", g, weight, x_shape, window, groups)
    assert_adjoint(y, g, x, grad_x)
    (grad_weight,) = call("convolution", implementation, "grad_weight", g, x, window, groups)
    assert_adjoint(y, g, weight, grad_weight)


@pytest.mark.parametrize("geometry", GEOMETRIES, ids=lambda geometry: geometry[0])
@every_implementation_of("patches")
def test_col2im_is_the_adjoint_of_im2col(implementation, geometry, rng):
    _, x_shape, _, _, window = geometry
    x = rng.normal(size=x_shape)
    (columns,) = call("patches", implementation, "im2col", x, window)
    g = rng.normal(size=columns.shape)
    (image,) = call("patches", implementation, "col2im", g, x_shape, window)
    assert_adjoint(columns, g, x, image)


@pytest.mark.parametrize("count_include_pad", [False, True])
@pytest.mark.parametrize("pool", POOLS, ids=lambda pool: pool[0])
@every_implementation_of("pooling")
def test_avg_pool_backward_is_the_adjoint_of_avg_pool(implementation, pool, count_include_pad, rng):
    _, x_shape, window, ceil_mode = pool
    x, options = rng.normal(size=x_shape), (window, ceil_mode, count_include_pad)
    (y,) = call("pooling", implementation, "avg_pool", x, *options)
    g = rng.normal(size=y.shape)
    (grad_x,) = call("pooling", implementation, "avg_pool_backward", g, x_shape, *options)
    assert_adjoint(y, g, x, grad_x)


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
    for name in having(family, kernel):
        with pytest.raises(ValueError, match=r"the padded input \(2, 2\) is smaller than the window.*\(3, 3\)"):
            getattr(load(family, name), kernel)(*arguments)


# ---- does a file say what the registry reads?


@pytest.mark.parametrize(("family", "implementation"), IMPLEMENTED)
def test_nothing_but_a_missing_library_keeps_a_file_from_being_imported(family, implementation):
    try:
        load(family, implementation)
    except ImportError as error:
        if not isinstance(error.__cause__, ModuleNotFoundError):
            raise


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
