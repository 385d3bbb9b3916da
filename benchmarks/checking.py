"""``python -m benchmarks.checking [cases|peers|times|suite]``: what the gradient checker claims, run.

``cases``: 1,000 random right operations in float64 and 1,000 in float32; the claim is no false failure. ``peers``: the
same planted mistakes, in the hands of the checkers of other libraries, as far as they are installed. ``times``: a 3x3
convolution, a ResNet-20, and ``blame`` on a 110-layer net in units of its training step. ``suite``, only when it is
asked for: the planted mistakes in the hands of this repository's own tests; it runs all of them, on pytest-xdist.

``peers`` and ``suite`` write ``checking_*.jsonl``.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

import minires
from benchmarks.report import checking_table
from benchmarks.results import add_record_option, write
from minires import Tensor, functional, models
from minires.checking import blame, check_float32
from minires.checking.cases import Case
from minires.checking.mutation import CHECKERS, Score, score
from minires.checking.suite import score_suite
from minires_kernels.environment import cores

CASES = 1000


def random_case(seed: int) -> tuple[str, Callable[..., Tensor], list[np.ndarray]]:
    """A right operation of a random kind, shape and scale.

    Softmax gets numbers around 1: where it is saturated its float32 gradient p (g - sum(p g)) cancels to nothing, which
    is no mistake of the backward pass and no rounding of the inputs either.
    """
    rng = np.random.default_rng((seed, 7))

    def array(*shape: int) -> np.ndarray:
        return rng.standard_normal(shape) * 10.0 ** rng.uniform(-2, 2)

    N, C, H, W, O = (int(rng.integers(low, high)) for low, high in ((2, 4), (1, 4), (3, 7), (3, 7), (1, 4)))
    stride, padding = int(rng.integers(1, 3)), int(rng.integers(0, 2))
    target = rng.integers(0, 5, N)
    kinds: dict[str, Callable[[], tuple[Callable[..., Tensor], list[np.ndarray]]]] = {
        "conv2d": lambda: (
            lambda x, w, b: functional.conv2d(x, w, b, stride=stride, padding=padding),
            [array(N, C, H, W), array(O, C, 3, 3), array(O)],
        ),
        "batch_norm": lambda: (
            lambda x, w, b: functional.batch_norm(x, None, None, w, b, training=True),
            [array(N, C, H, W), array(C), array(C)],
        ),
        "batch_norm_relu": lambda: (
            lambda x, w, b, y: functional.batch_norm_relu(x, None, None, w, b, y, training=True),
            [array(N, C, H, W), array(C), array(C), array(N, C, H, W)],
        ),
        "relu": lambda: (functional.relu, [array(N, C, H)]),
        "max_pool2d": lambda: (
            lambda x: functional.max_pool2d(x, 3, stride=stride, padding=padding),
            [array(N, C, H, W)],
        ),
        "avg_pool2d": lambda: (
            lambda x: functional.avg_pool2d(x, 2, stride=stride, padding=padding),
            [array(N, C, H, W)],
        ),
        "linear": lambda: (functional.linear, [array(N, C), array(O, C), array(O)]),
        "cross_entropy": lambda: (lambda z: functional.cross_entropy(z, target), [rng.standard_normal((N, 5))]),
        "softmax": lambda: (lambda x: functional.softmax(x, 1), [rng.standard_normal((N, H))]),
        "arithmetic": lambda: (lambda x, y: x * y + x / (abs(y) + 1.0), [array(N, H), array(H)]),
        "elementary": lambda: (lambda x: (abs(x) + 0.1).log() + functional.tanh(x), [array(N, H)]),
        "matmul": lambda: (lambda x, y: x @ y, [array(N, H), array(H, W)]),
        "shortcut": lambda: (lambda x: functional.subsample_and_pad(x, C + 2, 2), [array(N, C, H, W)]),
    }
    name = list(kinds)[int(rng.integers(len(kinds)))]
    return (name, *kinds[name]())


def cases(count: int = CASES) -> int:
    """Count the false failures in float64 and float32; returns how many there were."""
    failures = 0
    for precision in ("float64", "float32"):
        wrong, worst = [], 0.0
        for seed in range(count):
            name, fn, arrays = random_case(seed)
            if precision == "float64":
                report: Any = minires.gradcheck(fn, *arrays, mode="fast", seed=seed)
            else:
                report = check_float32(fn, *arrays, seed=seed)
                worst = max(worst, *(deviation.units for deviation in report.deviations))
            if not report:
                wrong.append((seed, name))
                print(report)
        failures += len(wrong)
        units = f"; at most {worst:.1f} units of rounding" if worst else ""
        print(f"{precision}: {len(wrong)} false failures in {count} right cases, seeds 0..{count - 1}{units} {wrong}")
    return failures


# ---------------------------------------------------------------- peers, each asked in its own way


def _vjp(case: Case, arrays: list[np.ndarray], upstream: np.ndarray) -> list[np.ndarray]:
    tensors = [Tensor(np.array(array), requires_grad=True) for array in arrays]
    case.fn(*tensors).backward(np.array(upstream))
    return [np.zeros(t.shape) if t.grad is None else t.grad for t in tensors]


def _forward(case: Case, arrays: list[np.ndarray]) -> np.ndarray:
    return case.fn(*(Tensor(np.array(array)) for array in arrays)).data


def torch_gradcheck(case: Case) -> bool:
    """``torch.autograd.gradcheck`` with its defaults."""
    import torch

    class Ours(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, *tensors: Any) -> Any:
            ctx.save_for_backward(*tensors)
            return torch.from_numpy(np.array(_forward(case, [t.detach().numpy() for t in tensors])))

        @staticmethod
        def backward(ctx: Any, grad: Any) -> Any:
            arrays = [t.detach().numpy() for t in ctx.saved_tensors]
            return tuple(torch.from_numpy(np.array(g)) for g in _vjp(case, arrays, grad.numpy()))

    inputs = tuple(torch.from_numpy(array.copy()).requires_grad_() for array in case.arrays)
    return bool(torch.autograd.gradcheck(Ours.apply, inputs, raise_exception=False))


def autograd_check_grads(case: Case) -> bool:
    """``autograd.test_util.check_grads`` of HIPS autograd, first order, reverse mode."""
    from autograd.extend import defvjp, primitive
    from autograd.test_util import check_grads

    function = primitive(lambda *arrays: _forward(case, list(arrays)))
    makers = [
        lambda answer, *arrays, slot=slot: lambda grad: _vjp(case, list(arrays), grad)[slot]
        for slot in range(len(case.arrays))
    ]
    defvjp(function, *makers)
    try:
        for argument in range(len(case.arrays)):  # it checks one argument at a time, by default the first
            check_grads(function, argument, modes=["rev"], order=1)(*(array.copy() for array in case.arrays))
    except AssertionError:
        return False
    return True


def dezero_gradient_check(case: Case) -> bool:
    """``dezero.utils.gradient_check`` with its defaults."""
    import dezero
    from dezero.utils import gradient_check

    class Ours(dezero.Function):
        def forward(self, *arrays: Any) -> Any:
            return _forward(case, list(arrays))

        def backward(self, grad: Any) -> Any:
            grads = _vjp(case, [v.data for v in self.inputs], grad.data)
            outputs = tuple(dezero.as_variable(g) for g in grads)
            return outputs if len(outputs) > 1 else outputs[0]

    first, *others = (array.copy() for array in case.arrays)
    with contextlib.redirect_stdout(io.StringIO()):  # it prints both gradients, and no cause
        return bool(gradient_check(lambda x, *rest: Ours()(x, *rest), first, *others))


PEERS: dict[str, tuple[str, Callable[[Case], bool]]] = {
    "torch.autograd.gradcheck": ("torch", torch_gradcheck),
    "HIPS autograd check_grads": ("autograd", autograd_check_grads),
    "dezero gradient_check": ("dezero", dezero_gradient_check),
}


def peers(record: bool) -> int:
    """Print and write who notices how many of the planted mistakes."""
    checkers = dict(CHECKERS)
    rows: list[dict[str, Any]] = []
    for name, (package, checker) in PEERS.items():
        if package == "dezero" and not hasattr(np, "int"):
            np.int = int  # type: ignore[attr-defined]  # NumPy removed it; DeZero's last release still needs it
        try:
            __import__(package)
        except ImportError:
            rows.append({"candidate": name, "missing": f"{package} is not installed here"})
        else:
            checkers[name] = checker
    for name, checker in checkers.items():
        try:
            rows.append(_row(name, score(name, checker)))
        except Exception as error:
            rows.append({"candidate": name, "missing": f"has no score: {error}"})
    print("\n".join(checking_table(rows)))
    print(write("checking_peers", rows, cores(), record=record))
    return 0


def _row(name: str, result: Score) -> dict[str, Any]:
    return {"candidate": name, "killed": len(result.killed), "total": result.total, "survived": list(result.survived)}


SUITE = ("tests", "--ignore=tests/checking", "-m", "not witness and not gpu", "-n", str(cores()))
"""All tests but those of the checker: they are made of the mistakes, and would prove nothing but themselves."""


def suite(record: bool) -> int:
    """Print and write which planted mistakes our own tests notice; returns how many they don't."""
    result = score_suite(SUITE)
    print(result)
    print(write("checking_suite", [_row("MiniRes's own tests", result)], cores(), record=record))
    return len(result.survived)


def times(_: bool) -> int:
    """Print the times, best of several."""

    def best(run: Callable[[], Any], repeats: int) -> float:
        run()
        spans = []
        for _ in range(repeats):
            start = time.perf_counter()
            run()
            spans.append(time.perf_counter() - start)
        return min(spans)

    rng = np.random.default_rng(0)
    x, weight, bias = (rng.standard_normal(shape) for shape in ((2, 3, 8, 8), (4, 3, 3, 3), (4,)))
    conv = best(lambda: minires.gradcheck(lambda *t: functional.conv2d(*t, padding=1), x, weight, bias), 5)
    print(f"3x3 convolution, all 496 elements: {conv:.3f} s (goal 0.2 s)")
    net, images = models.create("resnet20"), rng.standard_normal((2, 3, 32, 32))
    print(f"ResNet-20, 2 images of 32x32: {best(lambda: minires.gradcheck(net, images), 1):.1f} s (goal 20 s)")
    deep = models.create("resnet110")
    batch = Tensor(rng.standard_normal((16, 3, 32, 32)).astype(np.float32))
    target = rng.integers(0, 10, 16)

    def step() -> None:
        deep.zero_grad()
        functional.cross_entropy(deep(batch), target).backward()

    one_step = best(step, 3)
    loss = functional.cross_entropy(deep(batch), target)
    blamed = best(lambda: blame(loss, deep), 3)
    print(f"blame, ResNet-110: {blamed:.2f} s = {blamed / one_step:.1f} steps of {one_step:.2f} s (goal 5)")
    return 0


COMMANDS: dict[str, Callable[[bool], int]] = {"cases": cases, "peers": peers, "times": times, "suite": suite}


def main() -> None:
    """Parse, run, exit with what failed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("commands", nargs="*", metavar="COMMAND",
                        help=f"any of {', '.join(COMMANDS)}; default: all but suite")  # fmt: skip
    add_record_option(parser)
    options = parser.parse_args()
    for name in options.commands:
        if name not in COMMANDS:
            parser.error(f"there is no {name!r}; there are: {', '.join(COMMANDS)}")
    sys.exit(max(COMMANDS[name](options.record) for name in options.commands or ["cases", "peers", "times"]))


if __name__ == "__main__":
    main()
