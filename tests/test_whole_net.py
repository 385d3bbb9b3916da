"""One training step of ResNet-20, against a float64 witness of its own making and against PyTorch; and its precision.

Each operation is tested elsewhere; here is what only a whole net can show: that the parts fit, that nothing stale or
shared slips in between, that errors of rounding don't pile up, and that float32 stays float32 all the way.
"""

from __future__ import annotations

import importlib
import sys
from contextlib import contextmanager, nullcontext
from functools import cache

import numpy as np
import pytest

from minires import Function, Tensor, functional, models, nn, using
from minires.optim import SGD
from minires.tensor import apply
from minires_kernels import families, select
from tests.oracles_net import ResidualNet
from tests.questions import graph

TARGET = np.array([3, 1, 4, 1, 5, 9, 2, 6])
IMAGES = np.random.default_rng(1).standard_normal((8, 3, 32, 32)).astype(np.float32)

# Largest error of any gradient or statistic relative to its largest entry, in units of rounding (eps), that float32 and
# float64 may have, and what was measured. Winograd's convolutions, which the default may choose in float32, trade a
# digit for speed. A mistake is larger than any of these: an eps of 1.1e-5 in place of 1e-5 in a single batch norm shows
# as 10^9 units in float64.
LIMITS = {
    "reference": {np.float32: 100, np.float64: 150},  # 15 and 21
    "numba_cpu": {np.float32: 100},  # 34
    "default": {np.float32: 400, np.float64: 150},  # 81 and 35
    "torch": {np.float32: 100, np.float64: 300},  # 18 and 77
}


@pytest.fixture(autouse=True)
def _all_threads(all_threads):
    with all_threads():
        yield


@cache
def starting_state():
    """A ResNet-20 with random batch norms, none of whose ReLUs is near its kink on these images; float32 numbers."""
    net = models.create("resnet20", rng=np.random.default_rng(2))
    rng = np.random.default_rng(3)
    state = net.state_dict()
    for name, array in state.items():
        if array.ndim == 1 and name.endswith("weight"):
            array[...] = rng.uniform(0.5, 1.5, array.shape)
        if name.endswith(("running_mean", "fc.bias")):
            array[...] = rng.standard_normal(array.shape)
    moved = ResidualNet(state, 20, dodge_kinks=True)
    moved.step(IMAGES.astype(np.float64), TARGET)
    return {name: moved.state[name].astype(array.dtype) for name, array in state.items()}


@cache
def witness():
    """(loss, gradients, running statistics) of the step, in float64."""
    net = ResidualNet(starting_state(), 20)
    loss = net.step(IMAGES.astype(np.float64), TARGET)
    assert net.margin > 1e-4, "a hundred times what float32 rounding can move a number"
    return loss, net.gradients, net.statistics


def step(dtype, implementation="default"):
    """(loss, gradients, running statistics) of the step, by the library."""
    net = models.create("resnet20").astype(dtype)
    net.load_state_dict(starting_state())
    with nullcontext() if implementation == "default" else using(implementation):
        loss = functional.cross_entropy(net(Tensor(IMAGES.astype(dtype))), TARGET)
        loss.backward()
    gradients = {name: parameter.grad for name, parameter in net.named_parameters()}
    statistics = {name: array for name, array in net.named_buffers() if name.split(".")[-1].startswith("running")}
    return loss.item(), gradients, statistics


def errors(arrays, expected):
    """Name -> largest error, relative to the largest number expected."""
    assert arrays.keys() == expected.keys()
    return {name: np.abs(arrays[name] - expected[name]).max() / np.abs(expected[name]).max() for name in expected}


@pytest.mark.parametrize(
    ("dtype", "implementation"),
    [
        (np.float32, "default"),
        (np.float32, "numba_cpu"),
        (np.float32, "reference"),
        (np.float64, "default"),
        (np.float64, "reference"),
    ],
)
def test_every_gradient_and_running_statistic_of_a_step_is_the_witness_s(dtype, implementation):
    loss, gradients, statistics = step(dtype, implementation)
    expected_loss, expected_gradients, expected_statistics = witness()
    limit = LIMITS[implementation][dtype] * float(np.finfo(dtype).eps)
    assert loss == pytest.approx(expected_loss, rel=limit)
    assert len(gradients) == 59
    assert len(statistics) == 38
    for error in (errors(gradients, expected_gradients), errors(statistics, expected_statistics)):
        worst = max(error, key=error.get)
        assert error[worst] < limit, worst
    assert {array.dtype for array in (*gradients.values(), *statistics.values())} == {np.dtype(dtype)}


@pytest.mark.witness
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_every_gradient_and_running_statistic_of_a_step_is_pytorch_s(dtype):
    torch = pytest.importorskip("torch")
    torch_loss, torch_gradients, torch_statistics = torch_step(torch, dtype)
    loss, gradients, statistics = step(dtype)
    limit = (LIMITS["default"][dtype] + LIMITS["torch"][dtype]) * float(np.finfo(dtype).eps)
    assert loss == pytest.approx(torch_loss, rel=limit)
    assert max(errors(gradients, torch_gradients).values()) < limit
    assert max(errors(statistics, torch_statistics).values()) < limit


@pytest.mark.witness
def test_a_float32_step_of_direct_convolutions_is_about_as_exact_as_pytorch_s():
    torch = pytest.importorskip("torch")
    ours = max(errors(step(np.float32, "numba_cpu")[1], witness()[1]).values())
    theirs = max(errors(torch_step(torch, np.float32)[1], witness()[1]).values())
    assert ours < 4 * theirs


def torch_step(torch, dtype):
    """The step once more with PyTorch's functions, from the same named arrays."""
    ops = torch.nn.functional
    state = {name: torch.from_numpy(np.array(array)) for name, array in starting_state().items()}
    state = {name: tensor.to(torch.from_numpy(np.zeros(1, dtype)).dtype) for name, tensor in state.items()}
    statistics = {name: tensor for name, tensor in state.items() if "running" in name}
    parameters = {name: state[name].requires_grad_() for name in state if name.endswith(("weight", "bias"))}

    def norm(x, path):
        names = ("running_mean", "running_var", "weight", "bias")
        return ops.batch_norm(x, *(state[f"{path}.{name}"] for name in names), training=True)

    def block(x, path, stride):
        y = ops.conv2d(x, state[f"{path}.conv1.weight"], stride=stride, padding=1)
        y = ops.relu(norm(y, f"{path}.bn1"))
        y = norm(ops.conv2d(y, state[f"{path}.conv2.weight"], padding=1), f"{path}.bn2")
        return ops.relu(y + ops.pad(x[:, :, ::stride, ::stride], (0, 0, 0, 0, 0, y.shape[1] - x.shape[1])))

    x = torch.from_numpy(IMAGES.astype(dtype))
    x = ops.relu(norm(ops.conv2d(x, state["conv1.weight"], padding=1), "bn1"))
    for stage in (1, 2, 3):
        for position in range(3):
            x = block(x, f"layer{stage}.{position}", 2 if stage > 1 and position == 0 else 1)
    logits = ops.linear(x.mean((2, 3)), state["fc.weight"], state["fc.bias"])
    loss = ops.cross_entropy(logits, torch.from_numpy(TARGET))
    loss.backward()
    gradients = {name: tensor.grad.numpy() for name, tensor in parameters.items()}
    return loss.item(), gradients, {name: tensor.numpy() for name, tensor in statistics.items()}


# ---- float32 all the way -------------------------------------------------------------------------


class Watched(np.ndarray):
    """An array that notes the types of all arrays that are computed from it, temporary ones included."""

    seen: set = set()  # noqa: RUF012

    def __array_finalize__(self, parent):
        # NumPy's mean divides by its integer count in float64, in a buffer, before it rounds to the array's type
        if not sys._getframe(1).f_code.co_filename.endswith("_methods.py"):
            Watched.seen.add(self.dtype)


def watched(value):
    """``value`` with every array in it watched."""
    if isinstance(value, tuple):
        return tuple(map(watched, value))
    return value.view(Watched) if isinstance(value, np.ndarray) else value


def all_operations(base=Function):
    """Every class of Functions."""
    for each in base.__subclasses__():
        yield each
        yield from all_operations(each)


@contextmanager
def watching_every_frame():
    """The set of the dtypes of all arrays that any function of the library holds or returns when it returns."""
    seen = set()

    def note(value):
        if isinstance(value, np.ndarray):
            seen.add(value.dtype)
        elif isinstance(value, (tuple, list)):
            for item in value:
                note(item)

    def watch(frame, event, argument):
        if event == "return" and frame.f_globals.get("__name__", "").startswith(("minires", "tests.")):
            note([argument, *frame.f_locals.values()])

    previous = sys.getprofile()
    sys.setprofile(watch)
    try:
        yield seen
    finally:
        sys.setprofile(previous)


def small_net(name, shortcut):
    widths = (4, 6, 8, 10) if name.endswith("18") else (16, 32, 64)
    options = {} if shortcut is None else {"shortcut": shortcut}
    net = models.create(name, widths=widths, num_classes=5, rng=np.random.default_rng(0), **options)
    return nn.Sequential(net, nn.Dropout(0.2, rng=np.random.default_rng(1)))


def train(net, optimizer, images, steps=2):
    """Training steps with everything switched on; the loss of the last one, before its backward."""
    for _ in range(steps):
        optimizer.zero_grad()
        loss = functional.cross_entropy(net(Tensor(images)), [0, 4, 2, 3], label_smoothing=0.1)
        saved = [array for function in graph(loss) for array in function.saved_arrays().values()]
        outputs = [source.data for function in graph(loss) for source in function.inputs if source is not None]
        loss.backward()
        optimizer.step()
    return [*saved, *outputs, loss.data]


NETS = [("plain8", None), ("resnet8", "A"), ("resnet8", "B"), ("preact_resnet8", "A"), ("preact_resnet8", "C")]
NETS += [("resnet18", "B"), ("preact_resnet18", "B")]
IMAGES_8X8 = np.random.default_rng(4).standard_normal((4, 3, 8, 8)).astype(np.float32)
IMAGES_64X64 = np.random.default_rng(4).standard_normal((4, 3, 64, 64)).astype(np.float32)
FLOATS = {np.dtype(np.float16), np.dtype(np.float32), np.dtype(np.float64), np.dtype(np.longdouble)}


@pytest.mark.parametrize("implementation", ["default", "reference"])
@pytest.mark.parametrize(("name", "shortcut"), NETS[:5])
def test_no_array_of_a_float32_training_step_is_float64(name, shortcut, implementation):
    """Activations, saved arrays, gradients, statistics, velocities, and every local variable on the way."""
    net = small_net(name, shortcut)
    optimizer = SGD(net.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-4, nesterov=True)
    with nullcontext() if implementation == "default" else using(implementation), watching_every_frame() as seen:
        arrays = train(net, optimizer, IMAGES_8X8)
    arrays += [parameter.data for parameter in net.parameters()] + [parameter.grad for parameter in net.parameters()]
    arrays += [array for _, array in net.named_buffers()] + list(optimizer.state_dict()["velocities"].values())
    assert {array.dtype for array in arrays} & FLOATS == {np.dtype(np.float32)}
    assert seen & FLOATS == {np.dtype(np.float32)}


@pytest.mark.parametrize(("name", "shortcut"), NETS)
def test_no_temporary_array_of_a_float32_training_step_is_float64(name, shortcut, monkeypatch):
    """On the specification of every kernel, where each intermediate result is an array that can be watched."""
    watch_all_operations(monkeypatch)
    net = small_net(name, shortcut)
    optimizer = SGD(net.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-4, nesterov=True)
    with using("reference"):
        train(net, optimizer, IMAGES_64X64 if name.endswith("18") else IMAGES_8X8)
    assert Watched.seen & FLOATS == {np.dtype(np.float32)}


def watch_all_operations(monkeypatch):
    """Give watched arrays to every forward, backward and kernel from here on, and watch what kernels return."""

    def watching(method):
        return lambda self, *arrays: method(self, *watched(arrays))

    for operation in set(all_operations()):
        for name in ("forward", "backward"):
            if name in vars(operation):
                monkeypatch.setattr(operation, name, watching(vars(operation)[name]))

    def watching_select(*arguments, **options):
        kernel = select(*arguments, **options)
        return lambda *inputs: watched(kernel(*watched(inputs)))

    for family in families():
        monkeypatch.setattr(importlib.import_module(f"minires_kernels.{family}"), "select", watching_select)
    Watched.seen = set()


class Widens(Function):
    """An operation that computes in float64 and hides it, backward without even giving the array a name."""

    def forward(self, x):
        wide = x.astype(np.float64)
        return wide.astype(np.float32)

    def backward(self, grad_output):
        return ((grad_output * np.float64(2)).astype(np.float32),)


def widened():
    return apply(Widens(), Tensor(np.ones(2, np.float32), requires_grad=True))


def test_the_frames_show_an_operation_that_widens_in_secret():
    with watching_every_frame() as seen:
        widened()
    assert np.dtype(np.float64) in seen


def test_watched_arrays_show_an_operation_that_widens_in_secret(monkeypatch):
    watch_all_operations(monkeypatch)
    y = widened()
    Watched.seen = set()
    y.backward(np.ones(2, np.float32))
    assert np.dtype(np.float64) in Watched.seen
