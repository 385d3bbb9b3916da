"""What the tests of training train: a net of a few hundred parameters on a few easy images."""

import numpy as np

from minires import models, optim
from minires.data import Loader, Split


def bars(N=24, *, seed=0):
    """Noisy 1x6x6 images of three classes: a bright left, middle or right third."""
    rng = np.random.default_rng(seed)
    labels = np.arange(N) % 3
    images = rng.normal(0, 0.3, (N, 1, 6, 6)).astype(np.float32)
    for image, label in zip(images, labels, strict=True):
        image[0, :, 2 * label : 2 * label + 2] += 1
    return Split(images, labels.astype(np.int64))


OPTIONS = {"in_channels": 1, "num_classes": 3, "widths": [2, 3, 4]}


def net(name="resnet8", seed=0):
    return models.create(name, rng=np.random.default_rng(seed), **OPTIONS)


def sgd(module, lr=0.1):
    return optim.SGD(module.parameters(), lr=lr, momentum=0.9, weight_decay=1e-4)


def loader(split=None, seed=0, batch_size=8):
    return Loader(bars() if split is None else split, batch_size, rng=np.random.default_rng(seed))


def equal_states(one, other):
    """Whether two state_dicts hold the same bits."""
    return one.keys() == other.keys() and all(np.array_equal(one[name], other[name]) for name in one)
