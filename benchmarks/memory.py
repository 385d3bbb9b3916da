"""``python -m benchmarks.memory``: how much more memory a training step takes at its peak than what it must keep.

What must be kept between forward and backward is counted from the graph: every array that some Function saved, once.
The peak is the operating system's: the largest resident size of a process that takes two steps, minus its size just
before. Each figure comes from a process of its own, because a peak never falls. The single convolution is the one of
64 channels at 224 x 224 (forward and both gradients), against PyTorch's own peak for the same.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks.results import add_record_option, write

MEBI = 1 << 20


def main() -> None:
    """Run each measurement in a process of its own; print them, write ``memory.jsonl``."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("measurement", nargs="?", choices=MEASUREMENTS, help="one, in this very process")
    parser.add_argument("--threads", type=int, default=2)
    add_record_option(parser)
    options = parser.parse_args()
    if options.measurement:
        print(json.dumps(MEASUREMENTS[options.measurement]()))
        return
    rows = []
    for name in MEASUREMENTS:
        command = [sys.executable, "-m", "benchmarks.memory", name]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            print(
                f"{name:24} not measured: {done.stderr.strip().splitlines()[-1] if done.stderr else 'no reason given'}"
            )
            continue
        figures = json.loads(done.stdout.splitlines()[-1])
        over = f"{figures['peak'] / figures['needed'] - 1:+.0%} over what is needed" if figures["needed"] else ""
        print(f"{name:24} peak {figures['peak'] / MEBI:8.1f} MiB   needed {figures['needed'] / MEBI:8.1f} MiB   {over}")
        rows.append({"case": name, "candidate": name.partition("-")[0], **figures})
    print(write("memory", rows, options.threads, record=options.record))


def training_step() -> dict[str, int]:
    """Two steps of ResNet-20 at batch 128; needed is what the graph of one step saves, and the input."""
    import minires
    from benchmarks.training_step import our_step
    from minires import functional

    rng = np.random.default_rng(0)
    net = minires.models.create("resnet20", rng=rng)
    labels = rng.integers(0, 10, 128)
    small = rng.standard_normal((2, 3, 32, 32), np.float32)
    our_step(net, small, labels[:2])()  # compile, and load what is loaded on first use
    images = rng.standard_normal((128, 3, 32, 32), np.float32)
    before = _resident()
    loss = functional.cross_entropy(net(minires.Tensor(images)), labels)
    needed = _saved_bytes(loss)
    del loss
    step = our_step(net, images, labels)
    peak = _peak_of(lambda: (step(), step()), before)
    return {"peak": peak, "needed": needed}


def _saved_bytes(loss: Any) -> int:
    """The bytes of all distinct arrays that the graph below ``loss`` saved for backward."""
    owners, seen, stack = {}, set(), [loss.creator]
    while stack:
        function = stack.pop()
        if id(function) in seen:
            continue
        seen.add(id(function))
        for array in function.saved_arrays().values():
            owner = array
            while isinstance(getattr(owner, "base", None), np.ndarray):
                owner = owner.base
            owners[id(owner)] = owner.nbytes
        stack += [tensor.creator for tensor in function.inputs if tensor is not None and tensor.creator is not None]
    return sum(owners.values())


N, C, SIDE = 16, 64, 224


def minires_convolution() -> dict[str, int]:
    """Our convolution of 64 channels at 224 x 224: forward and both gradients; needed is their results."""
    from minires_kernels import Window, convolution

    rng, window = np.random.default_rng(0), Window.of(3, padding=1)
    weight = rng.standard_normal((C, C, 3, 3), np.float32)
    tiny = rng.standard_normal((1, C, 8, 8), np.float32)
    _convolve(convolution, tiny, tiny, weight, window)
    x, grad = (rng.standard_normal((N, SIDE, SIDE, C), np.float32).transpose(0, 3, 1, 2) for _ in range(2))
    before = _resident()
    peak = _peak_of(lambda: _convolve(convolution, x, grad, weight, window), before)
    return {"peak": peak, "needed": 2 * x.nbytes + weight.nbytes}


def _convolve(convolution: Any, x: Any, grad: Any, weight: Any, window: Any) -> tuple[Any, Any, Any]:
    return (
        convolution.forward(x, weight, window),
        convolution.grad_input(grad, weight, x.shape, window),
        convolution.grad_weight(grad, x, window),
    )


def torch_convolution() -> dict[str, int]:
    """PyTorch's, channels-last, for comparison."""
    import torch

    torch.set_num_threads(2)
    x, grad = (torch.randn(N, C, SIDE, SIDE).contiguous(memory_format=torch.channels_last) for _ in range(2))
    weight = torch.randn(C, C, 3, 3).contiguous(memory_format=torch.channels_last)

    def convolve(x: Any, grad: Any) -> tuple[Any, Any]:
        y = torch.nn.functional.conv2d(x, weight, padding=1)
        geometry = (1, 1), (1, 1), (1, 1), False, (0, 0), 1
        return y, torch.ops.aten.convolution_backward(grad, x, weight, None, *geometry, (True, True, False))

    convolve(x[:1, :, :8, :8], grad[:1, :, :8, :8])
    before = _resident()
    peak = _peak_of(lambda: convolve(x, grad), before)
    return {"peak": peak, "needed": 2 * x.numel() * 4 + weight.numel() * 4}


MEASUREMENTS: dict[str, Callable[[], dict[str, int]]] = {
    "minires-training_step": training_step,
    "minires-convolution": minires_convolution,
    "torch-convolution": torch_convolution,
}


def _resident() -> int:
    """The bytes that this process has in memory now."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize()


def _peak_of(call: Callable[[], object], before: int) -> int:
    """How far the resident size rises above ``before`` while ``call`` runs (its result is held until then)."""
    result = call()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    del result
    return peak - before


if __name__ == "__main__":
    main()
