"""``python -m benchmarks.training_step [NET]``: one whole training step, ours against PyTorch's, on the same work.

Forward pass, loss, backward pass and SGD with momentum and weight decay, through the public API of each; the same
weights, images and labels. PyTorch runs eager in NCHW, eager in channels-last, and compiled (channels-last). Before
any timing, both sides' gradients are compared with those of the same net in float64; afterwards ours is split into
forward, backward and update.
"""

from __future__ import annotations

import argparse
import importlib
import statistics
import time
from collections.abc import Callable
from typing import Any

import numba
import numpy as np

import minires
from benchmarks import pytorch
from benchmarks.results import add_record_option, write
from benchmarks.timing import Measurement, Times, alternate, retain_pages
from minires import functional
from minires.nn import Module
from minires_kernels import families

WORK = {"resnet20": (128, 32), "resnet56": (128, 32), "preact_resnet110": (128, 32), "resnet18": (8, 224)}
"""Net -> batch and image side."""
SETTINGS: dict[str, Any] = {"lr": 1e-6, "momentum": 0.9, "weight_decay": 1e-4}
"""So small a learning rate that every step does the work of the first. With a usual one the net knows its only batch by
heart after some fifty steps; then gradients are denormal numbers, which a processor handles ten times as slowly."""
OURS = "minires"


def main() -> None:
    """Parse, check, measure, print, write ``training_step_<net>.jsonl``."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("net", nargs="?", default="resnet20", choices=WORK)
    parser.add_argument("--batch", type=int)
    parser.add_argument("--threads", type=int, default=numba.config.NUMBA_NUM_THREADS)
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--seconds", type=float, default=120.0)
    parser.add_argument(
        "--no-compile", action="store_true", help="leave torch.compile out (it takes a minute to start)"
    )
    add_record_option(parser)
    options = parser.parse_args()
    retain_pages()
    numba.set_num_threads(options.threads)
    batch, side = options.batch or WORK[options.net][0], WORK[options.net][1]
    rng = np.random.default_rng(0)
    net = minires.models.create(options.net, rng=rng)
    images = rng.standard_normal((batch, 3, side, side), np.float32)
    labels = rng.integers(0, net.fc.out_features, batch)  # type: ignore[attr-defined]
    candidates = {OURS: our_step(net, images, labels)}
    candidates |= torch_steps(net, images, labels, options.threads, compiled=not options.no_compile)
    for line in check_gradients(net, images, labels):
        print(line)
    measured = alternate(candidates, rounds=options.rounds, seconds=options.seconds, warm_up=1.0, window=1.0)
    split = alternate({OURS: SplitStep(net, images, labels, parts := [])}, rounds=15, seconds=20)
    rows = report(options.net, batch, measured) + report_split(options.net, batch, parts, split)
    rows += report_overhead(options.net, batch, KernelClock(net, images, labels))
    print(write(f"training_step_{options.net}", rows, options.threads, record=options.record))


def our_step(net: Module, images: Any, labels: Any) -> Callable[[], float]:
    """One training step of ``net`` through the public API."""
    optimizer = minires.optim.SGD(net.parameters(), **SETTINGS)

    def step() -> float:
        optimizer.zero_grad()
        loss = functional.cross_entropy(net(minires.Tensor(images)), labels)
        loss.backward()
        optimizer.step()
        return loss.item()

    return step


class SplitStep:
    """A training step that notes the seconds of its forward pass, backward pass and update in ``parts``."""

    def __init__(self, net: Module, images: Any, labels: Any, parts: list[tuple[float, float, float]]) -> None:
        self.net, self.images, self.labels, self.parts = net, images, labels, parts
        self.optimizer = minires.optim.SGD(net.parameters(), **SETTINGS)

    def __call__(self) -> None:
        """One step."""
        self.optimizer.zero_grad()
        start = time.perf_counter()
        loss = functional.cross_entropy(self.net(minires.Tensor(self.images)), self.labels)
        forward = time.perf_counter()
        loss.backward()
        backward = time.perf_counter()
        self.optimizer.step()
        self.parts.append((forward - start, backward - forward, time.perf_counter() - backward))


class KernelClock:
    """Training steps in which every kernel call is timed, in place: :meth:`step` gives (whole, in kernels), in seconds.

    The clock sits where the families of kernels choose an implementation. What is left is all else that a step does:
    modules, checks, the graph, and the few operations that are plain NumPy.
    """

    def __init__(self, net: Module, images: Any, labels: Any) -> None:
        self._step = our_step(net, images, labels)
        self._inside = 0.0

    def _timed_select(self, select: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*arguments: Any, **options: Any) -> Callable[..., Any]:
            kernel = select(*arguments, **options)

            def call(*inputs: Any) -> Any:
                start = time.perf_counter()
                result = kernel(*inputs)
                self._inside += time.perf_counter() - start
                return result

            return call

        return timed

    def step(self) -> tuple[float, float]:
        """One step."""
        contracts: list[Any] = [importlib.import_module(f"minires_kernels.{family}") for family in families()]
        originals = [contract.select for contract in contracts]
        for contract, select in zip(contracts, originals, strict=True):
            contract.select = self._timed_select(select)
        try:
            self._inside, start = 0.0, time.perf_counter()
            self._step()
            return time.perf_counter() - start, self._inside
        finally:
            for contract, select in zip(contracts, originals, strict=True):
                contract.select = select


def torch_steps(
    net: Module, images: Any, labels: Any, threads: int, *, compiled: bool
) -> dict[str, Callable[[], float]]:
    """The same step in PyTorch, three ways; nothing where PyTorch isn't installed."""
    torch = pytorch.find(threads)
    if torch is None:
        return {}
    from benchmarks.torch_nets import mirror

    target = torch.from_numpy(labels)

    def prepare(channels_last: bool, compile_it: bool) -> Callable[[], float]:
        twin, x = mirror(net), torch.from_numpy(images)
        if channels_last:
            twin = twin.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
            x = x.contiguous(memory_format=torch.channels_last)
        optimizer = torch.optim.SGD(twin.parameters(), **SETTINGS)
        forward: Any = torch.compile(twin) if compile_it else twin

        def step() -> float:
            optimizer.zero_grad()
            loss = torch.nn.functional.cross_entropy(forward(x), target)
            loss.backward()
            optimizer.step()
            return float(loss.item())

        return step

    steps = {"torch eager NCHW": prepare(False, False), "torch eager channels-last": prepare(True, False)}
    return {**steps, "torch.compile": prepare(True, True)} if compiled else steps


def check_gradients(net: Module, images: Any, labels: Any, *, limit: int = 16) -> list[str]:
    """Error of all parameters' gradients (relative, 2-norm) against the same net in float64, ours and PyTorch's.

    On the first ``limit`` images. A ReLU whose input falls on the other side of 0 in float32 switches a path off, or
    none does: errors far above rounding (1e-7) are normal, the more so the deeper the net, and those of one batch say
    little (``benchmarks.gradients`` compares several). Raises RuntimeError when ours is over 5e-2: a wrong gradient is
    wrong by about 1.
    """
    images, labels = images[:limit], labels[:limit]
    before = net.state_dict()

    def ours(dtype: Any) -> np.ndarray[Any, Any]:
        net.zero_grad()
        functional.cross_entropy(net(minires.Tensor(images.astype(dtype))), labels).backward()
        return np.concatenate([parameter.grad.ravel() for parameter in net.parameters()])  # type: ignore[union-attr]

    single = ours(np.float32)
    net.astype(np.float64)
    net.load_state_dict(before)
    with minires.using("reference"):
        exact = ours(np.float64)
    net.astype(np.float32)
    net.load_state_dict(before)
    error = _distance(single, exact)
    lines = [f"gradients, relative error against float64: minires {error:.1e}"]
    torch = pytorch.find(numba.get_num_threads())
    if torch is not None:
        from benchmarks.torch_nets import mirror

        twin = mirror(net)
        torch.nn.functional.cross_entropy(twin(torch.from_numpy(images)), torch.from_numpy(labels)).backward()
        theirs = np.concatenate([parameter.grad.numpy().ravel() for parameter in twin.parameters()])
        lines.append(f"gradients, relative error against float64: torch   {_distance(theirs, exact):.1e}")
    if not error <= 5e-2:
        raise RuntimeError(f"training_step: our gradients are wrong by {error:.1e}; nothing timed")
    return lines


def _distance(found: np.ndarray[Any, Any], exact: np.ndarray[Any, Any]) -> float:
    return float(np.linalg.norm(found - exact) / np.linalg.norm(exact))


def report(net: str, batch: int, measured: Measurement) -> list[dict[str, Any]]:
    """Print the table of whole steps; return its result rows."""
    print(f"{net}, batch {batch}: {measured.kept} quiet windows, {measured.dropped} dropped"
          + (" (none was quiet: the least disturbed one is shown)" if measured.disturbed else ""))  # fmt: skip
    rows = []
    ours = measured.times[OURS]
    for name, times in measured.times.items():
        ratio = ours.ratio(times)
        print(f"  {name:28} {times.median * 1e3:9.1f} ms ±{times.spread:4.0%} {batch / times.median:9.0f} images/s"
              + ("" if name == OURS else f"   minires is {ratio:.2f}x as fast"))  # fmt: skip
        rows.append({"case": f"{net} batch {batch}", "candidate": name, **times.summary(), "ours_is_faster_by": ratio,
                     "windows": [measured.kept, measured.dropped]})  # fmt: skip
    return rows


def report_split(
    net: str, batch: int, parts: list[tuple[float, float, float]], measured: Measurement
) -> list[dict[str, Any]]:
    """Print where our step spends its time; return the result rows."""
    rows = []
    for name, seconds in zip(("forward", "backward", "update"), zip(*parts, strict=True), strict=True):
        times = Times(list(seconds))
        print(f"  {name:28} {times.median * 1e3:9.1f} ms")
        rows.append({"case": f"{net} batch {batch} {name}", "candidate": OURS, **times.summary(),
                     "windows": [measured.kept, measured.dropped]})  # fmt: skip
    return rows


def report_overhead(net: str, batch: int, clock: KernelClock, *, steps: int = 15) -> list[dict[str, Any]]:
    """Print what a step spends outside its kernels; return the result rows."""
    clock.step()
    pairs = [clock.step() for _ in range(steps)]
    whole, inside = Times([pair[0] for pair in pairs]), Times([pair[1] for pair in pairs])
    share = statistics.median((total - kernels) / total for total, kernels in pairs)
    inner, outer = inside.median * 1e3, whole.median * 1e3
    print(f"  {'inside kernels':28} {inner:9.1f} ms of {outer:.1f} ms; {share:.1%} outside")
    case = f"{net} batch {batch}"
    return [{"case": f"{case} inside kernels", "candidate": OURS, **inside.summary(), "overhead": share}]


if __name__ == "__main__":
    main()
