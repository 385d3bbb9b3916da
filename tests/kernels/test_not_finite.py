"""What NaN and infinities give is part of each family's contract: the same numbers from every implementation.

Each case of the contract is tried again with some of them planted into its data.
"""

import numpy as np
import pytest

from minires_kernels import load
from tests.kernels.cases import CASES
from tests.kernels.test_contract import CALLS, assert_near, identify, run, tolerance

DATA = {
    "normalize": (0, 5),
    "normalize_backward": (0, 1),
    "batch_norm_backward": (0, 1),
    "add": (0, 1),
    "add_relu": (0, 1),
    "relu_backward": (0, 1),
    "grad_weight": (0, 1),
    "cross_entropy_backward": (0, 3),
    "sgd": (0, 1, 2),
}
"""The positions of the arguments that hold data; of the other kernels it is the first alone."""


def planted(case, number, dtype):
    """The arguments of ``case`` with ``number`` at one place of each of its data."""
    arguments = list(case.arguments(dtype))
    for position in DATA.get(case.kernel, (0,)):
        array = arguments[position]
        if array is not None and array.size:
            array.reshape(-1)[array.size // (2 + position)] = number
    if case.kernel in ("batch_norm_backward", "normalize_backward") and arguments[7] is not None:
        _, *given, bias = arguments[:5] + arguments[7:]  # the gate may be computed again from x: output must fit it
        arguments[5] = load(case.family, "reference").normalize(*given, bias, None, True)
    return arguments


def without_signs(results):
    """The same, NaN for everything that isn't finite."""
    return [result if result is None else np.where(np.isfinite(result), result, np.nan) for result in results]


@pytest.mark.parametrize("number", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize(("implementation", "case"), CALLS, ids=identify)
def test_every_implementation_gives_what_the_reference_gives(implementation, case, number):
    arguments = planted(case, number, "float32")
    with np.errstate(all="ignore"):
        expected = run(case, "reference", planted(case, number, "float64"))
        results = run(case, implementation, arguments)
        if case.kernel == "grad_weight":
            exact = case.oracle(*planted(case, number, "float64"))
            results, expected = [[met_in_padding(each[0], expected[0], exact)] for each in (results, expected)]
    assert_near(results, expected, 2 * tolerance(case, implementation, "float32"))


def met_in_padding(result, expected, exact):
    """``result``, 0 where what isn't finite is met in the padding alone: the contract lets it give 0 or NaN there."""
    met = np.isnan(expected) & np.isfinite(exact)
    limit = 1e-5 * np.abs(exact[np.isfinite(exact)]).max(initial=1)
    assert np.all(np.isnan(result[met]) | (np.abs(result[met] - exact[met]) <= limit))
    return np.where(met, 0, result)


@pytest.mark.parametrize("number", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize(
    "case",
    # a gradient that meets the padding in grad_weight is multiplied by 0 there; the oracle leaves such a product out
    [case for cases in CASES.values() for case in cases if case.kernel != "grad_weight"],
    ids=lambda case: f"{case.family}.{case.kernel}-{case}",
)
def test_the_reference_gives_what_mathematics_gives(case, number):
    arguments = planted(case, number, "float64")
    with np.errstate(all="ignore"):
        expected = case.oracle(*planted(case, number, "float64"))
        results = run(case, "reference", arguments)
    expected = expected if isinstance(expected, tuple) else (expected,)
    if case.kernel == "batch_norm_backward":  # a sum of infinities: its order decides whether it is one, or NaN
        results, expected = without_signs(results), without_signs(expected)
    assert_near(results, expected, 1e-12)
