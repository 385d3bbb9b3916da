"""``python -m benchmarks.first_step WORK``: one start in this very process; prints its seconds. See ``startup``.

Nothing is imported before the clock starts but what Python itself needs.
"""

import argparse
import time

BATCH = 128


def numpy_import() -> float:
    """``import numpy``, which is part of everybody's import."""
    start = time.perf_counter()
    import numpy  # noqa: F401

    return time.perf_counter() - start


def minires_import() -> float:
    """``import minires``."""
    start = time.perf_counter()
    import minires  # noqa: F401

    return time.perf_counter() - start


def minires_step() -> float:
    """Import, ResNet-20, and a training step of it through the public API."""
    start = time.perf_counter()
    import numpy as np

    import minires
    from minires import functional, models, optim

    rng = np.random.default_rng(0)
    net = models.create("resnet20", rng=rng)
    sgd = optim.SGD(net.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-4)
    images, labels = rng.standard_normal((BATCH, 3, 32, 32), np.float32), rng.integers(0, 10, BATCH)
    functional.cross_entropy(net(minires.Tensor(images)), labels).backward()
    sgd.step()
    return time.perf_counter() - start


def torch_import() -> float:
    """``import torch``."""
    start = time.perf_counter()
    import torch  # noqa: F401

    return time.perf_counter() - start


def torch_step(*, compiled: bool = False) -> float:
    """The same in PyTorch. Its net is a copy of ours; making ours, and the copy, isn't counted."""
    seconds = torch_import()
    import torch

    from benchmarks.torch_nets import mirror
    from minires import models

    net = mirror(models.create("resnet20"))
    start = time.perf_counter()
    sgd = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-4)
    images, labels = torch.randn(BATCH, 3, 32, 32), torch.randint(0, 10, (BATCH,))
    forward = torch.compile(net) if compiled else net
    torch.nn.functional.cross_entropy(forward(images), labels).backward()
    sgd.step()
    return seconds + time.perf_counter() - start


WORK = {
    "numpy-import": numpy_import,
    "minires-import": minires_import,
    "minires-step": minires_step,
    "torch-import": torch_import,
    "torch-step": torch_step,
    "torch-compiled-step": lambda: torch_step(compiled=True),
}

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("work", choices=WORK)
    print(WORK[parser.parse_args().work]())
