"""``python -m benchmarks.peers``: a convolution's forward and backward pass, ours and other engines', on the same work.

PyTorch (eager NCHW and channels-last, and compiled), DeZero, MyGrad, HIPS autograd and tinygrad, each where it is
installed; those that aren't are named, with the reason. The work: y = conv2d(x, weight), 3x3, 16 -> 16 channels at
32 x 32, and the gradients of sum(y * upstream) with respect to x and weight. Each engine's gradients are compared with
our reference in float64 before anything is timed. For whole training steps see ``benchmarks.training_step``.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

import numba
import numpy as np

import minires
from benchmarks.results import add_record_option, write
from benchmarks.timing import alternate, retain_pages
from minires import functional
from minires_kernels import Window, load
from minires_kernels.arrays import channels_last

Array = np.ndarray[Any, Any]
Step = Callable[[], tuple[Array, Array]]


def minires_step(x: Array, weight: Array, upstream: Array, threads: int) -> Step:
    """MiniRes, through its public API; x and upstream lie channels-last, as activations do within one of its nets."""
    x, upstream = channels_last(x), channels_last(upstream)

    def step() -> tuple[Array, Array]:
        images, kernel = minires.Tensor(x, requires_grad=True), minires.Parameter(weight)
        functional.conv2d(images, kernel, padding=1).backward(upstream)
        assert images.grad is not None
        assert kernel.grad is not None
        return images.grad, kernel.grad

    return step


def torch_step(x: Array, weight: Array, upstream: Array, threads: int, *, mode: str) -> Step:
    """PyTorch: ``mode`` is "NCHW", "channels-last" or "compile"."""
    import torch

    torch.set_num_threads(threads)
    layout = torch.contiguous_format if mode == "NCHW" else torch.channels_last
    images, kernel, grad = (torch.from_numpy(a).contiguous(memory_format=layout) for a in (x, weight, upstream))
    images.requires_grad_()
    kernel.requires_grad_()

    def convolve(images: Any, kernel: Any) -> Any:
        return torch.nn.functional.conv2d(images, kernel, padding=1)

    forward: Any = torch.compile(convolve) if mode == "compile" else convolve

    def step() -> tuple[Array, Array]:
        images.grad = kernel.grad = None
        forward(images, kernel).backward(grad)
        return images.grad.numpy(), kernel.grad.numpy()

    return step


def dezero_step(x: Array, weight: Array, upstream: Array, threads: int) -> Step:
    """DeZero (the engine of "Deep Learning from Scratch 3"). It needs ``numpy.int``, which NumPy 1.24 removed."""
    np.int = int  # type: ignore[attr-defined]
    import dezero

    def step() -> tuple[Array, Array]:
        images, kernel = dezero.Variable(x), dezero.Variable(weight)
        y = dezero.functions.conv2d(images, kernel, stride=1, pad=1)
        dezero.functions.sum(y * upstream).backward()
        return images.grad.data, kernel.grad.data

    return step


def mygrad_step(x: Array, weight: Array, upstream: Array, threads: int) -> Step:
    """MyGrad."""
    import mygrad
    from mygrad.nnet.layers import conv_nd

    def step() -> tuple[Array, Array]:
        images, kernel = mygrad.tensor(x), mygrad.tensor(weight)
        conv_nd(images, kernel, stride=1, padding=1).backward(upstream)
        return images.grad, kernel.grad

    return step


def autograd_step(x: Array, weight: Array, upstream: Array, threads: int) -> Step:
    """HIPS autograd; its convolution is a true one, so the kernel goes in flipped and its gradient comes out so."""
    import autograd.numpy as autograd_numpy
    from autograd import grad
    from autograd.scipy.signal import convolve

    def loss(images: Any, kernel: Any) -> Any:
        padded = autograd_numpy.pad(images, ((0, 0), (0, 0), (1, 1), (1, 1)), "constant")
        flipped = kernel[:, :, ::-1, ::-1]
        y = convolve(padded, flipped, axes=([2, 3], [2, 3]), dot_axes=([1], [1]), mode="valid")  # (N, O, OH, OW)
        return autograd_numpy.sum(y * upstream)

    gradients = grad(loss, argnum=(0, 1))
    return lambda: gradients(x, weight)


def tinygrad_step(x: Array, weight: Array, upstream: Array, threads: int) -> Step:
    """tinygrad on its CPU device, which needs clang."""
    from tinygrad import Tensor as TinyTensor

    images, kernel, grad = TinyTensor(x), TinyTensor(weight), TinyTensor(upstream)

    def step() -> tuple[Array, Array]:
        grad_images, grad_kernel = (images.conv2d(kernel, padding=1) * grad).sum().gradient(images, kernel)
        return grad_images.numpy(), grad_kernel.numpy()

    return step


PEERS: dict[str, Callable[..., Step]] = {
    "minires": minires_step,
    "torch eager NCHW": lambda *a: torch_step(*a, mode="NCHW"),
    "torch eager channels-last": lambda *a: torch_step(*a, mode="channels-last"),
    "torch.compile": lambda *a: torch_step(*a, mode="compile"),
    "DeZero": dezero_step,
    "MyGrad": mygrad_step,
    "HIPS autograd": autograd_step,
    "tinygrad": tinygrad_step,
}


ON_BLAS = ("DeZero", "MyGrad", "HIPS autograd")
"""Engines that compute with NumPy's BLAS, whose threads spin for some 25 ms after each product, on the cores that the
next candidate needs: they are timed by themselves, when the others are done, and compared by their medians."""


def prepare(batch: int, threads: int) -> tuple[dict[str, Step], dict[str, str]]:
    """(name -> step that was checked, name -> why it is missing)."""
    rng = np.random.default_rng(0)
    x, upstream = (rng.standard_normal((batch, 16, 32, 32), np.float32) for _ in range(2))
    weight = rng.standard_normal((16, 16, 3, 3), np.float32)
    reference, window = load("convolution", "reference"), Window.of(3, padding=1)
    wide = [array.astype(np.float64) for array in (x, weight, upstream)]
    expected = (
        reference.grad_input(wide[2], wide[1], x.shape, window, 1),
        reference.grad_weight(wide[2], wide[0], window, 1),
    )
    steps, missing = {}, {}
    for name, make in PEERS.items():
        try:
            step = make(x, weight, upstream, threads)
            found = step()
        except Exception as error:  # a peer may fail in its own way; its reason is printed, and ours is raised
            if name == "minires":
                raise
            missing[name] = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
            continue
        errors = [float(np.abs(a - b).max() / np.abs(b).max()) for a, b in zip(found, expected, strict=True)]
        if max(errors) < 1e-4:
            steps[name] = step
        else:
            missing[name] = f"its gradients are wrong by {max(errors):.0e}"
    return steps, missing


def main() -> None:
    """Parse, check, measure, print, write ``peers.jsonl``."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--threads", type=int, default=numba.config.NUMBA_NUM_THREADS)
    parser.add_argument("--rounds", type=int, default=25)
    parser.add_argument("--seconds", type=float, default=60.0)
    add_record_option(parser)
    options = parser.parse_args()
    retain_pages()
    numba.set_num_threads(options.threads)
    steps, missing = prepare(options.batch, options.threads)
    apart = {name: steps.pop(name) for name in ON_BLAS if name in steps}
    measured = alternate(steps, rounds=options.rounds, seconds=options.seconds)
    ours = measured.times["minires"]
    ratios = {name: ours.ratio(times) for name, times in measured.times.items()}
    for name, step in apart.items():
        times = alternate({name: step}, rounds=options.rounds, seconds=options.seconds / 6).times[name]
        measured.times[name], ratios[name] = times, times.median / ours.median
    rows = []
    for name, times in measured.times.items():
        ratio = ratios[name]
        print(f"{name:28} {times.median * 1e3:9.2f} ms ±{times.spread:4.0%}   minires is {ratio:.1f}x as fast")
        rows.append({"case": f"conv 16->16 @32 N={options.batch}", "candidate": name, **times.summary(),
                     "ours_is_faster_by": ratio, "windows": [measured.kept, measured.dropped]})  # fmt: skip
    for name, reason in missing.items():
        print(f"{name:28} not measured: {reason}")
        rows.append({"case": f"conv 16->16 @32 N={options.batch}", "candidate": name, "missing": reason})
    print(write("peers", rows, options.threads, record=options.record))


if __name__ == "__main__":
    main()
