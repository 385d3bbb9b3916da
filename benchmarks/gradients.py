"""``python -m benchmarks.gradients [NET ...]``: are a whole net's float32 gradients as good as PyTorch's?

All parameters' gradients of one step, ours and PyTorch's (NCHW and channels-last), against the same net in PyTorch with
float64: relative error in the 2-norm, for several random nets and batches. One of them tells nothing. Where a ReLU's
input lies within rounding of 0, float32 may switch a path on that is off, and the error jumps from 1e-6 to 1e-3; how
often that happens is what an implementation's rounding decides. So the figures to compare are the medians and means.
"""

from __future__ import annotations

import argparse
import statistics
from typing import Any

import numba
import numpy as np

import minires
from benchmarks import pytorch
from benchmarks.results import add_record_option, write
from minires import functional, models
from minires.nn import Module

WORK = {"resnet20": 32, "resnet56": 16, "preact_resnet110": 8}
"""Net -> images of 32 x 32."""

Array = np.ndarray[Any, Any]


def main() -> None:
    """Parse, compare, print, write ``gradients.jsonl``."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("nets", nargs="*", metavar="NET", help=f"any of {', '.join(WORK)}; default: all")
    parser.add_argument("--seeds", type=int, default=24)
    parser.add_argument("--threads", type=int, default=numba.config.NUMBA_NUM_THREADS)
    add_record_option(parser)
    options = parser.parse_args()
    if options.record and options.nets:
        parser.error("--record replaces the results of all nets: name none")
    for net in options.nets:
        if net not in WORK:
            parser.error(f"no gradients of {net!r} are compared here; there are: {', '.join(WORK)}")
    pytorch.require("gradients", options.threads)
    numba.set_num_threads(options.threads)
    rows = []
    for name in options.nets or WORK:
        errors: dict[str, list[float]] = {}
        for seed in range(options.seeds):
            for candidate, error in compare(name, WORK[name], seed).items():
                errors.setdefault(candidate, []).append(error)
        for candidate, values in errors.items():
            median, mean = statistics.median(values), statistics.fmean(values)
            print(f"{name:18} {candidate:20} median {median:.1e}  mean {mean:.1e}  of {options.seeds} seeds")
            rows.append({"case": name, "candidate": candidate, "median": median, "mean": mean, "errors": values})
    print(write("gradients", rows, options.threads, record=options.record))


def compare(name: str, batch: int, seed: int) -> dict[str, float]:
    """The error of each candidate's gradients for one random net, one random batch."""
    rng = np.random.default_rng(seed)
    net = models.create(name, rng=rng)
    images, labels = rng.standard_normal((batch, 3, 32, 32), np.float32), rng.integers(0, 10, batch)
    exact = torch_gradients(net, images, labels, dtype="float64")
    found = {
        "minires": our_gradients(net, images, labels),
        "torch NCHW": torch_gradients(net, images, labels),
        "torch channels-last": torch_gradients(net, images, labels, layout="channels_last"),
    }
    return {
        candidate: float(np.linalg.norm(gradient - exact) / np.linalg.norm(exact))
        for candidate, gradient in found.items()
    }


def our_gradients(net: Module, images: Array, labels: Array) -> Array:
    """Every parameter's gradient, in one line."""
    net.zero_grad()
    functional.cross_entropy(net(minires.Tensor(images)), labels).backward()
    return np.concatenate([parameter.grad.ravel() for parameter in net.parameters()])  # type: ignore[union-attr]


def torch_gradients(
    net: Module, images: Array, labels: Array, *, dtype: str = "float32", layout: str = "contiguous_format"
) -> Array:
    """The same from PyTorch, for a twin of ``net`` in ``dtype`` and memory ``layout``."""
    import torch

    from benchmarks.torch_nets import mirror

    kind: dict[str, Any] = {"dtype": getattr(torch, dtype), "memory_format": getattr(torch, layout)}
    twin, x = mirror(net).to(**kind), torch.from_numpy(images).to(**kind)
    torch.nn.functional.cross_entropy(twin(x), torch.from_numpy(labels)).backward()
    return np.concatenate([parameter.grad.numpy().ravel() for parameter in twin.parameters()])


if __name__ == "__main__":
    main()
