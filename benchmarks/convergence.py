"""``python -m benchmarks.convergence``: do we and PyTorch learn the same from the same weights and batches?

Trains ResNet-20 on the embedded digits, from five seeds, and, given its folder, for one epoch of CIFAR-10: with MiniRes
and with PyTorch in both its layouts, from equal weights, on equal batches, with equal SGD.

What to compare? Two float32 runs part exponentially: a rounding error of 1e-7 in the first step has grown to the size
of the noise between batches a few dozen steps later, in PyTorch's two layouts as well as between PyTorch and us. So
the loss of a single late step says nothing. Three figures do. The *first steps*, before the paths part, hold the two
to the same function. The *training loss*, the mean over all steps, is what "the loss of an epoch" means, and the one
that "within one per cent" is asked of; noise of single steps averages out of it. The *test loss* at the end judges
where the paths lead; it is a single point of a noisy path. PyTorch's second layout is the yardstick of all three: what
rounding alone does.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable
from typing import Any

import numba
import numpy as np

import minires
from benchmarks import pytorch
from benchmarks.results import add_record_option, write
from minires import data, functional, models, optim

SETTINGS: dict[str, Any] = {"lr": 0.05, "momentum": 0.9, "weight_decay": 1e-4}
FIRST = 5
"""Steps that count as the first."""
YARDSTICK = "torch NCHW"


def main() -> None:
    """Parse, train, print, write ``convergence.jsonl``."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--root", help="folder that holds cifar-10-batches-bin; without it only the digits are trained")
    parser.add_argument("--epochs", type=int, default=3, help="for the digits")
    parser.add_argument("--threads", type=int, default=numba.config.NUMBA_NUM_THREADS)
    add_record_option(parser)
    options = parser.parse_args()
    if options.record and not options.root:
        parser.error("--record replaces the results of both data sets: give --root too")
    numba.set_num_threads(options.threads)
    pytorch.require("convergence", options.threads)
    digits = {"widths": (8, 16, 32), "in_channels": 1}
    rows = measure("digits", data.load("digits"), digits, 100, options.epochs, seeds=5)
    if options.root:
        rows += measure("cifar10", data.load("cifar10", options.root), {}, 128, 1, seeds=1)
    print(write("convergence", rows, options.threads, record=options.record))


def measure(
    name: str, dataset: data.Dataset, net_options: dict[str, Any], batch: int, epochs: int, seeds: int
) -> list[dict[str, Any]]:
    """Train from each seed with each engine, print the losses, means over the seeds; return the result rows."""
    runs: dict[str, list[tuple[list[float], float]]] = {candidate: [] for candidate in CANDIDATES}
    for seed in range(seeds):
        for candidate, run in CANDIDATES.items():
            net = models.create("resnet20", rng=np.random.default_rng(seed), **net_options)
            runs[candidate].append(run(net, batches(dataset.train, batch, epochs, seed), dataset.test))
    curves = {candidate: np.mean([losses for losses, _ in run], 0) for candidate, run in runs.items()}
    tests = {candidate: float(np.mean([test_loss for _, test_loss in run])) for candidate, run in runs.items()}
    case = f"{name}, ResNet-20, epochs {epochs}, steps {len(curves[YARDSTICK])}, seeds {seeds}"
    print(case)
    rows = []
    for candidate, curve in curves.items():
        row = {
            "training_loss": float(curve.mean()),
            "test_loss": tests[candidate],
            "first_steps_differ": max(map(relative, curve[:FIRST], curves[YARDSTICK][:FIRST])),
            "training_loss_differs": relative(curve.mean(), curves[YARDSTICK].mean()),
            "test_loss_differs": relative(tests[candidate], tests[YARDSTICK]),
        }
        print(
            f"  {candidate:20} training loss {row['training_loss']:.4f}, test loss {row['test_loss']:.4f}; from "
            f"{YARDSTICK}: first {FIRST} steps {row['first_steps_differ']:.0e}, training loss "
            f"{row['training_loss_differs']:.2%}, test loss {row['test_loss_differs']:.2%}",
            flush=True,
        )
        rows.append({"case": case, "candidate": candidate, **row, "losses": [round(loss, 6) for loss in curve]})
    return rows


def relative(value: Any, expected: Any) -> float:
    """|value - expected| / |expected|."""
    return float(abs(value - expected) / abs(expected))


def batches(split: data.Split, batch: int, epochs: int, seed: int) -> Iterable[tuple[Any, Any]]:
    """The same mini-batches each time it is called."""
    loader = data.Loader(split, batch, rng=np.random.default_rng(seed), drop_last=True)
    for _ in range(epochs):
        yield from loader


def pieces(split: data.Split) -> Iterable[tuple[Any, Any]]:
    """All of ``split`` in order."""
    return ((split.images[i : i + 500], split.labels[i : i + 500]) for i in range(0, len(split), 500))


def train(net: minires.nn.Module, batches: Iterable[tuple[Any, Any]], test: data.Split) -> tuple[list[float], float]:
    """(the loss of each step, the loss on ``test`` at the end) with MiniRes."""
    optimizer = optim.SGD(net.parameters(), **SETTINGS)
    losses = []
    for images, labels in batches:
        optimizer.zero_grad()
        loss = functional.cross_entropy(net(minires.Tensor(images)), labels)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    net.eval()
    with minires.no_grad():
        total = sum(
            functional.cross_entropy(net(minires.Tensor(images)), labels, reduction="sum").item()
            for images, labels in pieces(test)
        )
    return losses, total / len(test)


def train_torch(
    net: minires.nn.Module, batches: Iterable[tuple[Any, Any]], test: data.Split, *, layout: str
) -> tuple[list[float], float]:
    """The same with PyTorch, its images in ``layout``."""
    import torch

    from benchmarks.torch_nets import mirror

    memory_format = getattr(torch, layout)
    twin = mirror(net).to(memory_format=memory_format)
    optimizer = torch.optim.SGD(twin.parameters(), **SETTINGS)
    cross_entropy = torch.nn.functional.cross_entropy
    losses = []
    for images, labels in batches:
        optimizer.zero_grad()
        x = torch.from_numpy(images).contiguous(memory_format=memory_format)
        loss = cross_entropy(twin(x), torch.from_numpy(labels))
        loss.backward()
        optimizer.step()
        losses.append(float(loss.item()))
    twin.eval()
    with torch.no_grad():
        total = sum(
            float(cross_entropy(twin(torch.from_numpy(images)), torch.from_numpy(labels), reduction="sum").item())
            for images, labels in pieces(test)
        )
    return losses, total / len(test)


CANDIDATES: dict[str, Callable[..., tuple[list[float], float]]] = {
    "minires": train,
    YARDSTICK: lambda *work: train_torch(*work, layout="contiguous_format"),
    "torch channels-last": lambda *work: train_torch(*work, layout="channels_last"),
}


if __name__ == "__main__":
    main()
