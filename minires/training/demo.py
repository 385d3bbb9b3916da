"""The demonstration: degradation and its cure, on real data, in a few minutes.

He et al. 2015 open with a picture: a plain net of 56 layers has a *higher training error* than one of 20, so depth
itself is in the way, not overfitting; and with residual blocks it isn't (figures 1 and 4). Here the same in small: the
digits of :mod:`minires.data.digits` (8x8), nets of the paper's CIFAR family with half of its widths, 20 epochs.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from minires import functional, models
from minires.checking import gradcheck
from minires.data import Dataset, Loader, load_digits
from minires.inspection import ledger, record
from minires.inspection.text import table
from minires.nn import Module
from minires.optim import SGD, MultiStepLR
from minires.tensor import Tensor
from minires.training.plots import plot_training_errors
from minires.training.progress import progress
from minires.training.trainer import Epoch, Trainer
from minires.training.writing import run_folder, write_csv, write_file

NETS = ("plain20", "plain56", "resnet56", "preact_resnet56")
KINDS = {"plain": "plain", "resnet": "residual (2015)", "preact_resnet": "pre-activation (2016)"}
WIDTHS = (8, 16, 32)
BATCH = 100
EPOCHS = 20
SEED = 0
EXPECTED = {"plain56": (30.0, 100.0), "resnet56": (0.0, 2.0), "preact_resnet56": (0.0, 2.0)}
"""Between which percentages a net's training error must end after ``EPOCHS`` epochs."""


@dataclass(frozen=True)
class Result:
    """One net's line of the table. Errors are percentages; the training error is that of the last epoch's batches.

    ``first_gradient`` and ``last_gradient``: the gradient's norm in the first and the last block before training.
    """

    net: str
    depth: int
    kind: str
    parameters: int
    train_error: float
    test_error: float
    first_gradient: float
    last_gradient: float
    seconds: float


def run_demo(folder: str | Path | None = None, *, epochs: int = EPOCHS, nets: Sequence[str] = NETS) -> list[Result]:
    """Check gradients, train ``nets``, print the table; write everything into ``folder``.

    ``training-error.png`` (the curves), ``table.txt``, ``log.csv`` (each epoch of each net, added as the nets are
    trained) and ``skip-gradients.txt`` (the gradient at each skip connection of the residual nets). Everything random
    comes from one fixed seed. ``folder`` must be new or empty; None: the first of ``runs/demo-1``, ``-2`` ... that is
    free. Raises ValueError for a folder that holds something.
    """
    with run_folder(folder, "runs/demo") as own_folder:
        return _run_demo(own_folder, epochs, nets)


def _run_demo(folder: Path, epochs: int, nets: Sequence[str]) -> list[Result]:
    print(f"The results go to {folder}.")
    print("Gradients of one block of each kind, against finite differences in float64:")
    for line in check_blocks():
        print(f"  {line}")
    data = load_digits()
    results, curves, skips = [], {}, []
    for name in nets:
        net, result, curves[name] = train_one(name, data, epochs)
        results.append(result)
        write_log(folder / "log.csv", curves)
        if "resnet" in name:
            title = f"{name} after training, on the first {BATCH} training images"
            skips.append(f"{title}\n\n{skip_gradients(net, data)}\n")
    text = f"{result_table(results)}\n\n{conclusion(results)}".rstrip() + "\n"
    write_file(folder / "table.txt", text.encode())
    write_file(folder / "skip-gradients.txt", "\n".join(skips).encode())
    plot_training_errors(curves, folder / "training-error.png", title="digits 8x8: plain and residual nets")
    print(f"\n{text}\nwritten to {folder}: training-error.png, table.txt, log.csv, skip-gradients.txt")
    return results


def check_blocks() -> list[str]:
    """Gradient-check a plain, a residual and a pre-activation block; a line for each. Raises when one is wrong."""
    lines = []
    for kind, title in KINDS.items():
        rng = np.random.default_rng(SEED)
        block = models.create(f"{kind}8", widths=(3, 4, 4), rng=rng).layer2[0]  # type: ignore[attr-defined]
        report = gradcheck(block, rng.standard_normal((2, 3, 4, 4)))
        if not report:
            raise RuntimeError(f"demo: the {title} block's gradient is wrong\n{report}")
        lines.append(f"{title + ' block':30} right")
    return lines


def train_one(name: str, data: Dataset, epochs: int) -> tuple[Module, Result, list[Epoch]]:
    """Train the net ``name`` from the fixed seed by the recipe of the 2015 paper's section 4.2, shortened."""
    rng = np.random.default_rng(SEED)
    net = models.create(name, in_channels=1, widths=WIDTHS, rng=rng)
    first, last = block_gradients(net, data)
    loader = Loader(data.train, BATCH, rng=rng)
    optimizer = SGD(net.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-4)
    schedule = MultiStepLR(optimizer, [max(1, epochs * 6 // 10) * len(loader)])
    start = time.perf_counter()
    with progress(name, epochs) as shown:
        history = Trainer(net, optimizer, schedule=schedule, progress=shown).fit(loader, epochs, test=data.test)
    kind = name.rstrip("0123456789")
    depth = int(name.removeprefix(kind))
    result = Result(
        net=name,
        depth=depth,
        kind=KINDS[kind],
        parameters=sum(parameter.size for parameter in net.parameters()),
        train_error=history[-1].train_error,
        test_error=history[-1].test_error,
        first_gradient=first,
        last_gradient=last,
        seconds=time.perf_counter() - start,
    )
    return net, result, history


def block_gradients(net: Module, data: Dataset) -> tuple[float, float]:
    """The norms of the loss's gradient with respect to the parameters of the first and of the last block."""
    state = net.state_dict()
    _loss(net, data).backward()
    first, last = net.layer1[0], net.layer3[-1]  # type: ignore[attr-defined]
    norms = [float(np.sqrt(sum((p.grad**2).sum() for p in block.parameters()))) for block in (first, last)]
    net.zero_grad()
    net.load_state_dict(state)  # the running statistics have moved
    return norms[0], norms[1]


def skip_gradients(net: Module, data: Dataset) -> str:
    """The ledger of ``net``: at each skip connection, what comes back on the shortcut and through the branch."""
    with record() as tape:
        _loss(net, data).backward()
    return str(ledger(tape))


def _loss(net: Module, data: Dataset) -> Tensor:
    return functional.cross_entropy(net(Tensor(data.train.images[:BATCH])), data.train.labels[:BATCH])


def result_table(results: Sequence[Result]) -> str:
    """The results as text; gradient norms are those before the first step."""
    headers = ("depth", "kind", "parameters", "train error", "test error",
               "‖gradient‖, first block", "last block", "seconds")  # fmt: skip
    rows = [
        (str(r.depth), r.kind, f"{r.parameters:,}", f"{r.train_error:.2f} %", f"{r.test_error:.2f} %",
         f"{r.first_gradient:.3g}", f"{r.last_gradient:.3g}", f"{r.seconds:.1f}")
        for r in results
    ]  # fmt: skip
    return table(headers, rows, left=(1,))


def shortfalls(results: Sequence[Result]) -> list[str]:
    """Which of the expected training errors didn't come out, in a sentence each: see ``EXPECTED``."""
    missed = []
    for result in results:
        low, high = EXPECTED.get(result.net, (0.0, 100.0))
        if not low <= result.train_error <= high:
            missed.append(f"{result.net}'s training error is {result.train_error:.2f} %, not {low:g} to {high:g} %")
    return missed


def conclusion(results: Sequence[Result]) -> str:
    """What the table says, with its own numbers; nothing unless all four nets are in it."""
    errors = {result.net: f"{result.train_error:.1f} %" for result in results}
    if not errors.keys() >= set(NETS):
        return ""
    return (
        f"Degradation: 56 plain layers end at {errors['plain56']} training error, where 20 reach {errors['plain20']}.\n"
        f"The cure: with shortcuts, 56 layers reach {errors['resnet56']} (2015) and {errors['preact_resnet56']} (2016)."
    )


def write_log(path: Path, curves: dict[str, list[Epoch]]) -> None:
    """Each epoch of each net as a line of CSV; without the seconds, so that two runs write the same bytes."""
    columns = [name for name in Epoch.__dataclass_fields__ if name != "seconds"]
    epochs = [(net, epoch) for net, curve in curves.items() for epoch in curve]
    rows = [[net, *(getattr(epoch, column) for column in columns)] for net, epoch in epochs]
    write_csv(path, [["net", *columns], *rows])
