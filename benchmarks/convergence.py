"""``python -m benchmarks.convergence``: do we and PyTorch learn the same from the same weights and batches?

Trains a net on the embedded digits and, given its folder, ResNet-20 for one epoch of CIFAR-10, twice: with MiniRes and
with PyTorch, from equal weights, on equal batches, with equal SGD. Prints both losses (the mean over the last tenth of
the steps) and their difference, which stays below one per cent while both compute the same function.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from typing import Any

import numba
import numpy as np
import torch

import minires
from benchmarks.results import write
from benchmarks.torch_nets import mirror
from minires import data, functional, models, optim

SETTINGS: dict[str, Any] = {"lr": 0.05, "momentum": 0.9, "weight_decay": 1e-4}


def main() -> None:
    """Parse, train twice, print, write ``results/convergence.jsonl``."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--root", help="folder that holds cifar-10-batches-bin; without it only the digits are trained")
    parser.add_argument("--epochs", type=int, default=3, help="for the digits")
    parser.add_argument("--threads", type=int, default=numba.config.NUMBA_DEFAULT_NUM_THREADS)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    work = [("digits", data.load("digits"), {"widths": (8, 16, 32), "in_channels": 1}, 100, options.epochs)]
    if options.root:
        work.append(("cifar10", data.load("cifar10", options.root), {}, 128, 1))
    rows = []
    for name, dataset, net_options, batch, epochs in work:
        net = models.create("resnet20", rng=np.random.default_rng(0), **net_options)
        twin = mirror(net)
        ours = train(net, batches(dataset.train, batch, epochs))
        theirs = train_torch(twin, batches(dataset.train, batch, epochs))
        tail = max(1, len(ours) // 10)
        ends = float(np.mean(ours[-tail:])), float(np.mean(theirs[-tail:]))
        difference = abs(ends[0] - ends[1]) / ends[1]
        print(
            f"{name}: {len(ours)} steps, loss minires {ends[0]:.4f}, torch {ends[1]:.4f}, difference {difference:.2%}"
        )
        rows.append({"case": name, "candidate": "minires", "loss": ends[0], "torch_loss": ends[1],
                     "difference": difference, "steps": len(ours)})  # fmt: skip
    print(write("convergence", rows, options.threads))


def batches(split: data.Split, batch: int, epochs: int) -> Iterable[tuple[Any, Any]]:
    """The same mini-batches each time it is called."""
    loader = data.Loader(split, batch, rng=np.random.default_rng(1), drop_last=True)
    for _ in range(epochs):
        yield from loader


def train(net: minires.nn.Module, batches: Iterable[tuple[Any, Any]]) -> list[float]:
    """The loss of each step with MiniRes."""
    optimizer = optim.SGD(net.parameters(), **SETTINGS)
    losses = []
    for images, labels in batches:
        optimizer.zero_grad()
        loss = functional.cross_entropy(net(minires.Tensor(images)), labels)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def train_torch(net: torch.nn.Module, batches: Iterable[tuple[Any, Any]]) -> list[float]:
    """The loss of each step with PyTorch."""
    optimizer = torch.optim.SGD(net.parameters(), **SETTINGS)
    losses = []
    for images, labels in batches:
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(net(torch.from_numpy(images)), torch.from_numpy(labels))
        loss.backward()
        optimizer.step()
        losses.append(float(loss.item()))
    return losses


if __name__ == "__main__":
    main()
