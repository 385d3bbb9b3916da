"""PyTorch's own sample inputs for the functions that we share: each value and each gradient against PyTorch's.

PyTorch tests itself with a database of operations (OpInfo) that makes sample inputs for each. Here every sample of a
shared function is put to PyTorch and to us, in float32 and float64, with a random upstream gradient.

The rule of counting. A sample is what the database gives with ``requires_grad=True`` for an entry in ``CALLS``: all
samples of all entries whose function, operator or method we have too. Each is one of

- *pass*: shape, dtype and numbers of the result are PyTorch's, and so is the gradient for each input that has one;
- *refused*: a ValueError or TypeError in our own words, or a keyword or method of PyTorch's that we don't have;
- *wrong*: other numbers, another shape or dtype, a missing gradient; *crash*: any other exception.

Nothing is left out but what ``left_out`` names, and the table shows how many that are: samples of *another* function
that the database keeps under the same name (padding by reflection, division that rounds), and second copies of one
call (that also ask for the places of the maxima, or for another of PyTorch's back ends).
A call is written in our words where they differ (``axis`` for ``dim``; x + 2 y for ``add(x, y, alpha=2)``).
"""

from __future__ import annotations

import re
import warnings
from collections import Counter
from dataclasses import dataclass, field

import numpy as np
import pytest

from minires import Tensor, functional

torch = pytest.importorskip("torch")
pytest.importorskip("expecttest", reason="PyTorch's sample inputs need expecttest: pip install expecttest")
try:
    from torch.testing._internal.common_methods_invocations import op_db
except Exception as failure:  # another PyTorch keeps them elsewhere, or asks for more packages
    pytest.skip(f"this PyTorch has no database of sample inputs ({failure})", allow_module_level=True)

pytestmark = pytest.mark.witness

LEAST_SHARE = 0.92
TOLERANCE = {torch.float32: 2e-5, torch.float64: 1e-12}
"""Relative, and absolute in units of the largest number: what sums of some 300 products may differ in their order."""


class NotOfferedError(ValueError):
    """A sample asks for something that has no word of ours."""


# ---- a torch call in our words ---------------------------------------------------------------------------------------


def only(options, *known):
    """Raise when a sample uses other keywords than ``known``; those whose value is None are as good as absent."""
    strange = [name for name, value in options.items() if name not in known and value is not None]
    if strange:
        raise NotOfferedError(f"{', '.join(strange)}: no such option")


def axes(name):
    """sum(dim=..., keepdim=...) and its like: ``dim=()`` means all axes to PyTorch."""

    def call(x, dim=None, keepdim=False, **options):
        only(options)
        return getattr(x, name)(dim if dim != () else None, keepdims=keepdim)

    return call


def extreme(name, other):
    """max() has three forms: of all numbers; along an axis, where we have the values alone; of two tensors."""

    def call(x, dim=None, keepdim=False):
        return getattr(x, other)(dim) if isinstance(dim, Tensor) else getattr(x, name)(dim, keepdims=keepdim)

    return call


def variance(x, dim=None, unbiased=True, keepdim=False, correction=1):
    if isinstance(dim, bool):  # var(unbiased)
        dim, unbiased = None, dim
    correction = 1 if correction is None else correction
    return x.var(dim, correction=correction if unbiased else 0, keepdims=keepdim)


def clamp(x, lower=None, upper=None):
    """Bounds that are tensors have a method of their own each."""
    x = x if lower is None else x.maximum(lower)
    return x if upper is None else x.minimum(upper)


def with_dtype(function):
    def call(x, axis, dtype=None):
        return function(x if dtype is None else x.astype(str(dtype).removeprefix("torch.")), axis)

    return call


def pad(x, pads, mode="constant", value=0.0):
    """PyTorch's pairs begin at the last axis."""
    pairs = list(zip(pads[::2], pads[1::2], strict=True))[::-1]
    return functional.pad(x, [(0, 0)] * (x.ndim - len(pairs)) + pairs, value=value)


def avg_pool2d(x, kernel_size, stride=None, padding=0, ceil_mode=False, count_include_pad=True, divisor_override=None):
    only({"divisor_override": divisor_override})
    return functional.avg_pool2d(x, kernel_size, stride, padding, ceil_mode, count_include_pad)


def dropout(x, p=0.5, training=True):
    return functional.dropout(x, p, training, rng=np.random.default_rng(0))


def compare(name):
    """``x == y`` and the like; Python's own comparison of identities isn't one."""

    def call(x, y):
        if getattr(Tensor, name) is getattr(object, name):
            raise NotOfferedError(f"{name}: not defined")
        return getattr(x, name)(y)

    return call


CALLS = {
    "nn.functional.conv2d": functional.conv2d,
    "nn.functional.linear": functional.linear,
    "nn.functional.batch_norm": functional.batch_norm,
    "nn.functional.relu": functional.relu,
    "sigmoid": functional.sigmoid,
    "tanh": functional.tanh,
    "softmax": with_dtype(functional.softmax),
    "log_softmax": with_dtype(functional.log_softmax),
    "nn.functional.cross_entropy": functional.cross_entropy,
    "nn.functional.dropout": dropout,
    "nn.functional.max_pool2d": functional.max_pool2d,
    "nn.functional.avg_pool2d": avg_pool2d,
    "nn.functional.adaptive_avg_pool2d": functional.adaptive_avg_pool2d,
    "nn.functional.pad": pad,
    "cat": functional.concatenate,
    "stack": functional.stack,
    "where": lambda x, condition, y: functional.where(condition, x, y),
    "add": lambda x, y, alpha=1: x + y if alpha == 1 else x + y * alpha,
    "sub": lambda x, y, alpha=1: x - y if alpha == 1 else x - y * alpha,
    "mul": lambda x, y: x * y,
    "div": lambda x, y: x / y,
    "pow": lambda x, y: x**y,
    "matmul": lambda x, y: x @ y,
    "__radd__": lambda x, y: y + x,
    "__rsub__": lambda x, y: y - x,
    "__rmul__": lambda x, y: y * x,
    "__rdiv__": lambda x, y: y / x,
    "__rpow__": lambda x, y: y**x,
    "__rmatmul__": lambda x, y: y @ x,
    "neg": lambda x: -x,
    "abs": lambda x: abs(x),
    "exp": lambda x: x.exp(),
    "log": lambda x: x.log(),
    "sqrt": lambda x: x.sqrt(),
    "sum": axes("sum"),
    "mean": axes("mean"),
    "var": variance,
    "max": extreme("max", "maximum"),
    "min": extreme("min", "minimum"),
    "amax": axes("max"),
    "amin": axes("min"),
    "argmax": axes("argmax"),
    "argmin": axes("argmin"),
    "maximum": lambda x, y: x.maximum(y),
    "minimum": lambda x, y: x.minimum(y),
    "eq": compare("__eq__"),
    "ne": compare("__ne__"),
    "lt": compare("__lt__"),
    "le": compare("__le__"),
    "gt": compare("__gt__"),
    "ge": compare("__ge__"),
    "clamp": clamp,
    "reshape": lambda x, shape: x.reshape(shape),
    "flatten": lambda x, start_dim=0, end_dim=-1: x.flatten(start_dim, end_dim),
    "permute": lambda x, order: x.permute(order),
    "transpose": lambda x, axis0, axis1: x.transpose(axis0, axis1),
    "__getitem__": lambda x, index: x[index],
}


def left_out(op, sample):
    """Why a sample doesn't count, or nothing."""
    if op.name == "nn.functional.pad" and op.variant_test_name != "constant":
        return "padding with copies of the image is another function"
    if sample.kwargs.get("rounding_mode"):
        return "division that rounds is another function"
    if op.variant_test_name == "without_cudnn":
        return "the same samples for another of PyTorch's back ends"
    return ""


# ---- both sides ------------------------------------------------------------------------------------------------------


def mapped(tree, change):
    """``tree`` of tuples, lists and dicts with ``change`` applied to each leaf."""
    if isinstance(tree, (list, tuple)):
        return type(tree)(mapped(item, change) for item in tree)
    if isinstance(tree, dict):
        return {name: mapped(item, change) for name, item in tree.items()}
    return change(tree)


def outcome(op, sample, dtype):
    """(pass, refused, wrong or crash; the reason)."""
    leaves = []

    def separate(value):
        if not isinstance(value, torch.Tensor):
            return value
        copy = value.detach().clone().requires_grad_(value.requires_grad)
        leaves.append((copy, to_ours(copy)))
        return copy

    arguments = mapped((sample.input, *sample.args), separate)
    options = mapped(sample.kwargs, separate)
    ours = {id(copy): tensor for copy, tensor in leaves}
    our_arguments, our_options = (mapped(tree, lambda leaf: ours.get(id(leaf), leaf)) for tree in (arguments, options))
    if op.name == "nn.functional.batch_norm":  # running statistics are arrays
        our_arguments = tuple(
            each.data if position in (1, 2) and isinstance(each, Tensor) else each
            for position, each in enumerate(our_arguments)
        )
    expected = op(*arguments, **options)
    expected, *others = (expected,) if isinstance(expected, torch.Tensor) else expected
    upstream = np.random.default_rng(7).standard_normal(tuple(expected.shape))
    try:
        found = CALLS[op.name](*our_arguments, **our_options)
        found, *found_others = found if isinstance(found, tuple) else (found,)
        if found.requires_grad:
            found.backward(upstream.astype(found.dtype))
    except (ValueError, TypeError, AttributeError) as error:
        known = isinstance(error, NotOfferedError) or re.match(r"\w+: ", str(error))
        is_missing = isinstance(error, AttributeError) and isinstance(error.obj, Tensor)
        return ("refused" if known or is_missing else "crash"), f"{type(error).__name__}: {error}"
    except Exception as error:
        return "crash", f"{type(error).__name__}: {error}"
    if op.name == "nn.functional.dropout" and 0 < options.get("p", 0.5) < 1 and options.get("training", True):
        expected = kept(arguments[0], found, options.get("p", 0.5))  # what each side drops is its own choice
    for theirs, our in zip(others, found_others, strict=False):  # the places of maxima
        if fault := difference(theirs, our.data, dtype):
            return "wrong", f"second result: {fault}"
    return judgement(expected, found, leaves, upstream, dtype)


def to_ours(value):
    array = value.detach().numpy()
    return Tensor(array.copy(order="K"), requires_grad=value.requires_grad)


def kept(x, found, p):
    """What PyTorch would have made of ``x`` with the elements dropped that we have dropped."""
    return x * torch.tensor(found.data != 0).to(x.dtype) / (1 - p)


def judgement(expected, found, leaves, upstream, dtype):
    fault = difference(expected, found.data, dtype)
    if fault:
        return "wrong", f"value: {fault}"
    largest = np.abs(upstream).max(initial=0)  # terms of this size may cancel in a gradient
    sources = [(theirs, tensor) for theirs, tensor in leaves if theirs.requires_grad]
    if not sources or not expected.requires_grad:
        return "pass", ""
    gradients = torch.autograd.grad(
        expected, [theirs for theirs, _ in sources], torch.from_numpy(upstream).to(expected.dtype), allow_unused=True
    )
    for position, (gradient, (_, tensor)) in enumerate(zip(gradients, sources, strict=True)):
        if gradient is None:
            continue
        if tensor.grad is None:
            return "wrong", f"gradient {position} is missing"
        fault = difference(gradient, tensor.grad, dtype, largest)
        if fault:
            return "wrong", f"gradient {position}: {fault}"
    return "pass", ""


def difference(expected, found, dtype, scale=0.0):
    expected = expected.detach().numpy()
    if found.shape != expected.shape or found.dtype != expected.dtype:
        return f"{found.shape} {found.dtype}, but PyTorch's is {expected.shape} {expected.dtype}"
    if found.dtype.kind != "f":
        return "" if (found == expected).all() else "other numbers"
    scale = np.abs(expected[np.isfinite(expected)]).max(initial=scale)
    near = np.isclose(found, expected, rtol=TOLERANCE[dtype], atol=TOLERANCE[dtype] * scale, equal_nan=True)
    return "" if near.all() else f"off by {np.abs(found - expected).max():.2e} at a scale of {scale:.2e}"


# ---- the table -------------------------------------------------------------------------------------------------------


@dataclass
class Row:
    counts: Counter = field(default_factory=Counter)
    left_out: Counter = field(default_factory=Counter)
    reasons: dict = field(default_factory=lambda: {"refused": Counter(), "wrong": Counter(), "crash": Counter()})

    @property
    def total(self):
        return sum(self.counts.values())


@pytest.fixture(scope="module")
def rows():
    found = {name: Row() for name in CALLS}
    for op in op_db:
        if op.name not in CALLS:
            continue
        row = found[op.name]
        for dtype in (torch.float32, torch.float64):
            torch.manual_seed(0)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                for sample in op.sample_inputs("cpu", dtype, requires_grad=op.supports_autograd):
                    why = left_out(op, sample)
                    if why:
                        row.left_out[why] += 1
                        continue
                    kind, reason = outcome(op, sample, dtype)
                    row.counts[kind] += 1
                    if reason:
                        row.reasons[kind][reason] += 1
    return found


def shares(rows):
    """(passed of all samples, the mean over functions of what passes of each): one function has half the samples."""
    counted = [row for row in rows.values() if row.total]
    total = sum(row.counts["pass"] for row in counted) / sum(row.total for row in counted)
    return total, sum(row.counts["pass"] / row.total for row in counted) / len(counted)


def table(rows):
    lines = [f"{'function':<36}{'samples':>8}{'pass':>7}{'refused':>9}{'wrong':>7}{'crash':>7}{'left out':>10}"]
    kinds = ("pass", "refused", "wrong", "crash")
    for name, row in sorted(rows.items()):
        counts = "".join(f"{row.counts[kind]:>{width}}" for kind, width in zip(kinds, (7, 9, 7, 7), strict=True))
        lines.append(f"{name:<36}{row.total:>8}{counts}{sum(row.left_out.values()):>10}")
        lines += [f"    left out, {count}: {why}" for why, count in row.left_out.items()]
        for kind, reasons in row.reasons.items():
            lines += [f"    {kind}, {count}: {reason[:160]}" for reason, count in reasons.most_common()]
    total, mean = shares(rows)
    lines.append(f"{total:.1%} of all samples pass; {mean:.1%} of a function's samples, on average over functions")
    return "\n".join(lines)


def test_the_database_has_samples_of_each_function(rows):
    assert [name for name, row in rows.items() if not row.total] == []


@pytest.mark.parametrize("kind", ["wrong", "crash"])
def test_no_sample_is(rows, kind):
    assert {name: dict(row.reasons[kind]) for name, row in rows.items() if row.counts[kind]} == {}


def test_what_people_of_pytorch_write_passes(rows, capsys):
    with capsys.disabled():
        print("\n" + table(rows))
    assert min(shares(rows)) >= LEAST_SHARE, table(rows)
